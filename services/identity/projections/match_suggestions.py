"""The view `match_suggestions`: who may be one person, and what was decided. It is read at once.

A suggestion is about two identifiers. Which profiles these lead to is asked of the view `profiles`
whenever it is told.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from rapport.identity.v1.events_pb2 import MatchSuggested
from rapport.identity.v1.match_pb2 import MatchClosure
from rapport.identity.v1.match_suggestions_pb2 import (
    ListMatchSuggestionsRequest,
    ListMatchSuggestionsResponse,
    MatchStrength,
    MatchSuggestion,
    MatchSuggestionState,
)
from rapport.identity.v1.service_pb2 import Identifier as Named
from services.identity.changes import name_of
from services.identity.deciders.match_suggestion import DECIDER, OPEN, State, strength_of
from services.identity.match_standing import Judged
from services.kernel.command.decider import Decided, etag_of
from services.kernel.lists.filter import Field, Fields, Kind, enum_values
from services.kernel.lists.paging import Listing, Positions, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.views.aggregate_rows import AggregateRow
from services.kernel.views.aggregate_table import AggregateTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

_TABLES = f"""
create table {{schema}}.suggestions (
    workspace text not null,
    suggestion_id text collate "C" not null,
    state int not null,
    one_type text not null,
    one_node text collate "C" not null,
    other_type text not null,
    other_node text collate "C" not null,
    run text collate "C",
    weight_hundredths int,
    strength int not null,
    evidence bytea not null,
    model_version text not null,
    closure int not null,
    version bigint not null,
    partition int not null,
    create_position bigint not null,
    update_position bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    primary key (workspace, suggestion_id)
);
create index suggestions_by_weight
    on {{schema}}.suggestions (workspace, weight_hundredths, suggestion_id);
create index suggestions_by_create_time
    on {{schema}}.suggestions (workspace, create_time, suggestion_id);
