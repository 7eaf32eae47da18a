"""What reports are made of: what deals were, by one of their two times, as known at a moment.

By the time of recording that is the table of versions. By the time of occurrence it is the table of
periods, which shows what is known now. A moment knew less: what was told after it about the time
before it is taken out again. Few deals have such facts, so only theirs are mended.

A report looks at rows that begin before its horizon, and takes what ends later for lasting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.service_pb2 import DEAL_STATE_OPEN
from services.deals.projections.deal_periods import IS_LATE, LATE
from services.deals.projections.deal_rows import STATE_TYPES
from services.kernel.lists.filter_conditions import Arguments

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from services.deals.pipeline import Pipeline
    from services.kernel.lists.filter import Filter
    from services.kernel.log.sql import Tx

_ENDED: Final = ("close_time", "closed_from", "lost_reason", "lost_note")
_TOLD: Final = {
    "moves": ("state", "pipeline", "stage", "stage_time", *_ENDED),
    "deletions": ("is_deleted", "delete_time"),
}
"""The columns that facts of a kind touch; those of all others are told by changes."""

_COLUMNS: Final = (
    *("workspace", "deal_id", *STATE_TYPES, "version", "create_time", "update_time"),
    *("place", "from_time", "to_time"),
)

# What was told after the moment of the time before: late, or about to be told at that moment.
_LATE: Final = f"""
    select deal_id from deals.deal_periods
    where workspace = {{workspace}} and update_time > {{moment}} and from_time < {{horizon}}
        and {IS_LATE}
    union all
    select deal_id from deals.deal_periods
    where workspace = {{workspace}} and update_time > {{moment}} and from_time < {{horizon}}
        and update_time <= {{moment}} + {LATE}
"""
_IS_LATE: Final = f"select exists ({_LATE.format(workspace='$1', moment='$2', horizon='$3')})"

# A fact that was told after the moment is in all that came after it by occurrence. Facts of a kind
# are told in the order in which they occurred, so those of its kind that were known had come before
# it: after it, what the moment's version of the deal says of the columns they touch was known.
_MENDED: Final = f"""
late as materialized (
    select distinct deal_id from ({_LATE}) as late
),
kinds as (
    select deal_id, version,
        ({{moves}}) is distinct from lag(({{moves}})) over told_of_deal as is_move,
        ({{deletions}}) is distinct from lag(({{deletions}})) over told_of_deal as is_deletion
    from deals.deals_versions
    join late using (deal_id)
    where workspace = {{workspace}}
    window told_of_deal as (partition by deal_id order by version)
),
told as (
    select p.*, p.update_time > {{moment}} as is_unknown,
        bool_or(p.update_time > {{moment}} and is_move) over so_far as no_moves,
        bool_or(p.update_time > {{moment}} and is_deletion) over so_far as no_deletions,
        bool_or(p.update_time > {{moment}} and not is_move and not is_deletion) over so_far
            as no_changes
    from deals.deal_periods p
    join kinds using (deal_id, version)
    where workspace = {{workspace}}
    window so_far as (partition by deal_id order by place)
),
mended as materialized (
    select {{mended}}
    from told
    join deals.deals_versions then_ on then_.workspace = {{workspace}}
        and then_.deal_id = told.deal_id
        and then_.from_time <= {{moment}} and then_.to_time > {{moment}}
    where not told.is_unknown
    window known_of_deal as (partition by told.deal_id order by told.place)
),
known as not materialized (
    select {{columns}}
    from deals.deal_periods p
    where workspace = {{workspace}}
        and not exists (select from late where late.deal_id = p.deal_id)
    union all
    select {{columns}} from mended
),
"""


@dataclass(frozen=True, slots=True)
class Question:
    """What a report is asked: about which deals and which window, and as known when.

    `moment` is None when it is what is known now, and `latest` is the last moment there is to ask
    about. `pipelines` are those there were then, by id; it is about all of them without a name.
    """

    workspace: str
    start: datetime
    end: datetime
    latest: datetime
    moment: datetime | None
    is_recorded: bool
    pipeline: str
    pipelines: Mapping[str, Pipeline]
    wanted: Filter
    currency: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows of a question are.

    `prefix` are the common table expressions it needs, `place` numbers the rows of a deal, and a
    deal was `opened`, `closed` and `entered` its stage at these moments, told of a row `r`.
    """

    rows: str
    place: str
    opened: str
    closed: str
    entered: str
    prefix: str = ""


