"""Views: folds of events into the tables of one schema, and the generations of such a schema.

The live generation of a view is the schema that carries the view's name, so the SQL of its
readers never changes. A generation that is being built is `<view>_g<N>` until it is swapped in.
Every column is a pure function of events, so two generations at the same positions are equal row
by row; `digest` says whether they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from services.kernel.log.tables import SCHEMA_LOCK_KEY

if TYPE_CHECKING:
    from asyncpg import Pool

    from services.kernel.clock import Clock
    from services.kernel.log.log import Append, Landed, Log
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

T_co = TypeVar("T_co", covariant=True)

DIGEST_TIMEOUT_S = 3_600.0
LIVE = "LIVE"
BUILDING = "BUILDING"
RETIRED = "RETIRED"

_LIVE_SHAPE = "select shape from kernel.generations where view = $1 and status = 'LIVE'"

_GENERATIONS = """
select view, generation, shape, status, create_time, swap_time
from kernel.generations order by view, generation
"""

_ADD_GENERATION = """
insert into kernel.generations (view, generation, shape, status, create_time)
select $1, coalesce(max(generation), 0) + 1, $2, $3, $4 from kernel.generations where view = $1
returning generation
"""

_DIGEST = """
select count(*) as rows,
       concat(sum(hashtextextended(r::text, 0)::numeric), '/',
              sum(hashtextextended(r::text, 1)::numeric)) as digest
from "{}"."{}" r
"""

_TABLES = """
select c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind = 'r' order by c.relname
"""


class View(Protocol[T_co]):
    """A fold of events into the tables of one schema.

    `name` is the live schema's name, unique in the service. `shape` is raised whenever the tables
    or the fold change: the live generation must then be rebuilt. `apply` gets each event once, in
    order per partition of its log, and may answer what a policy wants to know of it.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> int: ...

    def tables(self, schema: str) -> str:
        """The statements that create the view's tables in a schema."""
        ...

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> T_co:
        """Fold events into the tables of a schema."""
        ...


AnyView = View[Any]


@runtime_checkable
class ReadsAhead(Protocol):
    """A view that does what it can of its work while the batch before is applied.

    What it is given may be applied later, by other rules, or never.
    """

    def read_ahead(self, events: Sequence[Recorded]) -> None:
        """Prepares to apply some events."""
        ...


@runtime_checkable
class TellsDifferences(Protocol[T_co]):
    """A view that can also say what lies between two of its generations.

    It answers, in parts, what `apply` would have answered had something led from one to the other.
    What a policy makes of one part must fit into one append.
    """

    def changes_between(self, tx: Tx, live: str, built: str) -> AsyncIterator[T_co]:
        """The way from the generation in the schema `live` to the one in `built`."""
        ...


class ViewShapeError(Exception):
    """When the live generation was built by code of another shape: rebuild and swap it first."""


async def append_with_views(
    tx: Tx, log: Log, views: Sequence[AnyView], appends: Sequence[Append]
) -> Landed:
    """Append in the caller's transaction and fold what landed into the views read at once.

    So they stay a function of the log, whoever appends to it.
    """
    landed = await log.append(tx, appends)
    if landed.events:
        for view in views:
            await view.apply(tx, view.name, landed.events)
    return landed


async def ensure_live(tx: Tx, view: AnyView, clock: Clock) -> bool:
    """Create the live generation if there is none; tells whether it did.

    Raises ViewShapeError when the one there is was built by other code.
    """
    await tx.execute("select pg_advisory_xact_lock($1)", SCHEMA_LOCK_KEY)
    shape = await tx.fetchval(_LIVE_SHAPE, view.name)
    if shape is None:
        await tx.execute(f'create schema "{view.name}"')
        await tx.execute(view.tables(view.name))
        await tx.fetchval(_ADD_GENERATION, view.name, view.shape, LIVE, clock.now())
        return True
    if shape != view.shape:
        raise ViewShapeError(
            f"the view {view.name} has shape {shape}, this code needs {view.shape}: "
            f"run the service with `rebuild {view.name}`, then `swap {view.name}`"
        )
    return False


async def add_generation(tx: Tx, view: AnyView, clock: Clock) -> int:
    """Create an empty generation beside the live one."""
    await tx.execute("select pg_advisory_xact_lock($1)", SCHEMA_LOCK_KEY)
    generation: int = await tx.fetchval(
        _ADD_GENERATION, view.name, view.shape, BUILDING, clock.now()
    )
    schema = schema_of(view.name, generation)
    await tx.execute(f'create schema "{schema}"')
    await tx.execute(view.tables(schema))
    return generation


async def list_generations(pool: Pool) -> list[Any]:
    """All generations of all views: view, generation, shape, status and times."""
    return list(await pool.fetch(_GENERATIONS))


def schema_of(view: str, generation: int) -> str:
    """The schema of a generation that is not live."""
    return f"{view}_g{generation}"


async def digest(connection: Tx, schema: str) -> dict[str, tuple[int, str]]:
    """Row count and digest of each table of a schema, whatever the order of its rows."""
    digests = {}
    for row in await connection.fetch(_TABLES, schema):
        table = row["relname"]
        [found] = await connection.fetch(_DIGEST.format(schema, table), timeout=DIGEST_TIMEOUT_S)
        digests[table] = (found["rows"], found["digest"])
    return digests