create index suggestions_open on {{schema}}.suggestions (workspace) where state = {OPEN};
create index suggestions_by_update_position on {{schema}}.suggestions (workspace, update_position);
"""

SUGGESTIONS_TABLE = AggregateTable(
    "match_suggestions",
    "suggestions",
    "suggestion_id",
    {
        "state": "int",
        "one_type": "text",
        "one_node": "text",
        "other_type": "text",
        "other_node": "text",
        "run": "text",
        "weight_hundredths": "int",
        "strength": "int",
        "evidence": "bytea",
        "model_version": "text",
        "closure": "int",
    },
)

# With the profiles that both lead to now.
_WITH_PROFILES = """(
    select s.*, array_remove(
        array['profiles/' || one.profile, 'profiles/' || other.profile], null
    ) as profiles
    from match_suggestions.suggestions s
    left join profiles.nodes one on one.workspace = s.workspace and one.node = s.one_node
    left join profiles.nodes other on other.workspace = s.workspace and other.node = s.other_node
    where s.workspace = {workspace}
) as suggestions"""

_NODES = """
select node, type, value, profile from profiles.nodes
where workspace = $1 and node = any($2::text[])
"""


_FORGET = """
delete from {schema}.suggestions where workspace = $1 and suggestion_id = any($2::text[])
"""

_COUNT_OPEN = f"""
select count(*) from match_suggestions.suggestions where workspace = $1 and state = {OPEN}
"""


_LISTING = Listing(
    method="ListMatchSuggestions",
    table=Table(_WITH_PROFILES, key="suggestion_id", positions=Positions(partition="partition")),
    columns=f"workspace, {SUGGESTIONS_TABLE.columns}",
    fields=Fields(
        {
            "state": Field(
                "state",
                Kind.ENUM,
                values=enum_values(MatchSuggestionState),
                nullable=False,
            ),
            "strength": Field(
                "strength",
                Kind.ENUM,
                values=enum_values(MatchStrength),
                nullable=False,
            ),
            "weight_hundredths": Field("weight_hundredths", Kind.INTEGER, sortable=True),
            "profiles": Field("profiles", Kind.TEXT_LIST, nullable=False),
            "run": Field("run", Kind.TEXT),
            "create_time": Field(
                "create_time", Kind.TIMESTAMP, sortable=True, immutable=True, nullable=False
            ),
            "update_time": Field("update_time", Kind.TIMESTAMP, sortable=True, nullable=False),
        }
    ),
    default_order="weight_hundredths desc",
)

Row: TypeAlias = AggregateRow[State]


def _state_in(record: Any) -> State:
    return State(
        state=record["state"],
        one=(record["one_type"], record["one_node"]),
        other=(record["other_type"], record["other_node"]),
        run=record["run"] or "",
        weight_hundredths=record["weight_hundredths"],
        evidence=record["evidence"],
        model_version=record["model_version"],
        closure=record["closure"],
    )


def _state_columns(row: Row) -> tuple[object, ...]:
    state = row.state
    return (
        state.state,
        *state.one,
        *state.other,
        state.run or None,
        state.weight_hundredths,
        strength_of(state.weight_hundredths),
        state.evidence,
        state.model_version,
        state.closure,
    )


SUGGESTION_ROWS = SUGGESTIONS_TABLE.rows(DECIDER, state_of=_state_in, state_columns=_state_columns)


class MatchSuggestionsView:
    """Keeps suggestions, those that are decided or closed too: they are what is remembered."""

    name = "match_suggestions"
    shape = 1

    def tables(self, schema: str) -> str:
        return _TABLES.format(schema=schema)

    async def apply(self, tx: Tx, schema: str, events: Sequence[Recorded]) -> None:
        """Folds the events of suggestions."""
        if own := SUGGESTION_ROWS.own(events):
            await SUGGESTION_ROWS.fold(tx, schema, own)


Known: TypeAlias = Mapping[str, tuple[Named, str]]
"""By node: the identifier, and the name of the profile it leads to; empty for none."""


async def load_known(pool: Pool, workspace: str, nodes: Iterable[str]) -> Known:
    """Returns what is known of nodes now."""
    return {
        row["node"]: (
            Named(type=row["type"], value=row["value"]),
            name_of(row["profile"]) if row["profile"] else "",
        )
        for row in await pool.fetch(_NODES, workspace, sorted(set(nodes)))
    }


async def load_rows(tx: Tx, workspace: str, suggestion_ids: Sequence[str]) -> dict[str, Row]:
    """Returns the suggestions that there are, by id."""
    statement = SUGGESTIONS_TABLE.several.format(schema=MatchSuggestionsView.name)
    found = await tx.fetch(statement, [workspace] * len(suggestion_ids), suggestion_ids)
    rows = map(SUGGESTION_ROWS.row, found)
    return {row.aggregate_id: row for row in rows}


async def count_open(connection: Tx | Pool, workspace: str) -> int:
    """How many suggestions of a workspace wait for somebody to decide."""
    count: int = await connection.fetchval(_COUNT_OPEN, workspace)
    return count


async def get_suggestion(pool: Pool, workspace: str, name: str) -> MatchSuggestion:
    """Returns a suggestion; raises NotFound."""
    row = await SUGGESTION_ROWS.existing(pool, workspace, name)
    known = await load_known(pool, workspace, _nodes(row.state))
    return suggestion_of(row.aggregate_id, row, known)


async def list_suggestions(
    pool: Pool, workspace: str, request: ListMatchSuggestionsRequest
) -> ListMatchSuggestionsResponse:
    """Returns a page of suggestions."""
    rows, next_page_token = await SUGGESTION_ROWS.page(pool, _LISTING, workspace, request)
    nodes = [node for row in rows for node in _nodes(row.state)]
    known = await load_known(pool, workspace, nodes)
    return ListMatchSuggestionsResponse(
        match_suggestions=[suggestion_of(row.aggregate_id, row, known) for row in rows],
        next_page_token=next_page_token,
    )


def suggestion_of(suggestion_id: str, row: Row | Decided[State], known: Known) -> MatchSuggestion:
    """Returns a suggestion as the API shows it."""
    state = row.state
    one, one_profile = _known_of(state.one, known)
    other, other_profile = _known_of(state.other, known)
    return MatchSuggestion(
        name=DECIDER.name(suggestion_id),
        one_profile=one_profile,
        other_profile=other_profile,
        one=one,
        other=other,
        state=MatchSuggestionState.ValueType(state.state),
        strength=strength_of(state.weight_hundredths),
        weight_hundredths=state.weight_hundredths,
        evidence=MatchSuggested.FromString(state.evidence).evidence,
        model_version=state.model_version,
        run=state.run,
        closure=MatchClosure.ValueType(state.closure),
        etag=etag_of(row.version),
        create_time=timestamp_of(row.create_time),
        update_time=timestamp_of(row.update_time),
    )


def _nodes(state: State) -> tuple[str, str]:
    return state.one[1], state.other[1]


def _known_of(judged: Judged, known: Known) -> tuple[Named, str]:
    type_name, node = judged
    return known.get(node, (Named(type=type_name), ""))


async def forget_suggestions(tx: Tx, schema: str, workspace: str, ids: Sequence[str]) -> None:
    """Removes suggestions whose facts are erased."""
    await tx.execute(_FORGET.format(schema=schema), workspace, list(ids))