RECORDED: Final = Source(
    rows="deals.deals_versions",
    place="version",
    opened="r.create_time",
    # A row that began before the window was closed before it, which is as good as never.
    closed=f"""case when r.from_time >= $2 then (
        select max(open.to_time) from deals.deals_versions open
        where open.workspace = r.workspace and open.deal_id = r.deal_id
            and open.version < r.version and open.state = {DEAL_STATE_OPEN}
    ) end""",
    entered="""coalesce((
        select max(other.to_time) from deals.deals_versions other
        where other.workspace = r.workspace and other.deal_id = r.deal_id
            and other.version < r.version
            and (other.state, other.stage, other.stage_time)
                is distinct from (r.state, r.stage, r.stage_time)
    ), r.create_time)""",
)
OCCURRED: Final = Source(
    rows="deals.deal_periods",
    place="place",
    opened="coalesce(r.open_time, r.create_time)",
    closed="r.close_time",
    entered="coalesce(r.stage_time, r.open_time, r.create_time)",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A question on its way to SQL: $1 is the workspace, the window is [$2, $3).

    The conditions are on a row of a deal: `is_wanted` is what the filter says, `is_about` asks for
    the pipeline, too, and `is_open` is what is true of the open pipeline of the question.
    """

    question: Question
    source: Source
    arguments: Arguments
    is_wanted: str
    is_about: str
    is_open: str

    def sql(self, template: str, **parts: str) -> str:
        """A statement on the rows of the question, of which `r` is one."""
        return template.format(
            prefix=self.source.prefix,
            rows=self.source.rows,
            place=self.source.place,
            opened=self.source.opened,
            closed=self.source.closed,
            entered=self.source.entered,
            is_wanted=self.is_wanted,
            is_about=self.is_about,
            is_open=self.is_open,
            **parts,
        )


async def asked(connection: Tx, question: Question, horizon: datetime | None = None) -> Asked:
    """Finds where the rows are that begin before a horizon, the window's end if not said.

    It is not later than the moment after the question's.
    """
    arguments = Arguments((question.workspace, question.start, question.end))
    is_wanted = is_about = f"({question.wanted.sql(arguments)}) is true"
    if question.pipeline:
        is_about = f"{is_wanted} and pipeline = {arguments.add(question.pipeline, 'text')}"
    source = RECORDED if question.is_recorded else OCCURRED
    if source is OCCURRED and question.moment is not None:
        latest = horizon or question.end
        if await connection.fetchval(_IS_LATE, question.workspace, question.moment, latest):
            source = _mended(arguments, question.moment, latest)
    is_open = f"(state = {DEAL_STATE_OPEN} and not is_deleted and {is_about})"
    return Asked(question, source, arguments, is_wanted, is_about, is_open)


def _mended(arguments: Arguments, moment: datetime, horizon: datetime) -> Source:
    """The periods as they were known at a moment."""
    prefix = _MENDED.format(
        workspace="$1",
        moment=arguments.add(moment, "timestamptz"),
        horizon=arguments.add(horizon, "timestamptz"),
        moves=", ".join(_TOLD["moves"]),
        deletions=", ".join(_TOLD["deletions"]),
        mended=", ".join(map(_mended_column, _COLUMNS)),
        columns=", ".join(_COLUMNS),
    )
    return replace(OCCURRED, rows="known", prefix=prefix)


def _mended_column(column: str) -> str:
    """What a column was known to be."""
    if column == "place":
        return "row_number() over known_of_deal as place"
    if column == "to_time":
        return "lead(told.from_time, 1, 'infinity') over known_of_deal as to_time"
    if column not in STATE_TYPES:
        return f"told.{column}"
    kind = next((kind for kind, touched in _TOLD.items() if column in touched), "changes")
    return f"case when told.no_{kind} then then_.{column} else told.{column} end as {column}"
