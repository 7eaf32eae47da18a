"""Overwriting events of the log, and all that the kernel itself made of them.

An event keeps its place, its stream, version, type, ids and times; what it said is gone, or what of
it told who a person is. Whoever folds the log passes by what says nothing, so what is made of the
log now is what a rebuild makes of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from services.kernel.log.sql import columns
from services.kernel.views.checkpoint import HOLDING_LOCK_KEY, TAKE_HOLDING_LOCK

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.log.log import Log
    from services.kernel.log.sql import Tx
    from services.kernel.views.view import AnyView

NOTHING_LEFT: Mapping[tuple[int, int], bytes] = MappingProxyType({})

# Told to all replicas: what they keep of the log in memory may be more than the log has.
ERASED_CHANNEL = "erased"

NOTHING_RENAMED: Mapping[str, str] = MappingProxyType({})

# In one order for all, as consumers and rebuilds do: theirs come before the heads.
_HOLD_CONSUMERS = """
select from kernel.checkpoints c
where exists (
    select from kernel.checkpoints live where live.consumer = c.consumer and live.generation = 0
)
order by consumer, generation, source, partition for update of c
"""

# A view that is read at once has none of its own: of what is built of it they come after.
_HOLD_THE_OTHERS = """
select from kernel.checkpoints order by consumer, generation, source, partition for update
"""

_FENCE_CONSUMERS = "update kernel.checkpoints set epoch = epoch + 1"

# Where it is sealed already nobody waits for a writer.
_SEAL_RECEIVED = """
with open as (
    select partition from kernel.heads where sealed_time < $1 order by partition for update
)
update kernel.heads h set sealed_time = $1 from open where h.partition = open.partition
"""

_LEFT = """
select e.partition, e.position from kernel.events e
join unnest($1::int[], $2::bigint[]) asked (partition, position) using (partition, position)
where e.erasure is null or e.data <> ''
"""

_OVERWRITE = """
update kernel.events e set data = gone.data, stream = gone.stream, erasure = $5
from unnest($1::int[], $2::bigint[], $3::text[], $4::bytea[])
    gone (partition, position, stream, data)
where (e.partition, e.position) = (gone.partition, gone.position)
    and (e.erasure is null or e.data <> '')
"""

_DROP_STATES = """
delete from kernel.states s using unnest($1::text[], $2::text[]) gone (workspace, stream)
where (s.workspace, s.stream) = (gone.workspace, gone.stream)
"""

_RELEASE_CLAIMS = """
delete from kernel.claims where workspace = $1 and stream = any($2::text[])
"""

# The request stays known, so that a retry of it does not bring the person back.
_FORGET_RESPONSES = """
update kernel.requests set response = '', fingerprint = '', unchanged = null
where workspace = $1 and response <> ''
    and (request_id = any($2::text[]) or unchanged && $3::text[])
"""

_UNPARK = """
delete from kernel.parked p using unnest($2::int[], $3::bigint[]) gone (partition, position)
where p.source = $1 and (p.partition, p.position) = (gone.partition, gone.position)
"""

# Of other logs' events nobody here knows whether they are erased; a retry finds out, and says anew
# why, if it fails.
_CUT_REASONS = """
update kernel.parked set reason = split_part(reason, ':', 1)
where source <> $1 and workspace = $2 and strpos(reason, ':') > 0
"""

_NOTIFY = f"select pg_notify('{ERASED_CHANNEL}', '')"

_OLD_GENERATIONS = """
select generation, status from kernel.generations
where view = $1 and (status = 'RETIRED' or status = 'BUILDING' and shape <> $2)
"""

_SCHEMAS = """
select case status when 'LIVE' then view else view || '_g' || generation end as schema
from kernel.generations where view = $1 and status in ('LIVE', 'BUILDING') and shape = $2
order by generation
"""


async def hold_everything(tx: Tx, log: Log) -> None:
    """Let nobody append, and no consumer apply, until the transaction ends.

    What consumers have read before is worth nothing afterwards: they are fenced and read anew.
    """
    await tx.execute(TAKE_HOLDING_LOCK, HOLDING_LOCK_KEY)
    await tx.execute(_HOLD_CONSUMERS)
    await log.lock_heads(tx, set(range(log.partitions)))
    await tx.execute(_HOLD_THE_OTHERS)
    await tx.execute(_FENCE_CONSUMERS)


async def seal_received(connection: Tx | Pool, until: datetime) -> None:
    """Let nothing be recorded any more that was received until then and is still on its way.

    What came before is in the log when this has returned.
    """
    await connection.execute(_SEAL_RECEIVED, until)


async def not_yet_erased(tx: Tx, events: Sequence[Envelope]) -> list[Envelope]:
    """Those of some events that still say something."""
    places = [(event.partition, event.position) for event in events]
    left = {tuple(row) for row in await tx.fetch(_LEFT, *columns(places))}
    return [event for event in events if (event.partition, event.position) in left]


async def overwrite(
    tx: Tx,
    log: Log,
    erasure: str,
    events: Sequence[Envelope],
    *,
    left: Mapping[tuple[int, int], bytes] = NOTHING_LEFT,
    renamed: Mapping[str, str] = NOTHING_RENAMED,
) -> int:
    """Overwrite events, and drop what the kernel made of them; answers how many responses went.

    The caller holds everything. `left` is what stays of some of them, by partition and position;
    `renamed` are streams whose names go with their events.
    """
    if not events:
        return 0
    places = [(event.partition, event.position) for event in events]
    rows = [
        (*place, renamed.get(event.stream, event.stream), left.get(place, b""))
        for place, event in zip(places, events, strict=True)
    ]
    await tx.execute(_OVERWRITE, *columns(rows), erasure)
    streams = sorted({(event.workspace, event.stream) for event in events})
    await tx.execute(_DROP_STATES, *columns(streams))
    await tx.execute(_UNPARK, log.service, *columns(places))
    forgotten = 0
    for workspace in sorted({event.workspace for event in events}):
        await tx.execute(_CUT_REASONS, log.service, workspace)
        own = [event for event in events if event.workspace == workspace]
        causes = sorted({event.causation_id for event in own if event.causation_id})
        touched = sorted({event.stream for event in own})
        status = await tx.execute(_FORGET_RESPONSES, workspace, causes, touched)
        forgotten += int(status.rpartition(" ")[2])
    await tx.execute(_NOTIFY)
    return forgotten


async def release_claims(tx: Tx, workspace: str, streams: Collection[str]) -> None:
    """Let go of the unique values that streams hold of which nothing is left."""
    if streams:
        await tx.execute(_RELEASE_CLAIMS, workspace, sorted(streams))


async def schemas_of(tx: Tx, view: AnyView) -> list[str]:
    """The schemas of a view's generations: the live one, and one that is being built."""
    rows = await tx.fetch(_SCHEMAS, view.name, view.shape)
    return [row["schema"] for row in rows]


async def drop_old_generations(tx: Tx, views: Sequence[AnyView]) -> int:
    """Remove the generations that nobody folds any more: they would keep what is erased."""
    dropped = 0
    for view in views:
        for row in await tx.fetch(_OLD_GENERATIONS, view.name, view.shape):
            generation = row["generation"]
            await tx.execute(f'drop schema if exists "{view.name}_g{generation}" cascade')
            await tx.execute(
                "delete from kernel.checkpoints where consumer = $1 and generation = $2",
                view.name,
                generation,
            )
            await tx.execute(
                "delete from kernel.generations where view = $1 and generation = $2",
                view.name,
                generation,
            )
            dropped += 1
    return dropped
