"""What is built by rules that are not in force: profiles of one workspace, beside the live ones.

No view: it is written where the work is done, and dropped when nobody wants it. Of a workspace
there is one at a time, in a schema of its own. It belongs to a worker by lease and is fenced by
epoch, as a checkpoint is; how far it got is kept with what was built, in one transaction.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from asyncpg import UndefinedTableError

from rapport.identity.v1.rule_sets_pb2 import ProfileShiftExample, RuleSet, RuleSetProgress
from rapport.identity.v1.service_pb2 import Identifier
from services.identity.deciders.rule_set import PREVIEWED, PREVIEWING, PUBLISHING
from services.kernel.log.database import one_moment
from services.kernel.views.bulk import BULK_STATEMENT_TIMEOUT_S
from services.kernel.views.checkpoint import FencedError
from services.kernel.views.view import LIVE

if TYPE_CHECKING:
    from asyncpg import Pool

    from services.kernel.log.sql import Tx
    from services.kernel.views.view import AnyView

EXAMPLE_IDENTIFIERS_MAX = 10
LIVE_VIEW = "profiles"

TABLES = """
create schema if not exists rule_builds;
create sequence if not exists rule_builds.epochs;
create table if not exists rule_builds.builds (
    workspace text primary key,
    rule_set_id text collate "C" not null,
    beside int not null,
    positions text,
    examples bytea[] not null default '{}',
    done bigint not null default 0,
    total bigint not null default 0,
    waits_for text not null default '',
    failures int not null default 0,
    epoch bigint not null default nextval('rule_builds.epochs'),
    owner text not null,
    lease_until timestamptz not null
);
"""

_WAITING = f"""
select r.workspace, r.rule_set_id from rule_sets.rule_sets r
where r.state in ({PREVIEWING}, {PUBLISHING}) and not exists (
    select from rule_builds.builds b where b.workspace = r.workspace and b.lease_until > now()
)
order by r.update_time limit $1
"""

_UNWANTED = f"""
select b.workspace from rule_builds.builds b
left join rule_sets.rule_sets r
    on r.workspace = b.workspace and r.rule_set_id = b.rule_set_id
    and r.state in ({PREVIEWING}, {PREVIEWED}, {PUBLISHING})
where r.workspace is null and b.lease_until < now()
limit 1
"""

# What was built by another rule set is nobody's any longer, and neither is what was built beside
# another generation of the live view: a swap may have made it
# otherwise.
_CLAIM = """
insert into rule_builds.builds as b (workspace, rule_set_id, owner, lease_until, beside)
select $1, $2, $3, now() + make_interval(secs => $4), generation
from kernel.generations where view = $5 and status = $6
on conflict (workspace) do update set
    epoch = excluded.epoch, owner = excluded.owner, lease_until = excluded.lease_until,
    rule_set_id = excluded.rule_set_id, beside = excluded.beside, waits_for = '',
    positions = case
        when (b.rule_set_id, b.beside) = (excluded.rule_set_id, excluded.beside) then b.positions
    end,
    failures = case when b.rule_set_id = excluded.rule_set_id then b.failures else 0 end
