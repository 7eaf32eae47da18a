"""What an import brought into the log, and meets there: asked of the log itself, and of the list.

The log is never behind; the list says which customer events are an import's at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    CustomerEventRecorded,
)
from services.events.deciders import product
from services.events.import_outcomes import ACCEPTED, QUARANTINED
from services.events.receipts import message_id_of, stream_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from asyncpg import Pool

    from services.events.import_outcomes import Outcome
    from services.kernel.log.recorded import EventTypes
    from services.kernel.log.sql import Tx

_LANDED = """
select e.type, e.data
from unnest($2::text[]) asked(stream)
join kernel.events e on e.workspace = $1 and e.stream = asked.stream
where e.position > ($3::bigint[])[e.partition + 1]
order by e.version desc
"""

_LAST = """
select asked.stream, last.version, last.type, last.data
from unnest($2::text[]) asked(stream)
cross join lateral (
    select version, type, data from kernel.events e
    where e.workspace = $1 and e.stream = asked.stream
    order by version desc limit 1
) last
"""

_QUARANTINED = """
select message_id from quarantine.quarantined_events
where workspace = $1 and import_name = $2 and message_id > $3
order by message_id limit $4
"""

_LISTED = """
select message_id from customer_events.customer_events
where workspace = $1 and import_name = $2 and message_id > $3
order by message_id limit $4
"""


class Present(NamedTuple):
    """A customer event that is there: its message id, and the version its stream is at."""

    message_id: str
    version: int


async def landed_since(
    pool: Pool,
    event_types: EventTypes,
    workspace: str,
    import_name: str,
    message_ids: Iterable[str],
    heads: Sequence[int],
) -> dict[str, Outcome]:
    """Which of the message ids an import brought into the log after its heads were these.

    Each with what it became then: one that has left quarantine meanwhile got in by quarantine.
    """
    streams = [stream_of(message_id) for message_id in dict.fromkeys(message_ids)]
    landed: dict[str, Outcome] = {}
    for row in await pool.fetch(_LANDED, workspace, streams, heads):
        fact = event_types.message(row["type"], row["data"])
        if not isinstance(fact, CustomerEventRecorded | CustomerEventQuarantined):
            continue
        if fact.customer_event.import_name == import_name:
            is_recorded = isinstance(fact, CustomerEventRecorded)
            landed[fact.customer_event.message_id] = ACCEPTED if is_recorded else QUARANTINED
    return landed


async def present_of(
    tx: Tx,
    event_types: EventTypes,
    workspace: str,
    import_name: str,
    message_ids: Sequence[str],
) -> list[Present]:
    """Which of the message ids an import brought, recorded or in quarantine until now."""
    streams = [stream_of(message_id) for message_id in message_ids]
    present = []
    for row in await tx.fetch(_LAST, workspace, streams):
        fact = event_types.message(row["type"], row["data"])
        if not isinstance(fact, CustomerEventRecorded | CustomerEventQuarantined):
            continue
        if fact.customer_event.import_name == import_name:
            present.append(Present(message_id_of(row["stream"]), row["version"]))
    return present


async def entries_in(
    connection: Tx | Pool, event_types: EventTypes, workspace: str, product_ids: Iterable[str]
) -> dict[str, tuple[int, product.State]]:
    """The entries of products that the catalogue knows, each with the version its stream is at."""
    streams = {product.DECIDER.stream(each): each for each in product_ids}
    return {
        streams[row["stream"]]: (
            row["version"],
            # The last entry counts, whole.
            product.DECIDER.fold([event_types.message(row["type"], row["data"])]),
        )
        for row in await connection.fetch(_LAST, workspace, list(streams))
    }


async def listed_after(
    pool: Pool, workspace: str, import_name: str, after_message_id: str, limit: int
) -> list[str]:
    """The next message ids of an import's recorded customer events, in order."""
    rows = await pool.fetch(_LISTED, workspace, import_name, after_message_id, limit)
    return [row["message_id"] for row in rows]


async def quarantined_after(
    pool: Pool, workspace: str, import_name: str, after_message_id: str, limit: int
) -> list[str]:
    """The next message ids of an import's customer events in quarantine, in order."""
    rows = await pool.fetch(_QUARANTINED, workspace, import_name, after_message_id, limit)
    return [row["message_id"] for row in rows]
