"""How far match runs got, and which worker owns each. No view: written where the work is done.

A run belongs to a worker by lease and is fenced by epoch, as a checkpoint is. Who takes a run over
begins anew; the epoch also counts how often that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from asyncpg import Pool

from rapport.identity.v1.match_pb2 import MatchRunCounts
from rapport.identity.v1.match_runs_pb2 import MatchRunStage
from services.identity.deciders.match_run import RUNNING
from services.kernel.log.sql import Tx
from services.kernel.views.checkpoint import FencedError

# Runs of one workspace wait for each other: the oldest that is not over is the one to work on.
TABLES = """
create schema if not exists matching;
create table if not exists matching.progress (
    workspace text not null,
    run_id text collate "C" not null,
    stage int not null default 0,
    counts bytea not null default '',
    epoch bigint not null default 1,
    owner text not null,
    lease_until timestamptz not null,
    primary key (workspace, run_id)
);
"""

_WAITING = f"""
select first.workspace, first.run_id
from (
    select distinct on (workspace) workspace, run_id, create_time
    from match_runs.runs where state = {RUNNING}
    order by workspace, create_time, run_id
) first
where not exists (
    select from matching.progress p
    where p.workspace = first.workspace and p.run_id = first.run_id and p.lease_until > now()
)
order by first.create_time limit 1
"""

_CLAIM = """
insert into matching.progress as p (workspace, run_id, owner, lease_until)
select $1, $2, $3, now() + make_interval(secs => $4)
on conflict (workspace, run_id) do update
set epoch = p.epoch + 1, owner = excluded.owner, lease_until = excluded.lease_until, stage = 0,
    counts = ''
where p.lease_until < now() or p.owner = excluded.owner
returning epoch
"""

_SAVE = """
update matching.progress
set stage = $4, counts = $5, lease_until = now() + make_interval(secs => $6)
where workspace = $1 and run_id = $2 and epoch = $3
"""

_RELEASE = """
update matching.progress set stage = 0, lease_until = now() + make_interval(secs => $4)
where workspace = $1 and run_id = $2 and epoch = $3
"""

_READ = """
select run_id, stage, counts from matching.progress
where workspace = $1 and run_id = any($2::text[])
"""


class Job(NamedTuple):
    """A run as a worker owns it."""

    workspace: str
    run_id: str
    epoch: int


@dataclass(slots=True)
class Progress:
    """What a run is at, and what it did so far."""

    stage: MatchRunStage.ValueType = MatchRunStage.MATCH_RUN_STAGE_UNSPECIFIED
    counts: MatchRunCounts = field(default_factory=MatchRunCounts)


NO_PROGRESS = Progress()


async def waiting(pool: Pool) -> tuple[str, str] | None:
    """The run (workspace, id) that waits longest and nobody works on, if there is one."""
    row = await pool.fetchrow(_WAITING)
    return None if row is None else (row["workspace"], row["run_id"])


async def claim(tx: Tx, workspace: str, run_id: str, owner: str, lease_s: float) -> Job | None:
    """Takes a run over; None while somebody else has it."""
    epoch = await tx.fetchval(_CLAIM, workspace, run_id, owner, lease_s)
    return None if epoch is None else Job(workspace, run_id, epoch)


async def save(connection: Tx | Pool, job: Job, progress: Progress, lease_s: float) -> None:
    """Saves how far a run got and keeps it, else raises FencedError."""
    counts = progress.counts.SerializeToString(deterministic=True)
    if await connection.execute(_SAVE, *job, progress.stage, counts, lease_s) != "UPDATE 1":
        raise FencedError(f"{job} was taken over")


async def release(pool: Pool, job: Job, pause_s: float) -> None:
    """Lets another worker take a run over after a pause."""
    await pool.execute(_RELEASE, *job, pause_s)


async def read_progress(pool: Pool, workspace: str, run_ids: Sequence[str]) -> dict[str, Progress]:
    """How far runs got, by run."""
    return {
        row["run_id"]: Progress(
            MatchRunStage.ValueType(row["stage"]), MatchRunCounts.FromString(row["counts"])
        )
        for row in await pool.fetch(_READ, workspace, list(run_ids))
    }
