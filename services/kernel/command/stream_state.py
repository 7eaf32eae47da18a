"""States of streams: a cache of the fold, written with the events it was folded from.

A row that is missing, of another shape or behind the log is not wrong, only slow: the history is
loaded instead. So the table may be emptied at any time, and a policy may append to a stream without
knowing its state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.command.work import StreamState
from services.kernel.log.log import READ_BATCH_SIZE, read_stream
from services.kernel.log.recorded import is_erased, utc
from services.kernel.log.sql import Statement, Tx, columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rapport.common.v1.envelope_pb2 import Envelope
    from services.kernel.command.work import Change
    from services.kernel.log.recorded import Recorded

_LOAD_STATES = """
select asked.workspace, asked.stream, s.version, s.create_time, s.update_time, s.state
from unnest($1::text[], $2::text[], $3::int[]) asked(workspace, stream, shape)
left join kernel.states s
    on (s.workspace, s.stream, s.shape) = (asked.workspace, asked.stream, asked.shape)
    and not exists (
        select from kernel.events e
        where (e.workspace, e.stream, e.version) = (s.workspace, s.stream, s.version + 1)
    )
where s.version is not null or exists (
    select from kernel.events e
    where (e.workspace, e.stream, e.version) = (asked.workspace, asked.stream, 1)
)
"""

_PROBE_STREAMS = """
select asked.workspace, asked.stream, last.position, last.version, last.type
from unnest($1::text[], $2::text[]) asked(workspace, stream)
cross join lateral (
    select position, version, type from kernel.events e
    where e.workspace = asked.workspace and e.stream = asked.stream
    order by version desc limit 1
) last
"""

_SAVE_STATES = """
insert into kernel.states (workspace, stream, version, create_time, update_time, shape, state)
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[], $5::timestamptz[],
                     $6::int[], $7::bytea[])
on conflict (workspace, stream) do update
set version = excluded.version, create_time = excluded.create_time,
    update_time = excluded.update_time, shape = excluded.shape, state = excluded.state
"""


async def load_states(
    tx: Tx, shapes: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], StreamState]:
    """The states of streams, folded or to be folded from their history.

    Version 0 says that there is no such stream.
    """
    if not shapes:
        return {}
    states = dict.fromkeys(shapes, StreamState())
    asked = [(*stream, shape) for stream, shape in shapes.items()]
    for row in await tx.fetch(_LOAD_STATES, *columns(asked)):
        stream = row["workspace"], row["stream"]
        if row["state"] is None:
            states[stream] = await _history(tx, *stream)
        else:
            states[stream] = StreamState(
                row["version"], row["create_time"], row["update_time"], row["state"]
            )
    return states


async def probe_streams(
    tx: Tx, streams: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], StreamState]:
    """Where the last event of each existing stream is, and what it is."""
    if not streams:
        return {}
    return {
        (row["workspace"], row["stream"]): StreamState(
            row["version"], last_position=row["position"], last_type=row["type"]
        )
        for row in await tx.fetch(_PROBE_STREAMS, *columns(streams))
    }


def saved_states(changes: Sequence[Change], events: Sequence[Recorded]) -> list[Statement]:
    """What writes the states that changes lead to; `events` are what was appended by them."""
    changes = [change for change in changes if change.state is not None]
    if not changes:
        return []
    landed = {(event.workspace, event.stream): event for event in events}
    rows = []
    for change in changes:
        last = landed.get(change.stream)
        if last is None:
            continue
        create_time = change.create_time or last.record_time
        times = create_time, last.record_time
        rows.append((*change.stream, last.version, *times, change.shape, change.state))
    return [Statement(_SAVE_STATES, columns(rows))] if rows else []


async def _history(tx: Tx, workspace: str, stream: str) -> StreamState:
    """An existing stream's state, to be folded; of what was erased only the versions are left."""
    history: list[Envelope] = []
    version = 0
    while batch := await read_stream(tx, workspace, stream, after_version=version):
        version = batch[-1].version
        history += [envelope for envelope in batch if not is_erased(envelope)]
        if len(batch) < READ_BATCH_SIZE:
            break
    if not history:
        return StreamState(version)
    times = utc(history[0].record_time), utc(history[-1].record_time)
    return StreamState(version, *times, history=history)
