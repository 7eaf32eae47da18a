"""Clients of the gateway who never take no for an answer, and the memory of what they were told.

Each client does one thing after the other and asks the same with the same ids until it is
acknowledged, as a program that must not lose anything does. What was acknowledged is the model that
the platform is held against, and each answer is checked at once: a command that took effect twice
would show in its etag.
"""

import asyncio
import contextlib
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

import grpc.aio
import httpx

from gateway.catalog import PUBLIC
from rapport.common.v1.money_pb2 import Money
from rapport.common.v1.tokens_pb2 import Landing, WriteToken
from rapport.contacts.v1.service_pb2 import (
    ChangeContactEmailRequest,
    CreateContactRequest,
    RenameContactRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_OPEN,
    DEAL_STATE_WON,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.service_pb2 import (
    RECEIPT_OUTCOME_ACCEPTED,
    RECEIPT_OUTCOME_DUPLICATE,
    RecordCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.segments.v1.rule_pb2 import ActivityCondition, Condition, Rule
from rapport.segments.v1.service_pb2 import CreateSegmentRequest
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceStub
from services.kernel.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from services.kernel.log.tokens import decode_write_token
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.wire_errors import from_rpc_error
from services.kernel.testing import eventually

CALL_TIMEOUT_S = 5.0
ACKNOWLEDGED_WITHIN_S = 60.0
SELLERS = 3
VISITORS = 2
NOT_NOW = (Unavailable, DeadlineExceeded, ResourceExhausted)
HTTP_NOT_NOW = {429, 503, 504}
STAGES = ("proposal", "negotiation", "qualification")


class Clients:
    """The gateway's clients share a connection of each kind, and the key of the workspace."""

    def __init__(self, dev):
        self._metadata = (("authorization", f"Bearer {dev['api_key']}"),)
        self._channel = open_channel(dev["grpc"], PUBLIC)
        self._http = httpx.AsyncClient(
            base_url=dev["http"], auth=(dev["write_key"], ""), timeout=CALL_TIMEOUT_S
        )
        self.contacts = ContactsServiceStub(self._channel)
        self.deals = DealsServiceStub(self._channel)
        self.events = EventsServiceStub(self._channel)
        self.identity = IdentityServiceStub(self._channel)
        self.segments = SegmentsServiceStub(self._channel)

    async def ask(self, method, request, *, within_s=CALL_TIMEOUT_S):
        """Asks until there is an answer that is not `not now`."""

        async def once():
            try:
                return await method(request, timeout=within_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                refusal = from_rpc_error(error)
                assert not isinstance(refusal, NOT_NOW), f"never acknowledged: {refusal!r}"
                raise refusal from error

        return await eventually(once, within_s=ACKNOWLEDGED_WITHIN_S)

    async def track(self, batch):
        """Sends customer events over HTTP until they are acknowledged."""

        async def once():
            try:
                answer = await self._http.post("/v1/batch", json={"batch": batch})
            except httpx.TransportError as error:
                raise AssertionError(f"never acknowledged: {error!r}") from error
            assert answer.status_code not in HTTP_NOT_NOW, answer.text
            return answer

        answer = await eventually(once, within_s=ACKNOWLEDGED_WITHIN_S)
        if answer.status_code != 200:
            raise RuntimeError(f"{answer.status_code}: {answer.text}")
        return answer.json()

    async def close(self):
        """Hangs up."""
        await self._channel.close()
        await self._http.aclose()


@dataclass
class Acknowledged:
    """What the clients were told is done."""

    messages: set = field(default_factory=set)
    # name: (given name, e-mail address, version)
    contacts: dict = field(default_factory=dict)
    # name: (contact, stage, state, version)
    deals: dict = field(default_factory=dict)
    segments: list = field(default_factory=list)
    count: int = 0
    _landed: dict = field(default_factory=dict)

    @property
    def winners(self):
        """The contacts whose deals were won."""
        return {contact for contact, _, state, _ in self.deals.values() if state == DEAL_STATE_WON}

    @property
    def read_token(self):
        """As fresh as everything acknowledged."""
        return token_of(self._landed)

    def landed(self, write_token):
        """Remembers where a write landed, and counts it."""
        self.count += 1
        for landing in decode_write_token(write_token):
            place = landing.service, landing.partition
            self._landed[place] = max(landing.position, self._landed.get(place, 0))


def token_of(landed):
    """A read token for positions of several services' logs."""
    landings = [Landing(service=s, partition=p, position=at) for (s, p), at in landed.items()]
    token = WriteToken(landings=landings).SerializeToString()
    return urlsafe_b64encode(token).decode().rstrip("=")


class Load:
    """Concurrent clients that go on until `finish`; `name` sets apart what each load makes."""

    def __init__(self, clients, acknowledged, chance, name, *, sellers, visitors):
        self._clients = clients
        self._told = acknowledged
        self._chance = chance
        self._name = name
        self._sellers = sellers
        self._visitors = visitors
        self._over = False
        self._work = asyncio.create_task(self._run())

    async def _run(self):
        """Works until the end of the load; a client's failure is everybody's."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._define_segment())
            for number in range(self._sellers):
                group.create_task(self._sell(f"{self._name}-{number}"))
            for number in range(self._visitors):
                group.create_task(self._visit(f"{self._name}-{number}"))

    async def finish(self):
        """Lets each client end what it is at."""
        self._over = True
        await self._work

    async def end(self):
        """Ends it anyhow."""
        self._work.cancel()
        await asyncio.wait({self._work})

    async def go_on(self, writes):
        """Returns when so many more writes are acknowledged; raises what a client raised."""
        goal = self._told.count + writes

        def reached():
            if self._work.done():
                self._work.result()
            assert self._told.count >= goal, f"{goal - self._told.count} more to acknowledge"

        await eventually(reached, within_s=ACKNOWLEDGED_WITHIN_S)

    async def _define_segment(self):
        condition = ActivityCondition(activity="Deal Won", count_min=1, window_days=30)
        request = CreateSegmentRequest(
            segment_id=f"buyers-{self._name}",
            display_name="Recent buyers",
            rule=Rule(conditions=[Condition(activity=condition)]),
        )
        made = await self._command(self._clients.segments.CreateSegment, request)
        self._told.segments.append(made.segment.name)

    async def _sell(self, who):
        for number in range(10_000):
            if self._over:
                return
            contact = await self._keep_contact(f"{who}-{number}")
            await self._keep_deal(f"{who}-{number}", contact)

    async def _keep_contact(self, key):
        contacts = self._clients.contacts
        email = email_of(key)
        create = CreateContactRequest(contact_id=key, given_name="Ada", email=email)
        name = (await self._command(contacts.CreateContact, create)).contact.name
        self._told.contacts[name] = ("Ada", email, 1)
        # The second says what is so already, and changes nothing.
        for given_name, version in (("Grace", 2), ("Grace", 2), ("Edith", 3)):
            rename = RenameContactRequest(name=name, given_name=given_name)
            renamed = (await self._command(contacts.RenameContact, rename)).contact
            assert (renamed.given_name, version_of(renamed)) == (given_name, version), renamed
            self._told.contacts[name] = (given_name, email, version)
        if self._chance.random() < 0.5:
            email = f"new.{email}"
            change = ChangeContactEmailRequest(name=name, email=email)
            changed = (await self._command(contacts.ChangeContactEmail, change)).contact
            assert (changed.email, version_of(changed)) == (email, 4), changed
            self._told.contacts[name] = ("Edith", email, 4)
        return name

    async def _keep_deal(self, key, contact):
        deals = self._clients.deals
        opening = OpenDealRequest(
            deal_id=key,
            display_name="Lamps",
            contact=contact,
            amount=Money(amount_minor=100, currency="EUR"),
        )
        deal = (await self._command(deals.OpenDeal, opening)).deal
        self._remember(deal, state=DEAL_STATE_OPEN, version=1)
        for version, stage in enumerate(STAGES, start=2):
            move = MoveDealStageRequest(name=deal.name, stage=f"pipelines/sales/stages/{stage}")
            deal = (await self._command(deals.MoveDealStage, move)).deal
            self._remember(deal, state=DEAL_STATE_OPEN, version=version)
        if self._chance.random() < 0.5:
            deal = (await self._command(deals.WinDeal, WinDealRequest(name=deal.name))).deal
            self._remember(deal, state=DEAL_STATE_WON, version=5)

    def _remember(self, deal, *, state, version):
        assert (deal.state, version_of(deal)) == (state, version), deal
        self._told.deals[deal.name] = (deal.contact, deal.stage, deal.state, version)

    async def _visit(self, who):
        """Somebody browses and says who they are: a contact of this load, or nobody known."""
        for number in range(10_000):
            if self._over:
                return
            key = f"{who}-{number}"
            send = self._record if self._chance.random() < 0.5 else self._track
            ids = [f"message-{key}-{place}" for place in range(self._chance.randrange(2, 12))]
            await send(key, ids)
            if self._chance.random() < 0.2:
                await send(key, ids)  # Sent again, as a tracker does that lost the answer.

    async def _record(self, key, ids):
        identify, track = (CustomerEventType.Value(f"CUSTOMER_EVENT_TYPE_{kind}") for kind in KINDS)
        sent = [
            CustomerEvent(message_id=message_id, type=track, name="Looked", anonymous_id=key)
            for message_id in ids
        ]
        sent[0].type = identify
        sent[0].traits = f'{{"email": "{email_of(key)}"}}'
        request = RecordCustomerEventsRequest(customer_events=sent)
        answer = await self._clients.ask(self._clients.events.RecordCustomerEvents, request)
        outcomes = {RECEIPT_OUTCOME_ACCEPTED, RECEIPT_OUTCOME_DUPLICATE}
        assert {receipt.outcome for receipt in answer.receipts} <= outcomes, answer
        self._received(ids, [receipt.message_id for receipt in answer.receipts], answer.write_token)

    async def _track(self, key, ids):
        batch = [
            {"type": "track", "event": "Looked", "messageId": message_id, "anonymousId": key}
            for message_id in ids
        ]
        batch[0] |= {"type": "identify", "traits": {"email": email_of(key)}}
        answer = await self._clients.track(batch)
        receipts = answer["receipts"]
        assert {receipt["outcome"] for receipt in receipts} <= {"accepted", "duplicate"}, answer
        self._received(ids, [receipt["messageId"] for receipt in receipts], answer["writeToken"])

    def _received(self, sent, receipts, write_token):
        assert receipts == sent
        self._told.messages |= set(sent)
        self._told.landed(write_token)

    async def _command(self, method, request):
        request.request_id = str(uuid.UUID(int=self._chance.getrandbits(128), version=4))
        answer = await self._clients.ask(method, request)
        self._told.landed(answer.write_token)
        return answer


KINDS = ("IDENTIFY", "TRACK")


def email_of(key):
    """The address of a person; a visitor and a contact with the same key are one."""
    return f"{key}@example.com"


def version_of(resource):
    """How many commands took effect on a contact or a deal."""
    return int(resource.etag.strip('"'))


@contextlib.asynccontextmanager
async def under_load(dev, acknowledged, chance, name, *, sellers=SELLERS, visitors=VISITORS):
    """Clients work while the block runs; at its end all they asked for is acknowledged."""
    clients = Clients(dev)
    load = Load(clients, acknowledged, chance, name, sellers=sellers, visitors=visitors)
    try:
        yield load
        await load.finish()
    finally:
        await load.end()
        await clients.close()
