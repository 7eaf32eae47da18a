"""What is exported and imported again is the same, whatever happened, and told however late."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.deal_files.reading import read
from deploy.deal_files.stories import Reading
from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.service_pb2 import (
    DealDetails,
    LoseDealRequest,
    MoveDealStageRequest,
    MoveDealToPipelineRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import DealContact
from services.deals.deal_cells import (
    CHANGE_COLUMNS,
    DEAL_COLUMNS,
    change_cells,
    deal_cells,
    history_of,
    meant,
    safe,
)
from services.deals.deciders.deal import DECIDER, decider_at
from services.deals.pipeline import STARTING, STARTING_ID, stage_name
from services.kernel.errors import RapportError
from services.kernel.log.recorded import timestamp_of, utc
from tests.deals_world import tell, told_stages

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(hours=2)
PIPELINES = {STARTING_ID: STARTING, "renewals": STARTING}
READING = Reading(told_stages(PIPELINES))
OPEN, WON, LOST = (
    [
        stage_name(pipeline_id, stage.stage_id)
        for pipeline_id in PIPELINES
        for stage in STARTING.stages
        if stage.kind == kind
    ]
    for kind in (1, 2, 3)
)

texts = st.text("=+-@'\"a,;\t\r\n ", min_size=1, max_size=4)
amounts = st.builds(
    Money, amount_minor=st.integers(0, 10**6), currency=st.sampled_from(["EUR", "JPY", "KWD"])
)
details = st.builds(
    DealDetails,
    display_name=texts.filter(str.strip),
    owner=st.sampled_from(["", "members/kim", "members/lee"]),
    amount=st.none() | amounts,
    expected_close_time=st.none() | st.just(timestamp_of(END)),
    next_step=texts,
    custom_fields=st.dictionaries(st.sampled_from(["size", "x_1"]), texts, max_size=2),
    contacts=st.lists(
        st.builds(DealContact, contact=st.sampled_from(["contacts/a", "contacts/b"]), role=texts),
        max_size=2,
        unique_by=lambda each: each.contact,
    ),
    forecast_category_override=st.integers(0, 5),
    probability_bp_override=st.none() | st.integers(0, 3),
)
commands = st.one_of(
    st.builds(MoveDealStageRequest, stage=st.sampled_from(OPEN)),
    st.builds(MoveDealToPipelineRequest, stage=st.sampled_from(OPEN)),
    st.builds(WinDealRequest, stage=st.sampled_from(["", *WON])),
    st.builds(LoseDealRequest, reason=texts, note=st.just("") | texts),
    st.builds(ReopenDealRequest, stage=st.sampled_from(["", *OPEN])),
    st.builds(UpdateDealRequest, deal=details),
)
# How many minutes late each is told; no two occur at once.
asked = st.lists(st.tuples(commands, st.integers(0, 40)), max_size=12)


@given(st.text("'=+-@\t\r a", max_size=4))
def test_no_cell_is_a_formula_and_none_loses_anything(text):
    cell = safe(text)

    assert not cell.startswith(tuple("=+-@\t\r"))
    assert not cell.strip().startswith(tuple("=+-@"))
    assert text == meant(cell)


@given(details, asked)
@settings(max_examples=60)
def test_a_history_that_is_exported_and_imported_has_the_same_periods(opening, asked):
    told = history(opening, asked)

    found = imported(CHANGE_COLUMNS, change_cells("looms", history_of(told)))

    assert history_of(told) == history_of([(utc(fact.occur_time), fact) for fact in found])


@given(details, asked)
@settings(max_examples=40)
def test_a_deal_that_is_exported_and_imported_is_the_same_deal(opening, asked):
    state = DECIDER.fold([fact for _, fact in history(opening, asked)])

    found = DECIDER.fold(imported(DEAL_COLUMNS, [deal_cells("looms", state, state.close_time)]))

    assert lasting(state) == lasting(found)


def lasting(state):
    """What a file of deals says of one: not since when it is in an open stage."""
    return replace(state, stage_time=None, change_time=None)


def imported(columns, rows):
    """The facts that a file with these rows leads to."""
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    found = read(io.StringIO(text.getvalue(), newline=""), READING)
    assert [] == found.bad
    told = tell(END, PIPELINES, found.deals[0])
    assert () == told.wrong
    return told.facts


def history(opening, asked):
    """The facts of a deal in the order of their recording, with when they occurred."""
    first = OpenDealRequest(
        display_name=opening.display_name,
        owner=opening.owner,
        next_step=opening.next_step,
        custom_fields=opening.custom_fields,
        contacts=opening.contacts,
        occur_time=timestamp_of(START),
    )
    if opening.HasField("amount"):
        first.amount.CopyFrom(opening.amount)
    facts = list(decider_at(END, PIPELINES).decide(first, DECIDER.initial))
    for number, (command, late) in enumerate(asked, start=1):
        minutes = max(number * 5 - late, 0)
        moment = START + timedelta(minutes=minutes, seconds=number)
        command.occur_time.CopyFrom(timestamp_of(moment))
        try:
            facts += decider_at(END, PIPELINES).decide(command, DECIDER.fold(facts))
        except RapportError:
            continue
    return [(utc(fact.occur_time), fact) for fact in facts]