where b.lease_until < now() or b.owner = excluded.owner
returning epoch, positions, failures
"""

_MINE = "where workspace = $1 and epoch = $2"

_RENEW = f"""
update rule_builds.builds
set done = $3, total = $4, lease_until = now() + make_interval(secs => $5) {_MINE}
"""

_REACH = f"update rule_builds.builds set positions = $3, failures = 0 {_MINE}"

_SHOW = f"update rule_builds.builds set examples = $3 {_MINE}"

# Whoever is at it finds another epoch.
_EMPTY = """
update rule_builds.builds
set epoch = nextval('rule_builds.epochs'), positions = null, examples = '{}', lease_until = now()
where workspace = $1
"""

_CLEAR = f"update rule_builds.builds set positions = null {_MINE}"

_FORGET = f"delete from rule_builds.builds {_MINE}"

_RELEASE = f"""
update rule_builds.builds
set lease_until = now() + make_interval(secs => $3), waits_for = $4, failures = $5 {_MINE}
"""

_BUILD = "select * from rule_builds.builds where workspace = $1 and rule_set_id = $2"

_KEYS = """
select c.relname as table, array_agg(quote_ident(a.attname) order by a.attnum) as key
from pg_index i
join pg_class c on c.oid = i.indrelid
join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey)
where i.indisprimary and c.relnamespace = $1::regnamespace
group by c.relname order by c.relname
"""

_DROP_ROWS = """
delete from "{live}"."{table}" l
where l.workspace = $1 and not exists (
    select from "{built}"."{table}" b
    where {same} and row(b.*) is not distinct from row(l.*)
)
"""

_ADD_ROWS = """
insert into "{live}"."{table}"
select b.* from "{built}"."{table}" b
where b.workspace = $1 and not exists (select from "{live}"."{table}" l where {same})
"""

_IDENTIFIERS = """
select profile, type, value from (
    select profile, type, value, row_number() over (partition by profile order by type, value)
    from "{schema}".nodes where workspace = $1 and profile = any($2::text[])
) ranked
where row_number <= $3 order by profile, type, value
"""

Positions = dict[tuple[str, int], int]


@dataclass(slots=True)
class Build:
    """What a worker builds; `positions` is how far that got, None before there is anything."""

    workspace: str
    rule_set_id: str
    epoch: int
    positions: Positions | None
    failures: int
    done: int = 0
    total: int = 0
    schema: str = field(init=False)

    def __post_init__(self) -> None:
        self.schema = schema_of(self.workspace)

    async def renew(self, pool: Pool, lease_s: float) -> None:
        """Keeps the build and tells how far it is, else raises FencedError."""
        await self._own(pool, _RENEW, self.done, self.total, lease_s)

    async def clear(self, tx: Tx) -> None:
        """Drops what was built before, else raises FencedError.

        It is gone before the tables are made anew: in one transaction with that, which takes long,
        it would be locked, and somebody may have to drop it.
        """
        await self._own(tx, _CLEAR)
        await tx.execute(f'drop schema if exists "{self.schema}" cascade')

    async def begin(self, tx: Tx, view: AnyView) -> None:
        """Makes the tables."""
        await tx.execute(f'create schema "{self.schema}"')
        await tx.execute(view.tables(self.schema))

    async def reach(self, tx: Tx, positions: Positions) -> None:
        """Says how far it got, in the transaction that got there; else raises FencedError."""
        places = [[*place, position] for place, position in sorted(positions.items())]
        await self._own(tx, _REACH, json.dumps(places))

    async def show(self, tx: Tx, examples: Iterable[ProfileShiftExample]) -> None:
        """Keeps some of the profiles that would be others, else raises FencedError."""
        await self._own(tx, _SHOW, [example.SerializeToString() for example in examples])

    async def drop(self, tx: Tx) -> None:
        """Drops all of it, else raises FencedError."""
        await self._own(tx, _FORGET)
        await tx.execute(f'drop schema if exists "{self.schema}" cascade')

    async def release(self, pool: Pool, pause_s: float, waits_for: str = "") -> None:
        """Lets others have it after a while; what it waits for is shown until then."""
        await self._own(pool, _RELEASE, pause_s, waits_for, self.failures)

    async def _own(self, connection: Tx | Pool, statement: str, *values: object) -> None:
        status = await connection.execute(statement, self.workspace, self.epoch, *values)
        if not status.endswith(" 1"):
            raise FencedError(f"the build of {self.workspace} was taken over")


def schema_of(workspace: str) -> str:
    """Returns the schema of what is built for a workspace."""
    digest = hashlib.blake2b(workspace.encode(), digest_size=12).hexdigest()
    return f"profiles_by_rules_{digest}"


async def waiting(pool: Pool, limit: int) -> list[tuple[str, str]]:
    """Returns rule sets that something is to be built by, by workspace and id."""
    return [(row[0], row[1]) for row in await pool.fetch(_WAITING, limit)]


async def unwanted(pool: Pool) -> str | None:
    """Returns a workspace for which something is built that nobody wants any longer."""
    workspace: str | None = await pool.fetchval(_UNWANTED)
    return workspace


async def claim(
    pool: Pool, workspace: str, rule_set_id: str, owner: str, lease_s: float
) -> Build | None:
    """Takes the build of a workspace over; None while somebody else has it."""
    row = await pool.fetchrow(_CLAIM, workspace, rule_set_id, owner, lease_s, LIVE_VIEW, LIVE)
    if row is None:
        return None
    positions = None
    if row["positions"] is not None:
        positions = {(place[0], place[1]): place[2] for place in json.loads(row["positions"])}
    return Build(workspace, rule_set_id, row["epoch"], positions, row["failures"])


async def forget_build(tx: Tx, workspace: str) -> None:
    """Drops whatever is built for a workspace, with what it tells of people; others wait for it.

    Who is at it learns that it is not his any longer; what is still wanted is built anew.
    """
    await tx.execute(_EMPTY, workspace)
    await tx.execute(f'drop schema if exists "{schema_of(workspace)}" cascade')


async def switch_rows(tx: Tx, workspace: str, built: str, live: str = LIVE_VIEW) -> None:
    """Puts the rows of a workspace that were built in the place of the live ones.

    Only those that differ are touched.
    """
    for row in await tx.fetch(_KEYS, built):
        same = " and ".join(f"b.{name} = l.{name}" for name in row["key"])
        for statement in (_DROP_ROWS, _ADD_ROWS):
            await tx.execute(
                statement.format(live=live, built=built, table=row["table"], same=same),
                workspace,
                timeout=BULK_STATEMENT_TIMEOUT_S,
            )


async def with_build(pool: Pool, workspace: str, rule_set_id: str, rule_set: RuleSet) -> RuleSet:
    """Returns a rule set with how far it is built, and some of what would be other by it."""
    row = await pool.fetchrow(_BUILD, workspace, rule_set_id)
    if row is None:
        return rule_set
    if rule_set.state in (PREVIEWING, PUBLISHING):
        rule_set.progress.CopyFrom(
            RuleSetProgress(
                done_count=row["done"], total_count=row["total"], waits_for=row["waits_for"]
            )
        )
    if rule_set.state == PREVIEWED and row["positions"] is not None:
        found = [ProfileShiftExample.FromString(each) for each in row["examples"]]
        # What was built may be dropped at any time.
        with suppress(UndefinedTableError):
            async with one_moment(pool) as tx:
                rule_set.examples.extend(await _known(tx, workspace, found))
    return rule_set


async def _known(
    tx: Tx, workspace: str, examples: Sequence[ProfileShiftExample]
) -> Sequence[ProfileShiftExample]:
    """Returns examples with what their profiles are known by, and would be."""
    before = await _identifiers(tx, LIVE_VIEW, workspace, [each.profile for each in examples])
    schema, others = schema_of(workspace), [each.other for each in examples if each.other]
    after = await _identifiers(tx, schema, workspace, others)
    for each in examples:
        each.identifiers.extend(before.get(each.profile, ()))
        each.other_identifiers.extend(after.get(each.other, ()))
    return examples


async def _identifiers(
    tx: Tx, schema: str, workspace: str, names: Sequence[str]
) -> dict[str, list[Identifier]]:
    ids = [name.removeprefix("profiles/") for name in names]
    statement = _IDENTIFIERS.format(schema=schema)
    rows: Sequence[Any] = await tx.fetch(statement, workspace, ids, EXAMPLE_IDENTIFIERS_MAX)
    found: dict[str, list[Identifier]] = {}
    for row in rows:
        known = Identifier(type=row["type"], value=row["value"])
        found.setdefault(f"profiles/{row['profile']}", []).append(known)
    return found
