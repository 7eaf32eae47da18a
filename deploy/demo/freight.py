"""The kinds of what is sent: how each is sent, recognised and listed through the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.message import Message

from deploy.deal_files.sending import outcome_of, send
from deploy.demo.cargo import Cargo, DealToTell, Item, M
from deploy.demo.door import Door, reason_of, with_request_id
from rapport.contacts.v1.service_pb2 import Contact, CreateContactRequest, ListContactsRequest
from rapport.deals.v1.imports_pb2 import ImportDealResult, ImportedDeal
from rapport.deals.v1.service_pb2 import (
    Deal,
    ListDealsRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    WinDealRequest,
)
from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.service_pb2 import (
    ListCustomerEventsRequest,
    Receipt,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
)
from services.kernel.errors import AlreadyExists, RapportError

COMMANDS_IN_FLIGHT: Final = 64
BATCHES_IN_FLIGHT: Final = 4
BATCH_EVENTS_MAX: Final = 500
BATCH_BYTES_MAX: Final = 1024 * 1024
PAGE_SIZE: Final = 1000
# Customer events may be 32 KiB each, and a page has to fit into one answer.
CUSTOMER_EVENTS_PAGE_SIZE: Final = 250
# Long enough for a laptop with better things to do; after the last attempt it is stuck.
READ_WITHIN_S: Final = 30.0
COMMAND_WITHIN_S: Final = 30.0

T = TypeVar("T")


@dataclass(slots=True)
class Sent:
    """What became of the items, by their keys, and the tokens of the writes."""

    accepted: set[str] = field(default_factory=set)
    known: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)


Told = Callable[[int], None]


class Freight(Protocol[M]):
    """A kind of item, and the part of the platform that takes it."""

    noun: str

    async def send(self, door: Door, cargo: Cargo[M], sent: Sent, told: Told) -> None:
        """Sends everything; `told` hears how many more are done."""
        ...

    def walk(self, door: Door, cargo: Cargo[M], sent: Sent) -> AsyncIterator[tuple[str, Message]]:
        """Lists what the platform has now, with its keys."""
        ...


class CustomerEventFreight:
    """Customer events, in batches."""

    noun = "customer events"

    async def send(self, door: Door, cargo: Cargo[CustomerEvent], sent: Sent, told: Told) -> None:
        async def record(batch: Sequence[Item[CustomerEvent]]) -> None:
            request = RecordCustomerEventsRequest(customer_events=[it.message for it in batch])
            response = await door.ask(
                door.events.RecordCustomerEvents, request, within_s=COMMAND_WITHIN_S
            )
            for item, receipt in zip(batch, response.receipts, strict=True):
                _file(sent, item.key, receipt)
                sent.tokens[item.key] = response.write_token
            told(len(batch))

        await each(batches_of(cargo.items), record, in_flight=BATCHES_IN_FLIGHT)

    async def walk(
        self, door: Door, cargo: Cargo[CustomerEvent], sent: Sent
    ) -> AsyncIterator[tuple[str, Message]]:
        for token in sorted(set(sent.tokens.values())):
            # The list is made from the feed: it has got as far as each of our writes.
            settled = ListCustomerEventsRequest(page_size=1, read_token=token)
            await door.ask(door.events.ListCustomerEvents, settled, within_s=READ_WITHIN_S)
        request = ListCustomerEventsRequest(
            page_size=CUSTOMER_EVENTS_PAGE_SIZE, filter=cargo.filter, order_by="message_id"
        )
        async for page in pages(door, door.events.ListCustomerEvents, request):
            for found in page.customer_events:
                yield found.message_id, found


class ContactFreight:
    """Contacts, one command each."""

    noun = "contacts"

    async def send(
        self, door: Door, cargo: Cargo[CreateContactRequest], sent: Sent, told: Told
    ) -> None:
        before = {key async for key, _ in self.walk(door, cargo, sent)}

        async def create(item: Item[CreateContactRequest]) -> None:
            try:
                response = await door.ask(
                    door.contacts.CreateContact,
                    with_request_id(item.message),
                    within_s=COMMAND_WITHIN_S,
                )
                sent.tokens[item.key] = response.write_token
                (sent.known if item.key in before else sent.accepted).add(item.key)
            except RapportError as error:
                _refuse(sent, item.key, error, existing=f"contacts/{item.key}")
            told(1)

        await each(cargo.items, create, in_flight=COMMANDS_IN_FLIGHT)

    async def walk(
        self, door: Door, cargo: Cargo[CreateContactRequest], sent: Sent
    ) -> AsyncIterator[tuple[str, Message]]:
        del sent  # The view of contacts is read at once.
        request = ListContactsRequest(page_size=PAGE_SIZE, filter=cargo.filter)
        async for page in pages(door, door.contacts.ListContacts, request):
            for found in page.contacts:
                yield key_of(found), found


class DealFreight:
    """Deals, each opened and brought to where it stands."""

    noun = "deals"

    async def send(self, door: Door, cargo: Cargo[DealToTell], sent: Sent, told: Told) -> None:
        before = {key async for key, _ in self.walk(door, cargo, sent)}

        async def tell(item: Item[DealToTell]) -> None:
            try:
                sent.tokens[item.key] = await tell_deal(door, item.message)
                (sent.known if item.key in before else sent.accepted).add(item.key)
            except RapportError as error:
                sent.refused[item.key] = reason_of(error)
            told(1)

        await each(cargo.items, tell, in_flight=COMMANDS_IN_FLIGHT)

    async def walk(
        self, door: Door, cargo: Cargo[DealToTell], sent: Sent
    ) -> AsyncIterator[tuple[str, Message]]:
        del sent  # The view of deals is read at once.
        async for found in listed_deals(door, cargo.filter):
            yield found


class ImportedDealFreight:
    """Deals with histories, in batches."""

    noun = "deals"

    async def send(self, door: Door, cargo: Cargo[ImportedDeal], sent: Sent, told: Told) -> None:
        async def ask(method: Any, request: Any) -> Any:
            return await door.ask(method, request, within_s=COMMAND_WITHIN_S)

        def file(result: ImportDealResult) -> None:
            _file_deal(sent, result)
            told(1)

        await send(door.deal_imports, ask, [item.message for item in cargo.items], file)

    async def walk(
        self, door: Door, cargo: Cargo[ImportedDeal], sent: Sent
    ) -> AsyncIterator[tuple[str, Message]]:
        del sent
        async for found in listed_deals(door, cargo.filter):
            yield found


async def listed_deals(door: Door, asked: str) -> AsyncIterator[tuple[str, Deal]]:
    """Lists the deals that match a filter, with their keys."""
    request = ListDealsRequest(page_size=PAGE_SIZE, filter=asked)
    async for page in pages(door, door.deals.ListDeals, request):
        for found in page.deals:
            yield key_of(found), found


async def tell_deal(door: Door, deal: DealToTell) -> str:
    """Opens a deal and takes its steps; returns the token of the last write."""
    token = ""
    try:
        opened = await door.ask(
            door.deals.OpenDeal, with_request_id(deal.opening), within_s=COMMAND_WITHIN_S
        )
        token = opened.write_token
    except AlreadyExists as error:
        if error.metadata.get("existing_name") != f"deals/{deal.opening.deal_id}":
            raise
    for step in deal.steps:
        token = await _take(door, step)
    return token


async def _take(door: Door, step: MoveDealStageRequest | WinDealRequest | LoseDealRequest) -> str:
    asked: Any = {
        MoveDealStageRequest: door.deals.MoveDealStage,
        WinDealRequest: door.deals.WinDeal,
        LoseDealRequest: door.deals.LoseDeal,
    }[type(step)]
    response: Any = await door.ask(asked, with_request_id(step), within_s=COMMAND_WITHIN_S)
    token: str = response.write_token
    return token


async def pages(door: Door, method: Any, request: Any) -> AsyncIterator[Any]:
    """Yields the pages of a list to its end."""
    while True:
        page: Any = await door.ask(method, request, within_s=READ_WITHIN_S)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def each(things: Iterable[T], do: Callable[[T], Awaitable[None]], *, in_flight: int) -> None:
    """Does something with each thing, a bounded number of them at a time; fails as the first."""
    left = iter(things)

    async def work() -> None:
        for thing in left:
            await do(thing)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(work())
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None


def batches_of(
    items: Sequence[Item[CustomerEvent]],
) -> Iterator[Sequence[Item[CustomerEvent]]]:
    """Yields batches bounded in number and bytes."""
    batch: list[Item[CustomerEvent]] = []
    size = 0
    for item in items:
        bytes_more = item.message.ByteSize()
        if batch and (len(batch) == BATCH_EVENTS_MAX or size + bytes_more > BATCH_BYTES_MAX):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += bytes_more
    if batch:
        yield batch


def key_of(found: Contact | Deal) -> str:
    """`contacts/42` → `42`."""
    return found.name.partition("/")[2]


def _file(sent: Sent, key: str, receipt: Receipt) -> None:
    match receipt.outcome:
        case ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED:
            sent.accepted.add(key)
        case ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE:
            sent.known.add(key)
        case _:
            sent.refused[key] = f"{receipt.reason}: {receipt.detail}"


def _file_deal(sent: Sent, result: ImportDealResult) -> None:
    key = result.name.partition("/")[2]
    match outcome_of(result):
        case "IMPORTED":
            sent.accepted.add(key)
        case "UNCHANGED":
            sent.known.add(key)
        case _:
            sent.refused[key] = "; ".join(
                f"{error.reason}: {error.field}: {error.detail}" for error in result.errors
            )


def _refuse(sent: Sent, key: str, error: RapportError, *, existing: str) -> None:
    if isinstance(error, AlreadyExists) and error.metadata.get("existing_name") == existing:
        sent.known.add(key)
    else:
        sent.refused[key] = reason_of(error)
