"""The register: which erasures were begun here, how far each has got, and whom they are about.

It holds hashes and no value, and it is kept for ever: what comes from an old backup, a replay or an
old file is held against it.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rapport.common.v1.subjects_pb2 import (
    ERASURE_STAGE_BYTES,
    ERASURE_STAGE_FEED,
    ERASURE_STAGE_FINISHED,
    ERASURE_STAGE_LOG,
    ERASURE_STAGE_REST,
    ErasureStage,
)
from services.kernel.erasing.subjects import FactKey
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from asyncpg import Pool, Record

    from services.kernel.erasing.holdings import Gone, Identifier
    from services.kernel.erasing.subjects import Erasure
    from services.kernel.log.sql import Tx

LISTED_MAX = 100

STAGES = (
    ERASURE_STAGE_LOG,
    ERASURE_STAGE_REST,
    ERASURE_STAGE_FEED,
    ERASURE_STAGE_BYTES,
    ERASURE_STAGE_FINISHED,
)

_BEGIN = """
insert into kernel.erasures as known (workspace, erasure, key_time, key_event_id, hashes, nodes,
                                      stage, counts, also, feed_partition, feed_position)
values ($1, $2, $3, $4, $5, $6, $7, '{}', '[]', 0, 0)
on conflict (workspace, erasure) do update
set hashes = array(select distinct unnest(known.hashes || excluded.hashes) order by 1),
    nodes = array(select distinct unnest(known.nodes || excluded.nodes) order by 1),
    stage = case when known.hashes @> excluded.hashes then known.stage else excluded.stage end,
    feed_partition = 0, feed_position = 0
where not (known.hashes @> excluded.hashes and known.nodes @> excluded.nodes)
"""

_NAME_SUBJECTS = """
insert into kernel.erased_subjects as known (workspace, hash, key_time, key_event_id, erasure)
select $1, hash, $3, $4, $5 from unnest($2::text[]) hash
on conflict (workspace, hash) do update
set key_time = excluded.key_time, key_event_id = excluded.key_event_id, erasure = excluded.erasure
where (known.key_time, known.key_event_id) < (excluded.key_time, excluded.key_event_id)
"""

_COLUMNS = """workspace, erasure, key_time, key_event_id, hashes, nodes, stage, counts, also,
    feed_partition, feed_position, problem, notes"""

_READ = f"select {_COLUMNS} from kernel.erasures where workspace = $1 and erasure = $2"

_LOCK = f"{_READ} for update"

_LIST = f"""
select {_COLUMNS} from kernel.erasures where workspace = $1 and erasure > $2
    and hashes <> '{{}}'
order by erasure limit $3
"""

_LIST_ALL = f"select {_COLUMNS} from kernel.erasures order by workspace, erasure limit $1"

_UNFINISHED = f"""
select {_COLUMNS} from kernel.erasures
where workspace = $1 and starts_with(erasure, $2) and stage <> {ERASURE_STAGE_FINISHED}
order by erasure
"""

_SAVE = """
update kernel.erasures
set stage = $3, counts = $4, also = $5, feed_partition = $6, feed_position = $7,
    problem = $8, notes = $9
where workspace = $1 and erasure = $2
"""

_WAITING_FOR_BYTES = """
select workspace, erasure, cardinality(hashes) as size from kernel.erasures where stage = $1
"""

# One that was begun again meanwhile, about more, may have left bytes behind since.
_FINISH = """
update kernel.erasures e set stage = $5, problem = '',
    notes = array(select distinct unnest(e.notes || $6::text[]) order by 1)
from unnest($1::text[], $2::text[], $3::int[]) waited (workspace, erasure, size)
where (e.workspace, e.erasure, cardinality(e.hashes), e.stage)
    = (waited.workspace, waited.erasure, waited.size, $4)
