"""A view with one row per aggregate, folded by its decider.

A row and a decision cannot disagree. A service says what its table is and how a state is kept in
columns; the rest is the same for every aggregate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from services.kernel.errors import NotFound
from services.kernel.log.log import read_heads
from services.kernel.log.sql import Tx, columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from services.kernel.command.decider import Decider
    from services.kernel.lists.paging import Listing
    from services.kernel.log.recorded import Recorded

S = TypeVar("S")


class ListRequest(Protocol):
    """What every List method is asked."""

    filter: str
    order_by: str
    page_size: int
    page_token: str


@dataclass(frozen=True, slots=True)
class AggregateRow(Generic[S]):
    """An aggregate as its view holds it: its state, and where and when it got there."""

    workspace: str
    aggregate_id: str
    state: S
    version: int
    partition: int
    create_position: int
    update_position: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class AggregateRows(Generic[S]):
    """How the rows of one table are read, folded and saved.

    Its columns are `workspace`, `key`, those of the state, `version`, `partition`,
    `create_position`, `update_position`, `create_time`, `update_time`, in that order. `several`
    and `save` take arrays, of keys and of columns, and a `{schema}`; `one` reads the live schema.
    `state_of` makes a state of a record, `state_columns` turns a row's state into its columns.
    """

    decider: Decider[Any, S]
    key: str
    several: str
    save: str
    one: str
    state_of: Callable[[Any], S]
    state_columns: Callable[[AggregateRow[S]], Sequence[object]]

    def own(self, events: Sequence[Recorded]) -> list[Recorded]:
        """Those of a batch that belong to aggregates of this kind."""
        prefix = self.decider.stream("")
        return [event for event in events if event.stream.startswith(prefix)]

    async def fold(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> list[AggregateRow[S]]:
        """Folds events into their rows: one read, one write, however many they are.

        Returns the row that each of them led to.
        """
        asked = {(event.workspace, self.decider.id_of(event.stream)) for event in events}
        found = await tx.fetch(self.several.format(schema=schema), *columns(sorted(asked)))
        rows = {(row.workspace, row.aggregate_id): row for row in map(self.row, found)}
        versions = []
        for event in events:
            key = event.workspace, self.decider.id_of(event.stream)
            rows[key] = self._after(rows.get(key) or self._before(event), event)
            versions.append(rows[key])
        changed = [self.values(row) for row in rows.values()]
        await tx.execute(self.save.format(schema=schema), *columns(changed))
        return versions

    async def existing(self, pool: Pool, workspace: str, name: str) -> AggregateRow[S]:
        """The aggregate with this resource name, else NotFound."""
        record = await pool.fetchrow(self.one, workspace, self.decider.aggregate_id(name))
        if record is None:
            raise NotFound(name)
        return self.row(record)

    async def page(
        self,
        pool: Pool,
        listing: Listing,
        workspace: str,
        request: ListRequest,
        moment: datetime | None = None,
        where: Mapping[str, object] | None = None,
    ) -> tuple[list[AggregateRow[S]], str]:
        """The rows of a page that a List method asks for, and the token of the next.

        They equal `where` by column. With a moment they are what they were then, by the listing's
        table of versions.
        """
        heads = {} if moment is not None else await read_heads(pool)
        query = listing.query(
            workspace=workspace,
            positions=tuple(heads.values()),
            filter=request.filter,
            order_by=request.order_by,
            page_size=request.page_size,
            page_token=request.page_token,
            where=where,
            moment=moment,
        )
        page = query.page(await pool.fetch(query.sql, *query.args))
        return [self.row(record) for record in page.rows], page.next_page_token

    def row(self, record: Any) -> AggregateRow[S]:
        """Reads a record of the table."""
        return AggregateRow(
            workspace=record["workspace"],
            aggregate_id=record[self.key],
            state=self.state_of(record),
            version=record["version"],
            partition=record["partition"],
            create_position=record["create_position"],
            update_position=record["update_position"],
            create_time=record["create_time"],
            update_time=record["update_time"],
        )

    def _before(self, event: Recorded) -> AggregateRow[S]:
        """What there is of an aggregate just before its first event."""
        return AggregateRow(
            workspace=event.workspace,
            aggregate_id=self.decider.id_of(event.stream),
            state=self.decider.initial,
            version=0,
            partition=event.partition,
            create_position=event.position,
            update_position=event.position,
            create_time=event.record_time,
            update_time=event.record_time,
        )

    def _after(self, row: AggregateRow[S], event: Recorded) -> AggregateRow[S]:
        """What there is of an aggregate after its next event."""
        return replace(
            row,
            state=self.decider.evolve(row.state, event.event),
            version=event.version,
            update_position=event.position,
            update_time=event.record_time,
        )

    def values(self, row: AggregateRow[S]) -> tuple[object, ...]:
        """A row in the order of the table's columns."""
        return (
            row.workspace,
            row.aggregate_id,
            *self.state_columns(row),
            row.version,
            row.partition,
            row.create_position,
            row.update_position,
            row.create_time,
            row.update_time,
        )
