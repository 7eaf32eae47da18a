"""The view `commerce`: products and orders, as all customer events together say.

Each customer event's part is kept beside what follows from all of them, so that a retraction takes
exactly its part back. What follows is the last words and sums: a function of the set of events,
whatever the order in which they come. Partitions of the log meet in the same rows, hence a lock
per workspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    CatalogueEntry,
    CustomerEventRecorded,
    CustomerEventRetracted,
    ProductRecorded,
)
from services.events.commerce import Commerce, read_commerce
from services.events.deciders.product import DECIDER
from services.events.projections import orders, products
from services.events.receipts import message_id_of
from services.kernel.log.recorded import utc

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TRACK: Final = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

# Taken in one order, so that no two wait for each other.
_LOCK = """
select pg_advisory_xact_lock(key) from (
    select distinct hashtextextended($1 || '/' || workspace, 0) as key
    from unnest($2::text[]) workspace order by 1
) keys
"""

# Plans made while the tables were empty must not outlive that; planning anew costs next to nothing.
_PLAN_ANEW = "set local plan_cache_mode = force_custom_plan"

Place = tuple[str, str]  # workspace, and the id of a message, product or order


@dataclass(frozen=True, slots=True)
class Part:
    """What a customer event adds, and the key by which the last word is known."""

    key: bytes
    commerce: Commerce


@dataclass(slots=True)
class Net:
    """What a batch of events changes in all: who was recorded and retracted within it is gone."""

    added: dict[Place, Part]
    retracted: set[Place]
    entries: dict[Place, CatalogueEntry]

    @classmethod
    def of(cls, events: Sequence[Recorded]) -> Net:
        """Sums up a batch; events of one message or product come in their order."""
        net = cls({}, set(), {})
        for event in events:
            match event.event:
                case CustomerEventRecorded():
                    net._add(event)
                case CustomerEventRetracted():
                    place = event.workspace, message_id_of(event.stream)
                    if net.added.pop(place, None) is None:
                        net.retracted.add(place)
                case ProductRecorded():
                    place = event.workspace, DECIDER.id_of(event.stream)
                    net.entries[place] = event.event.entry
        return net

    @property
    def workspaces(self) -> list[str]:
        """Whose products and orders change."""
        return sorted({place[0] for place in (*self.added, *self.retracted, *self.entries)})

    def _add(self, event: Recorded) -> None:
        recorded: Any = event.event
        sent = recorded.customer_event
        if sent.type != _TRACK:
            return
        commerce = read_commerce(
            sent.name, sent.properties, user_id=sent.user_id, anonymous_id=sent.anonymous_id
        )
        if commerce is not None and (commerce.mentions or commerce.statement):
            self.added[event.workspace, sent.message_id] = Part(key_of(event), commerce)


class CommerceView:
    """Keeps the tables."""

    name = "commerce"
    shape = 1

    def tables(self, schema: str) -> str:
        return (orders.TABLES + products.TABLES).format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds events into the tables."""
        await self._fold(tx, schema, Net.of(events))

    async def forget(self, tx: Tx, schema: str, messages: Collection[Place]) -> None:
        """Takes back what erased messages said, by workspace and message id."""
        await self._fold(tx, schema, Net({}, set(messages), {}))

    async def _fold(self, tx: Tx, schema: str, net: Net) -> None:
        if not net.workspaces:
            return
        await tx.execute(_PLAN_ANEW)
        await tx.execute(_LOCK, schema, net.workspaces)
        retracted = sorted(net.retracted)
        units = await orders.fold(
            tx,
            schema,
            added=[
                (*place, part.key, part.commerce.statement)
                for place, part in net.added.items()
                if part.commerce.statement is not None
            ],
            retracted=retracted,
        )
        await products.fold(
            tx,
            schema,
            added=[
                (*place, part.key, mention)
                for place, part in net.added.items()
                for mention in part.commerce.mentions
            ],
            retracted=retracted,
            entries=net.entries,
            units=units,
        )


def key_of(event: Recorded) -> bytes:
    """A customer event's key: when it happened, when it was received, its event's id.

    8 bytes of microseconds each and 16 of the id, sorted as all together.
    """
    recorded: Any = event.event
    sent = recorded.customer_event
    received = utc(sent.receive_time) if sent.HasField("receive_time") else event.record_time
    times = (event.occur_time, received)
    return b"".join(_us(time).to_bytes(8, "big") for time in times) + event.event_id.bytes


def _us(time: datetime) -> int:
    return max(0, (time - _EPOCH) // _MICROSECOND)