"""

_SAY_PROBLEM = "update kernel.erasures set problem = $2 where stage = $1"

_KEYS = """
select hash, key_time, key_event_id from kernel.erased_subjects
where workspace = $1 and hash = any($2::text[])
"""


class Waiting(NamedTuple):
    """An erasure of which only bytes are left, and about how many hashes it was then."""

    workspace: str
    name: str
    size: int


@dataclass(slots=True)
class Progress:
    """An erasure as the register has it."""

    workspace: str
    name: str
    key: FactKey
    hashes: Sequence[str]
    nodes: Sequence[str]
    stage: ErasureStage.ValueType
    counts: Counter[str]
    also: set[Identifier]
    feed_partition: int = 0
    feed_position: int = 0
    problem: str = ""
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.stage == ERASURE_STAGE_FINISHED

    def add(self, gone: Gone) -> None:
        """Count what a step took."""
        self.counts += gone.counts
        self.also |= gone.also

    def enter_next(self) -> None:
        """Go on to the next stage."""
        self.stage = STAGES[STAGES.index(self.stage) + 1]


async def begin(tx: Tx, erasure: Erasure) -> None:
    """Register an erasure, before anything is erased; who is named once more begins it again."""
    key = erasure.key
    hashes = sorted(erasure.subject.hashes)
    await tx.execute(
        _BEGIN,
        erasure.workspace,
        erasure.name,
        *key,
        hashes,
        sorted(erasure.nodes),
        ERASURE_STAGE_LOG,
    )
    await tx.execute(_NAME_SUBJECTS, erasure.workspace, hashes, *key, erasure.name)


async def read(connection: Tx | Pool, workspace: str, name: str) -> Progress | None:
    """How far an erasure has got; None for one that was not begun."""
    row = await connection.fetchrow(_READ, workspace, name)
    return None if row is None else _progress(row)


async def lock(tx: Tx, workspace: str, name: str) -> Progress:
    """The same, and nobody else takes a step until the transaction ends."""
    row = await tx.fetchrow(_LOCK, workspace, name)
    assert row is not None, "an erasure is begun before its first step"
    return _progress(row)


async def save(tx: Tx, progress: Progress) -> None:
    """Keep how far an erasure has got."""
    await tx.execute(
        _SAVE,
        progress.workspace,
        progress.name,
        progress.stage,
        json.dumps(progress.counts, sort_keys=True),
        json.dumps(sorted(progress.also)),
        progress.feed_partition,
        progress.feed_position,
        progress.problem,
        list(progress.notes),
    )


async def list_erasures(pool: Pool, workspace: str, after: str) -> list[Progress]:
    """Erasures of people of a workspace in the order of their names; by age nobody is known."""
    return [_progress(row) for row in await pool.fetch(_LIST, workspace, after, LISTED_MAX)]


async def unfinished(pool: Pool, workspace: str, prefix: str) -> list[Progress]:
    """Erasures of a workspace whose names begin so, and of which something is left to do."""
    return [_progress(row) for row in await pool.fetch(_UNFINISHED, workspace, prefix)]


async def all_erasures(pool: Pool, limit: int = 1_000) -> list[Progress]:
    """Erasures of all workspaces, for an operator."""
    return [_progress(row) for row in await pool.fetch(_LIST_ALL, limit)]


async def waiting_for_bytes(connection: Tx | Pool) -> list[Waiting]:
    """The erasures of which only bytes are left."""
    rows = await connection.fetch(_WAITING_FOR_BYTES, ERASURE_STAGE_BYTES)
    return [Waiting(row["workspace"], row["erasure"], row["size"]) for row in rows]


async def finish(tx: Tx | Pool, waited: Sequence[Waiting], notes: Sequence[str] = ()) -> None:
    """Say of erasures that the bytes they left behind are gone, unless they were begun again."""
    stages = ERASURE_STAGE_BYTES, ERASURE_STAGE_FINISHED
    await tx.execute(_FINISH, *columns(waited), *stages, list(notes))


async def say_problem(pool: Pool, problem: str) -> None:
    """Say what stands in the way of all erasures of which only bytes are left."""
    await pool.execute(_SAY_PROBLEM, ERASURE_STAGE_BYTES, problem)


async def erased_keys(
    connection: Tx | Pool, workspace: str, hashes: Collection[str]
) -> Mapping[str, FactKey]:
    """Up to which fact whoever has one of these hashes was erased, by hash."""
    rows = await connection.fetch(_KEYS, workspace, sorted(hashes))
    return {row["hash"]: FactKey(row["key_time"], row["key_event_id"]) for row in rows}


def _progress(row: Record) -> Progress:
    return Progress(
        workspace=row["workspace"],
        name=row["erasure"],
        key=FactKey(row["key_time"], row["key_event_id"]),
        hashes=row["hashes"],
        nodes=row["nodes"],
        stage=row["stage"],
        counts=Counter(json.loads(row["counts"])),
        also={(name, value) for name, value in json.loads(row["also"])},
        feed_partition=row["feed_partition"],
        feed_position=row["feed_position"],
        problem=row["problem"],
        notes=row["notes"],
    )
