"""What must hold of a platform after anything: nothing is lost, nothing is there twice.

Everything is waited for by read tokens; then the gateway's answers are held against what its
clients were told, and the databases and the feeds against each other, past our own readers.
"""

import asyncio
import contextlib
import importlib
import re
from collections import Counter
from functools import partial

from deploy.stack.platform import MODULES, SERVICES
from rapport.contacts.v1.service_pb2 import ListContactsRequest
from rapport.deals.v1.service_pb2 import ListDealsRequest
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest
from rapport.identity.v1.service_pb2 import GetProfileRequest, ListProfilesRequest
from rapport.segments.v1.events_pb2 import ProfileEnteredSegment
from rapport.segments.v1.service_pb2 import ListSegmentMembersRequest
from services.kernel.clock import SystemClock
from services.kernel.feed.feed import stream_name
from services.kernel.feed.source import own_source
from services.kernel.log.log import READ_BATCH_SIZE, read_heads, read_partition
from services.kernel.process.runtime import make_kernel, open_pool
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild
from tests.chaos.platform_load import Clients, token_of, version_of
from tests.feed_world import messages

CAUGHT_UP_WITHIN_S = 30.0
FEED_FULL_WITHIN_S = 30.0
PAGE_SIZE = 500
ALARM = re.compile(r'"(task\.died|projection\.poison|relay\.foreign|INTERNAL|UNKNOWN|critical)"')

DECLARED = {name: importlib.import_module(f"services.{name}.__main__").SERVICE for name in SERVICES}
VIEWS = [
    (name, view.name)
    for name, service in DECLARED.items()
    for view in (*service.views, *(consumer.view for consumer in service.consumers))
]

_TWICE_IN_TIMELINE = "select activity_id from profiles.timeline group by 1 having count(*) > 1"
_TIMELINE = "select activity_id from profiles.timeline"


