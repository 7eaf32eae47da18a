"""Lists a page at a time: one SELECT per page, and a token that says where the next one begins.

    CONTACTS = Listing(
        method="ListContacts",
        table=Table("contacts.contacts", key="contact_id", positions=Positions()),
        columns="contact_id, email, custom_fields",
        fields=CONTACT_FIELDS,
        default_order="create_time desc",
    )
    query = CONTACTS.query(
        workspace=caller.workspace,
        positions=(await view.position(connection),),       # read before the page, never after it
        filter=request.filter, order_by=request.order_by,
        page_size=request.page_size, page_token=request.page_token,
    )
    page = query.page(await connection.fetch(query.sql, *query.args))
    ListContactsResponse(contacts=..., next_page_token=page.next_page_token)

What a walk (all pages from the first to the empty token) promises while others write:

* A row that does not change during the walk, and was there when it began, comes exactly once.
* By immutable fields (`create_time`, the key: the default) this holds for changed rows too.
* By a field that can change, a row may move across the cursor. Rows that changed since the walk
  began are therefore left out of the ordered part, and come at the end, in the order of their key.
  So no row is ever skipped. One that was already given and then changed comes again, as it is now:
  no version of a row comes twice.
* Rows created after the walk began do not come, so a walk ends however fast others write. A row
  comes as it is when its page is read: filters ask the present row, and a deleted one is gone.

This needs to know when a row was created and last changed: as positions of the log, in columns of
the view (`Positions`). The token carries the positions at which the walk began, the view's own
checkpoint read no later than the first page. Positions are the same in a rebuilt view, so a walk
survives the swap. A table without positions cannot be sorted by fields that change.

With a `moment` the page is of the table of versions, as that moment saw them: nothing of it changes
any more, so all of this is kept in any order.

Null sorts after every value, before them when descending. A token is bound to method, workspace,
filter, order and `where`; it proves nothing about who asks. It holds sort keys: do not log it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from services.kernel.errors import InvalidArgument
from services.kernel.lists.filter import Fields, Filter
from services.kernel.lists.filter_conditions import Arguments
from services.kernel.lists.keyset import SortKey, after, order_of, read_order
from services.kernel.lists.page_token import InvalidPageToken, PageToken, fingerprint_of

PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1000

# The first parameters of every page.
_SIZE = "$1::bigint"
_WORKSPACE = "$2::text"


class Row(Protocol):
    """A row by its columns: a dict or a record of the driver."""

    def __getitem__(self, column: str, /) -> Any: ...


@dataclass(frozen=True, slots=True)
class Positions:
    """The columns that say where in the log a row was created and last changed.

    `partition` is the column of the partition those positions count in, for logs with several.
    """

    created: str = "create_position"
    changed: str = "update_position"
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A view's table: one row per resource; `key` is a text, unique and never changed.

    `versions` is the table of what its rows were, each in [from_time, to_time), if there is one.
    Either may be a subselect with an alias, in which `{workspace}` stands for the one asked about.
    """

    name: str
    key: str
    positions: Positions | None
    workspace: str = "workspace"
    versions: str = ""

    def past(self) -> Table:
        """The table of versions: what a moment saw of it stands still."""
        if not self.versions:
            raise ValueError(f"{self.name} keeps no versions")
        return replace(self, name=self.versions, positions=None, versions="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The rows of a page, and the token of the next; an empty token is the only sign of the end.

    Beside the columns asked for, a row has the walk's own, named `page_...`.
    """

    rows: Sequence[Row]
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageQuery:
    """One page as a statement: `connection.fetch(query.sql, *query.args)`, then `page(rows)`."""

    sql: str
    args: tuple[object, ...]
    page_size: int
    positions: tuple[int, ...]
    _keys: tuple[SortKey, ...]
    _fingerprint: bytes

    def page(self, rows: Sequence[Row]) -> Page:
        """Splits what the statement returned into the page and where the next begins."""
        return Page(rows=rows[: self.page_size], next_page_token=self.next_token(rows))

    def next_token(self, rows: Sequence[Row]) -> str:
        """The token of the next page, empty when these rows, one more than a page, are the last."""
        if len(rows) <= self.page_size:
            return ""
        last = rows[self.page_size - 1]
        is_moved = bool(last["page_moved"])
        keys = self._keys[-1:] if is_moved else self._keys
        values = tuple(last[name] for name in _key_names(self._keys)[-len(keys) :])
        token = PageToken(self._fingerprint, self.positions, is_moved, values)
        return token.encoded([key.field for key in keys])


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """How one List method reads its view: declared once, checked when the module is imported.

    Rows that may be large ask for a smaller `page_size_max`: a page must fit in a message.
    """

    method: str
    table: Table
    columns: str
    fields: Fields
    default_order: str = ""
    page_size_max: int = PAGE_SIZE_MAX
    moment: datetime | None = None
    _default: tuple[SortKey, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sortable = self.fields.sortable()
        mutable = [name for name, found in sortable.items() if not found.immutable]
        if mutable and self.table.positions is None and self.moment is None:
            raise ValueError(f"{self.table.name} needs positions to be sorted by {mutable[0]}")
        object.__setattr__(self, "_default", self._order(self.default_order))

    def query(
        self,
        *,
        workspace: str,
        positions: Sequence[int] = (),
        filter: str = "",  # noqa: A002 -- the name of the request's field
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
        where: Mapping[str, object] | None = None,
        moment: datetime | None = None,
    ) -> PageQuery:
        """Composes a page of the rows that equal `where` by column (None: is null) and the filter.

        `positions` is the view's checkpoint for each partition; later pages take the token's. With
        a `moment` the rows are what they were then.
        """
        if moment is not None:
            return self._past(moment).query(
                workspace=workspace,
                filter=filter,
                order_by=order_by,
                page_size=page_size,
                page_token=page_token,
                where=where,
            )
        size = _size(page_size, self.page_size_max)
        wanted = self.fields.filter(filter)
        keys = self._order(order_by) if order_by.strip() else self._default
        fixed = dict(where or {})
        order = ",".join(f"{key.field.column} {key.is_descending}" for key in keys)
        fingerprint = fingerprint_of(
            self.method, workspace, wanted.text, order, repr(sorted(fixed.items())), *self._as_of()
        )
        token = None
        if page_token:
            token = PageToken.decoded(page_token, fingerprint, [key.field for key in keys])
            self._check(token, keys, positions)
            positions = token.positions
        if self.table.positions is not None and not positions:
            raise ValueError(f"{self.method} needs the checkpoint of its view")
        select = _Select(self, keys, wanted, workspace, fixed, tuple(positions), size)
        sql, arguments = select.statement(token)
        return PageQuery(
            sql=sql,
            args=tuple(arguments.values),
            page_size=size,
            positions=tuple(positions),
            _keys=keys,
            _fingerprint=fingerprint,
        )

    def _past(self, moment: datetime) -> Listing:
        return replace(self, table=self.table.past(), moment=moment)

    def _as_of(self) -> tuple[str, ...]:
        return () if self.moment is None else (self.moment.isoformat(),)

    def _check(self, token: PageToken, keys: Sequence[SortKey], positions: Sequence[int]) -> None:
        is_counted = self.table.positions is not None
        is_same = len(token.positions) == (len(positions) or len(token.positions))
        if is_counted != bool(token.positions) or not is_same:
            raise InvalidPageToken("this walk began in another shape of the log")
        if token.is_moved and self.is_still(keys):
            raise InvalidPageToken("this is no page token of ours")

    def _order(self, order_by: str) -> tuple[SortKey, ...]:
        return read_order(order_by, self.fields, self.table.key)

    def is_still(self, keys: Sequence[SortKey]) -> bool:
        """Whether no row can move across the cursor of a walk in this order."""
        return self.moment is not None or all(key.field.immutable for key in keys)


def _size(page_size: int, maximum: int) -> int:
    if page_size < 0:
        raise InvalidArgument.of("page_size", "a page has no negative number of rows")
    return min(page_size or PAGE_SIZE_DEFAULT, maximum)


def _key_names(keys: Sequence[SortKey]) -> list[str]:
    return [f"page_key_{number}" for number in range(1, len(keys) + 1)]


@dataclass(frozen=True, slots=True)
class _Select:
    """The statement of one page: the ordered rows, then those that moved, one more than asked."""

    listing: Listing
    keys: tuple[SortKey, ...]
    wanted: Filter
    workspace: str
    fixed: Mapping[str, object]
    positions: tuple[int, ...]
    size: int

    def statement(self, token: PageToken | None) -> tuple[str, Arguments]:
        arguments = Arguments((self.size + 1, self.workspace))
        limit = f"limit {_SIZE}"
        given = self._given(arguments)
        if self.listing.is_still(self.keys):
            return f"{self._in_order(arguments, given, token)} {limit}", arguments
        moved = f"{self._moved(arguments, given, token)} {limit}"
        if token is not None and token.is_moved:
            return moved, arguments
        still = f"{self._in_order(arguments, given, token)} {limit}"
        # Each part is read along its own index; only these few rows are sorted once more.
        names = _key_names(self.keys)
        order = ", ".join(key.order(name) for key, name in zip(self.keys, names, strict=True))
        union = f"select * from (({still}) union all ({moved})) as page"
        return f"{union} order by page_moved, {order} {limit}", arguments

    def _in_order(self, arguments: Arguments, given: str, token: PageToken | None) -> str:
        names = _key_names(self.keys)
        shown = (f"{key.sql} as {name}" for key, name in zip(self.keys, names, strict=True))
        conditions = [given]
        if self.listing.table.positions is not None:
            reached = self._reached(arguments, self.listing.table.positions)
            column = self.listing.table.positions.created
            if not self.listing.is_still(self.keys):
                column = self.listing.table.positions.changed
            conditions.append(f"{column} <= {reached}")
        if token is not None and not token.is_moved:
            conditions.append(after(self.keys, token.values, arguments))
        return self._select("false", shown, conditions, order_of(self.keys))

    def _moved(self, arguments: Arguments, given: str, token: PageToken | None) -> str:
        table, key = self.listing.table, self.keys[-1]
        assert table.positions is not None
        nulls = (f"null::{other.field.sql_type}" for other in self.keys[:-1])
        names = _key_names(self.keys)
        shown = (f"{sql} as {name}" for sql, name in zip([*nulls, key.sql], names, strict=True))
        reached = self._reached(arguments, table.positions)
        conditions = [
            given,
            f"{table.positions.changed} > {reached}",
            f"{table.positions.created} <= {reached}",
        ]
        if table.positions.partition is not None:
            # Implied by the first, but said so that an index on the column can serve it.
            least = arguments.add(min(self.positions), "bigint")
            conditions.append(f"{table.positions.changed} > {least}")
        if token is not None and token.is_moved:
            conditions.append(after((key,), token.values, arguments))
        return self._select("true", shown, conditions, order_of((key,)))

    def _select(
        self, moved: str, shown: Iterable[str], conditions: Sequence[str], order: str
    ) -> str:
        listing = self.listing
        columns = ", ".join([listing.columns, f"{moved} as page_moved", *shown])
        source = listing.table.name.replace("{workspace}", _WORKSPACE)
        where = " and ".join(conditions)
        return f"select {columns} from {source} where {where} order by {order}"

    def _given(self, arguments: Arguments) -> str:
        conditions = [f"{self.listing.table.workspace} = {_WORKSPACE}"]
        if self.listing.moment is not None:
            moment = arguments.add(self.listing.moment, "timestamptz")
            # The last says nothing new, and tells where in the order of creation to begin.
            seen = "from_time <= {0} and to_time > {0} and create_time <= {0}"
            conditions.append(seen.format(moment))
        for column, value in self.fixed.items():
            if value is None:
                conditions.append(f"{column} is null")
            else:
                arguments.values.append(value)
                conditions.append(f"{column} = ${len(arguments.values)}")
        if self.wanted.condition is not None:
            conditions.append(self.wanted.sql(arguments))
        return " and ".join(conditions)

    def _reached(self, arguments: Arguments, positions: Positions) -> str:
        if positions.partition is None:
            return arguments.add(self.positions[0], "bigint")
        array = arguments.add(list(self.positions), "bigint[]")
        return f"({array})[{positions.partition} + 1]"
