"""Every version of an aggregate's row, each with the time it was the row.

A table of versions stands beside the table of rows, in the same schema, with the same columns and
two more: a version is what the row was in [from_time, to_time) of record time, and the last one's
`to_time` is infinity. So what a view said at any moment is one condition more. Events of one
transaction have one record time; what was between them was never to be seen, and its interval is
empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from services.kernel.errors import NotFound
from services.kernel.log.sql import columns
from services.kernel.views.aggregate_table import AggregateTable, arrays_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from asyncpg import Pool

    from services.kernel.log.sql import Tx
    from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

S = TypeVar("S")

CURRENT_AT = "from_time <= {moment} and to_time > {moment}"
"""What is true of the one version of each row that a moment saw."""

_TABLE = """
create table {{schema}}.{table} (
    like {{schema}}.{rows},
    from_time timestamptz not null,
    to_time timestamptz not null,
    primary key (workspace, {key}, version)
);
"""

_ADD = """
insert into {{schema}}.{table} (workspace, {columns}, from_time, to_time)
select workspace, {columns}, from_time, coalesce(to_time, 'infinity')
from unnest({arrays}) as added (workspace, {columns}, from_time, to_time)
"""

_END = """
update {{schema}}.{table} ended set to_time = given.to_time
from unnest($1::text[], $2::text[], $3::bigint[], $4::timestamptz[])
    as given (workspace, {key}, version, to_time)
where (ended.workspace, ended.{key}, ended.version)
    = (given.workspace, given.{key}, given.version)
"""

_ONE_AT = """
select workspace, {columns} from {live}.{table}
where workspace = $1 and {key} = $2 and {current}
"""


@dataclass(frozen=True, slots=True)
class AggregateVersions(Generic[S]):
    """How the versions of one table of rows are kept and read.

    They are in `{table.name}_versions`.
    """

    rows: AggregateRows[S]
    table: AggregateTable

    @property
    def name(self) -> str:
        """The table of versions."""
        return f"{self.table.name}_versions"

    def tables(self) -> str:
        """What creates the table, after that of the rows; for `format(schema=…)`."""
        return _TABLE.format(table=self.name, rows=self.table.name, key=self.table.key)

    async def add(self, tx: Tx, schema: str, versions: Sequence[AggregateRow[S]]) -> None:
        """Adds rows as consecutive events of each left them, and ends those before them."""
        if not versions:
            return
        following = {(row.workspace, row.aggregate_id, row.version - 1): row for row in versions}
        added, ended = [], []
        for row in versions:
            successor = following.get((row.workspace, row.aggregate_id, row.version))
            until = None if successor is None else successor.update_time
            added.append((*self.rows.values(row), row.update_time, until))
        known = {(row.workspace, row.aggregate_id, row.version) for row in versions}
        for key, row in following.items():
            if key not in known and row.version > 1:
                ended.append((*key, row.update_time))
        if ended:
            sql = _END.format(table=self.name, key=self.table.key)
            await tx.execute(sql.format(schema=schema), *columns(ended))
        await tx.execute(self._add(schema), *columns(added))

    async def existing_at(
        self, pool: Pool, workspace: str, name: str, moment: datetime | None
    ) -> AggregateRow[S]:
        """The aggregate as it was at a moment, as it is without one; else NotFound."""
        if moment is None:
            return await self.rows.existing(pool, workspace, name)
        sql = _ONE_AT.format(
            columns=self.table.columns,
            live=self.table.view,
            table=self.name,
            key=self.table.key,
            current=CURRENT_AT.format(moment="$3"),
        )
        aggregate_id = self.rows.decider.aggregate_id(name)
        record: Any = await pool.fetchrow(sql, workspace, aggregate_id, moment)
        if record is None:
            raise NotFound(name)
        return self.rows.row(record)

    def _add(self, schema: str) -> str:
        arrays = arrays_of([*self.table.types.values(), "timestamptz", "timestamptz"])
        sql = _ADD.format(table=self.name, columns=self.table.columns, arrays=arrays)
        return sql.format(schema=schema)