class Audit:
    """One look at a whole platform that nobody writes to."""

    def __init__(self, platform, acknowledged):
        self._platform = platform
        self._told = acknowledged
        self._pools = {}
        self._logs = {}

    async def assert_whole(self, *, rebuilt=SERVICES):
        """Everything acknowledged is there once, and everything agrees.

        The views of the services in `rebuilt` are held against ones that are built anew, which is
        what takes longest.
        """
        async with contextlib.AsyncExitStack() as stack:
            clients = Clients(self._platform.dev)
            stack.push_async_callback(clients.close)
            for name in SERVICES:
                url = self._platform.database_url(name)
                self._pools[name] = await stack.enter_async_context(open_pool(url))
            await self._until_caught_up(clients)
            for name in SERVICES:
                self._logs[name] = await self._dense_log(name)
            await asyncio.gather(*(self._assert_feed_is_log(name) for name in SERVICES))
            await self._assert_nothing_waits()
            self._assert_no_alarm()
            await self._assert_writes(clients)
            await self._assert_effects()
            await self._assert_members(clients)
            for name in rebuilt:
                await self._assert_rebuilt_equals_live(name)

    async def _until_caught_up(self, clients):
        """Waits for every view: segments last, which follow what identity makes of the rest."""
        asking = partial(clients.ask, within_s=CAUGHT_UP_WITHIN_S)
        token = self._told.read_token
        events = ListCustomerEventsRequest(page_size=1, read_token=token)
        await asking(clients.events.ListCustomerEvents, events)
        profiles = ListProfilesRequest(page_size=1, read_token=token)
        await asking(clients.identity.ListProfiles, profiles)
        landed = {("identity", 0): (await read_heads(self._pools["identity"]))[0]}
        for segment in self._told.segments:
            token = token_of({**landed, ("segments", 0): 1})
            members = ListSegmentMembersRequest(name=segment, page_size=1, read_token=token)
            await asking(clients.segments.ListSegmentMembers, members)

    async def _dense_log(self, name):
        """The log of a service, after a look at its positions."""
        pool = self._pools[name]
        heads = await read_heads(pool)
        assert list(heads) == [0]
        events = []
        while batch := await read_partition(pool, 0, after=len(events), limit=READ_BATCH_SIZE):
            events += batch
        assert [event.position for event in events] == list(range(1, heads[0] + 1))
        versions = Counter()
        for event in events:
            versions[event.workspace, event.stream] += 1
            assert event.version == versions[event.workspace, event.stream], event
        assert len({event.event_id for event in events}) == len(events)
        return events

    async def _assert_feed_is_log(self, name):
        """Sequence for position and byte for byte; the relay may have to fill it first."""
        wanted = [(event.position, event.SerializeToString()) for event in self._logs[name]]

        async def carried():
            found = await messages(self._platform.nats_url, stream_name(name, 0))
            assert len(found) == len(wanted), f"the feed of {name}"
            return found

        assert await eventually(carried, within_s=FEED_FULL_WITHIN_S) == wanted, name

    async def _assert_nothing_waits(self):
        """Every consumer is at the head of each of its sources, and nothing is parked."""
        heads = {name: len(events) for name, events in self._logs.items()}
        for name, service in DECLARED.items():
            pool = self._pools[name]

            async def at_heads(service=service, pool=pool):
                rows = await pool.fetch(
                    "select consumer, source, position from kernel.checkpoints where generation = 0"
                )
                assert {(row["consumer"], row["source"]): row["position"] for row in rows} == {
                    (consumer.name, source): heads[source]
                    for consumer in service.consumers
                    for source in consumer.sources
                }

            await eventually(at_heads, within_s=CAUGHT_UP_WITHIN_S)
            assert await pool.fetch("select * from kernel.parked") == []

    def _assert_no_alarm(self):
        """No process met what it does not expect: nothing died inside, nothing was our fault."""
        for name in MODULES:
            log = (self._platform.logs / f"{name}.log").read_text()
            alarms = [line for line in log.splitlines() if ALARM.search(line)]
            assert alarms == [], f"{name}: {alarms[:3]}"

    async def _assert_writes(self, clients):
        """The log of customer events, contacts and deals are what the clients were told."""
        kept = Counter(event.stream for event in self._logs["events"])
        assert kept == Counter(f"message-{message_id}" for message_id in self._told.messages)
        contacts = await _all_pages(clients, clients.contacts.ListContacts, ListContactsRequest())
        assert {
            c.name: (c.given_name, c.email, version_of(c)) for c in contacts
        } == self._told.contacts
        deals = await _all_pages(clients, clients.deals.ListDeals, ListDealsRequest())
        found = {
            deal.name: (deal.contact, deal.stage, deal.state, version_of(deal)) for deal in deals
        }
        assert found == self._told.deals
        for name, known in (("contacts", contacts), ("deals", deals)):
            assert len(self._logs[name]) == sum(version_of(one) for one in known), name
        listed = await _all_pages(
            clients, clients.events.ListCustomerEvents, ListCustomerEventsRequest()
        )
        assert Counter(e.message_id for e in listed) == Counter(self._told.messages)

    async def _assert_effects(self):
        """Each fact about a person is one entry of a timeline and one fact of a profile."""
        facts = {e.event_id for name in ("contacts", "deals", "events") for e in self._logs[name]}
        pool = self._pools["identity"]
        assert await pool.fetch(_TWICE_IN_TIMELINE) == []
        assert {str(row["activity_id"]) for row in await pool.fetch(_TIMELINE)} == facts
        decode = DECLARED["identity"].event_types.decode
        recorded = [
            event.activity_id
            for event in (decode(envelope).event for envelope in self._logs["identity"])
            if event.DESCRIPTOR.name == "ProfileActivityRecorded"
        ]
        assert Counter(recorded) == Counter(facts)

    async def _assert_members(self, clients):
        """Who won is in each segment; entries and exits take turns, the last says who is in."""
        winners = set()
        for contact in self._told.winners:
            name = f"profiles/contact_id:{contact.partition('/')[2]}"
            found = await clients.ask(clients.identity.GetProfile, GetProfileRequest(name=name))
            winners.add(found.profile.name)
        decode = DECLARED["segments"].event_types.decode
        log = [decode(envelope) for envelope in self._logs["segments"]]
        for segment in self._told.segments:
            request = ListSegmentMembersRequest(name=segment)
            members = await _all_pages(clients, clients.segments.ListSegmentMembers, request)
            assert Counter(m.profile for m in members) == Counter(winners)
            stream = f"members-{segment.partition('/')[2]}"
            inside = {}
            for event in (recorded.event for recorded in log if recorded.stream == stream):
                enters = isinstance(event, ProfileEnteredSegment)
                assert inside.get(event.profile, False) is not enters, event
                inside[event.profile] = enters
            assert {profile for profile, is_in in inside.items() if is_in} == winners

    async def _assert_rebuilt_equals_live(self, name):
        """Each view, built again from position 1, has the same rows."""
        service, pool = DECLARED[name], self._pools[name]
        kernel = make_kernel(pool, service, 1, SystemClock(), secret=b"")
        consumers = {consumer.name: consumer for consumer in service.consumers}
        for view in (*service.views, *(consumer.view for consumer in consumers.values())):
            consumer = consumers.get(view.name)
            sources = consumer.sources if consumer else ()
            types = consumer.event_types if consumer else service.event_types
            readers = {source: own_source(self._pools[source]).read for source in sources}
            rebuild = Rebuild(pool, kernel.log, view, types, readers)
            async for _ in rebuild.build():
                pass
            comparison = await rebuild.compare()
            assert comparison.live == comparison.built, f"{view.name} of {name}"
            generation = await pool.fetchval(
                "select max(generation) from kernel.generations where view = $1", view.name
            )
            await rebuild.drop(generation)


async def carried_by_feeds(platform):
    """What the feed of each service holds, message by message: (sequence, bytes)."""
    streams = [messages(platform.nats_url, stream_name(name, 0)) for name in SERVICES]
    return dict(zip(SERVICES, await asyncio.gather(*streams), strict=True))


async def _all_pages(clients, method, request):
    """Everything a list holds."""
    request.page_size = PAGE_SIZE
    found = []
    while True:
        answer = await clients.ask(method, request, within_s=CAUGHT_UP_WITHIN_S)
        (rows,) = [
            value for field, value in answer.ListFields() if field.name != "next_page_token"
        ] or [[]]
        found += rows
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token
