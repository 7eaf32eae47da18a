"""A table with a row per aggregate, described once: its columns, what reads and saves its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from services.kernel.views.aggregate_rows import AggregateRow, AggregateRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from services.kernel.command.decider import Decider

S = TypeVar("S")

_PLACES = {
    "version": "bigint",
    "partition": "int",
    "create_position": "bigint",
    "update_position": "bigint",
    "create_time": "timestamptz",
    "update_time": "timestamptz",
}
_MOVING = ("version", "update_position", "update_time")


@dataclass(frozen=True, slots=True)
class AggregateTable:
    """The table `name` in the live schema `view`, with the aggregates' ids in the column `key`.

    `state_types` are the columns of the state with their types in SQL.
    """

    view: str
    name: str
    key: str
    state_types: Mapping[str, str]

    @property
    def types(self) -> dict[str, str]:
        """All columns in their order, with their types."""
        return {"workspace": "text", self.key: "text", **self.state_types, **_PLACES}

    @property
    def columns(self) -> str:
        """All columns but `workspace`, which every statement names itself."""
        return ", ".join(name for name in self.types if name != "workspace")

    @property
    def several(self) -> str:
        """What reads the rows of several aggregates, for `format(schema=…)`."""
        return f"""
            select workspace, {self.columns} from {{schema}}.{self.name}
            join unnest($1::text[], $2::text[]) as asked (workspace, {self.key})
                using (workspace, {self.key})
        """

    @property
    def save(self) -> str:
        """What inserts rows, or puts them in place of earlier ones; for `format(schema=…)`."""
        changed = ", ".join(f"{name} = excluded.{name}" for name in (*self.state_types, *_MOVING))
        return f"""
            insert into {{schema}}.{self.name} (workspace, {self.columns})
            select * from unnest({arrays_of(self.types.values())})
            on conflict (workspace, {self.key}) do update set {changed}
        """

    @property
    def one(self) -> str:
        """What reads one live row."""
        return f"""
            select workspace, {self.columns} from {self.view}.{self.name}
            where workspace = $1 and {self.key} = $2
        """

    def rows(
        self,
        decider: Decider[Any, S],
        *,
        state_of: Callable[[Any], S],
        state_columns: Callable[[AggregateRow[S]], Sequence[object]],
    ) -> AggregateRows[S]:
        """How its rows are read, folded and saved."""
        return AggregateRows(
            decider,
            key=self.key,
            several=self.several,
            save=self.save,
            one=self.one,
            state_of=state_of,
            state_columns=state_columns,
        )


def arrays_of(types: Iterable[str]) -> str:
    """The parameters of an `unnest`, an array per column of these types, from `$1` on."""
    return ", ".join(f"${place}::{kind}[]" for place, kind in enumerate(types, start=1))
