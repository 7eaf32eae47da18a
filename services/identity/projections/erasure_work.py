"""What an erasure needs while it goes on: the person's identifiers, sealed, and what it is at.

Neither is a fact. The identifiers are the one place in which an erasure holds values: they are
sealed under a key of its own, and gone when it has finished.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from asyncpg import Pool
from cryptography.fernet import Fernet

from rapport.common.v1.subjects_pb2 import ERASURE_STAGE_UNSPECIFIED, ErasureStage
from services.kernel.log.sql import Tx

TABLES = """
create schema if not exists erasing;
create table if not exists erasing.sealed (
    workspace text not null,
    erasure_id text collate "C" not null,
    identifiers bytea not null,
    create_time timestamptz not null,
    primary key (workspace, erasure_id)
);
create table if not exists erasing.at_work (
    workspace text not null,
    erasure_id text collate "C" not null,
    system text collate "C" not null,
    stage int not null,
    counts jsonb not null,
    problem text not null,
    attempts int not null,
    next_time timestamptz not null,
    primary key (workspace, erasure_id, system)
);
"""

_SEAL = """
insert into erasing.sealed (workspace, erasure_id, identifiers, create_time)
values ($1, $2, $3, $4)
on conflict do nothing
"""

_SEAL_ANEW = """
update erasing.sealed set identifiers = $3 where workspace = $1 and erasure_id = $2
"""

_SEALED = "select identifiers from erasing.sealed where workspace = $1 and erasure_id = $2"

_FORGET_SEALED = "delete from erasing.sealed where workspace = $1 and erasure_id = $2"

# Of commands that were refused, or retried under another id.
_FORGET_STRAYS = """
delete from erasing.sealed s
where create_time < $1 and not exists (
    select from kernel.events e
    where (e.workspace, e.stream, e.version) = (s.workspace, 'erasure-' || s.erasure_id, 1)
)
"""

_SAVE_WORK = """
insert into erasing.at_work
    (workspace, erasure_id, system, stage, counts, problem, attempts, next_time)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (workspace, erasure_id, system) do update
set stage = excluded.stage, counts = excluded.counts, problem = excluded.problem,
    attempts = excluded.attempts, next_time = excluded.next_time
"""

_WORK = """
select erasure_id, system, stage, counts, problem, attempts, next_time from erasing.at_work
where workspace = $1 and erasure_id = any($2::text[])
"""

_TRY_AT_ONCE = """
update erasing.at_work set next_time = 'epoch', attempts = 0
where workspace = $1 and erasure_id = $2
"""

_FORGET_WORK = """
delete from erasing.at_work where workspace = $1 and erasure_id = $2 and system = any($3::text[])
"""


@dataclass(frozen=True, slots=True)
class AtWork:
    """What an erasure is at in one system: how often in a row it failed, and when it goes on."""

    next_time: datetime
    stage: ErasureStage.ValueType = ERASURE_STAGE_UNSPECIFIED
    counts: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Sealed:
    """The identifiers of the person of one erasure, by type and value.

    They are kept before the fact that names them, so whoever opens them takes those it does name.
    """

    derive_key: Callable[[str], bytes]
    workspace: str
    erasure_id: str

    async def keep(self, pool: Pool, identifiers: Iterable[tuple[str, str]], now: datetime) -> None:
        """Keeps them until the erasure has finished; what is kept already stays."""
        sealed = self._sealed(identifiers)
        await pool.execute(_SEAL, self.workspace, self.erasure_id, sealed, now)

    async def add(self, pool: Pool, identifiers: Iterable[tuple[str, str]]) -> None:
        """Keeps more of them."""
        sealed = self._sealed([*await self.opened(pool), *identifiers])
        await pool.execute(_SEAL_ANEW, self.workspace, self.erasure_id, sealed)

    async def opened(self, pool: Pool) -> list[tuple[str, str]]:
        """Returns them; none when they are not kept, or not any more."""
        sealed = await pool.fetchval(_SEALED, self.workspace, self.erasure_id)
        if sealed is None:
            return []
        return [(name, value) for name, value in json.loads(self._seal().decrypt(sealed))]

    async def forget(self, tx: Tx | Pool) -> None:
        """Forgets them."""
        await tx.execute(_FORGET_SEALED, self.workspace, self.erasure_id)

    def _sealed(self, identifiers: Iterable[tuple[str, str]]) -> bytes:
        return self._seal().encrypt(json.dumps(sorted(set(identifiers))).encode())

    def _seal(self) -> Fernet:
        key = self.derive_key(f"erasure-seal/{self.workspace}/{self.erasure_id}")
        return Fernet(base64.urlsafe_b64encode(key))


async def forget_strays(pool: Pool, before: datetime) -> None:
    """Forgets identifiers that were kept before, of erasures that never came to be."""
    await pool.execute(_FORGET_STRAYS, before)


async def save_work(pool: Pool, workspace: str, erasure_id: str, system: str, work: AtWork) -> None:
    """Keeps what an erasure is at in a system."""
    await pool.execute(
        _SAVE_WORK,
        workspace,
        erasure_id,
        system,
        work.stage,
        json.dumps(work.counts, sort_keys=True),
        work.problem,
        work.attempts,
        work.next_time,
    )


async def read_work(
    pool: Pool, workspace: str, erasure_ids: Sequence[str]
) -> dict[str, dict[str, AtWork]]:
    """What erasures are at, by system."""
    found: dict[str, dict[str, AtWork]] = {}
    for row in await pool.fetch(_WORK, workspace, list(erasure_ids)):
        found.setdefault(row["erasure_id"], {})[row["system"]] = AtWork(
            next_time=row["next_time"],
            stage=row["stage"],
            counts=json.loads(row["counts"]),
            problem=row["problem"],
            attempts=row["attempts"],
        )
    return found


async def try_at_once(pool: Pool, workspace: str, erasure_id: str) -> None:
    """Lets no system wait for its next attempt."""
    await pool.execute(_TRY_AT_ONCE, workspace, erasure_id)


async def forget_work(tx: Tx, workspace: str, erasure_id: str, systems: Sequence[str]) -> None:
    """Forgets what an erasure was at in systems where it has ended, or begins anew."""
    await tx.execute(_FORGET_WORK, workspace, erasure_id, list(systems))
