"""Laws of contracts, whatever is asked of them on whatever days."""

from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1.contract_terms_pb2 import ContractTerms
from rapport.deals.v1.contracts_pb2 import (
    CONTRACT_STATE_ACTIVE,
    CONTRACT_STATE_EXPIRED,
    CONTRACT_STATE_TERMINATED,
)
from services.deals.deciders.contract import DECIDER, Asked, decider_for
from services.deals.deciders.contract_state import due_reminder, standing_of
from services.deals.terms import DAY, Course
from services.kernel.errors import RapportError
from tests.contracts_world import FIXED, NAME, ROLLING, active, state, with_terms

START = date(2026, 1, 31)

starts = st.dates(date(2019, 1, 1), date(2033, 1, 1))
courses = st.builds(
    Course,
    start=st.just(date(1900, 1, 1)),
    counted_from=starts,
    months=st.integers(0, 30),
    renewal_months=st.integers(1, 30),
)
ahead = st.integers(-40, 900).map(lambda days: START + timedelta(days=days))
spoken = st.just("") | ahead.map(date.isoformat)
parties = st.sampled_from([1, 2])
terms = st.sampled_from([FIXED, ROLLING, with_terms(term_months=0, end_date="2026-12-31")])
# A contract comes into force only by four commands in a row.
made = [
    pb.SubmitContractRequest(name=NAME),
    pb.ApproveContractRequest(name=NAME),
    pb.SignContractRequest(name=NAME, party=1, signatory="a", sign_date="2025-12-01"),
    pb.SignContractRequest(name=NAME, party=2, signatory="b", sign_date="2025-12-01"),
    pb.ActivateContractRequest(name=NAME),
]
commands = st.one_of(
    st.builds(pb.DraftContractRequest, terms=terms),
    st.sampled_from([*made, pb.RejectContractRequest(name=NAME, reason="r")]),
    st.builds(
        pb.UpdateContractRequest,
        name=st.just(NAME),
        terms=st.builds(ContractTerms, renewal_reminder_days=st.integers(0, 90)),
    ),
    st.builds(pb.GiveContractNoticeRequest, name=st.just(NAME), party=parties, notice_date=spoken),
    st.builds(
        pb.TerminateContractRequest, name=st.just(NAME), terminate_date=spoken, reason=st.just("r")
    ),
    st.builds(
        pb.RenewContractRequest, name=st.just(NAME), reference=st.just("n"), start_date=spoken
    ),
)
asked = st.lists(st.tuples(ahead, commands), max_size=6).map(
    lambda found: sorted(found, key=lambda each: each[0])
)
drafts = st.builds(pb.DraftContractRequest, terms=terms)


def walk(draft, makes, found):
    """The states that commands lead through, and all that was recorded."""
    days = [(START, draft), *((START, command) for command in made[:makes]), *found]
    states, history = [DECIDER.initial], []
    for day, command in days:
        recorded = decided(day, command, states[-1])
        states.append(DECIDER.fold(recorded, states[-1]))
        history += recorded
    return states, history


def decided(day, command, before):
    """The events of a command, none if it is refused."""
    try:
        return list(decider_for(Asked(day, "a", "looms")).decide(command, before))
    except RapportError:
        return []


histories = st.builds(walk, drafts, st.integers(0, len(made)), asked)


@given(courses, st.integers(1, 40))
def test_terms_lie_side_by_side(course, number):
    found = [course.term(n) for n in range(1, number + 1)]

    assert all(before.end + DAY == after.start for before, after in pairwise(found))
    assert all(before.end < after.end for before, after in pairwise(found))


@given(courses, st.integers(-800, 8_000))
def test_the_term_of_a_day_is_the_first_that_has_not_ended(course, days_on):
    day = course.counted_from + timedelta(days=days_on)
    number = 1
    while course.term(number).end < day:
        number += 1

    assert course.term(number) == course.term_at(day)


@given(histories)
def test_replaying_what_was_recorded_leads_to_what_was_decided_on(found):
    states, history = found

    assert states[-1] == DECIDER.fold(history)
    assert states[-1] == DECIDER.fold(history[2:], DECIDER.fold(history[:2]))


@given(histories, st.tuples(ahead, commands))
def test_what_is_asked_twice_changes_nothing_the_second_time(found, last):
    day, command = last
    before = found[0][-1]
    after = DECIDER.fold(decided(day, command, before), before)

    assert [] == decided(day, command, after)


@given(histories)
def test_what_is_over_stays_over_and_was_in_force_until_its_last_day(found):
    over = {CONTRACT_STATE_EXPIRED, CONTRACT_STATE_TERMINATED}
    standing = standing_of(found[0][-1])
    if standing.state != CONTRACT_STATE_ACTIVE:
        return

    days = [START + timedelta(days=days) for days in range(-60, 1_500, 7)]

    shown = [standing.state_on(day) for day in days]
    ends = [standing.term_on(day).end for day in days]
    expected = [standing.last is not None and day > standing.last for day in days]
    assert expected == [each in over for each in shown]
    assert sorted(ends) == ends
    assert all(
        end >= day for day, end, is_over in zip(days, ends, expected, strict=True) if not is_over
    )


@settings(max_examples=50)
@given(histories, st.lists(st.integers(0, 900), max_size=12))
def test_reminders_come_once_whenever_somebody_looks(found, looks):
    before = found[0][-1]
    end = START + timedelta(days=900)
    days = sorted(START + timedelta(days=days) for days in looks)

    seldom = came(before, [*days, end])
    daily = came(before, [START + timedelta(days=days) for days in range(901)])

    assert daily == seldom
    assert len({(fact.kind, fact.term_end_date) for fact in seldom}) == len(seldom)


def came(before, days):
    """The reminders that come when somebody looks on these days."""
    found, after = [], before
    for day in days:
        while (fact := due_reminder(after, day)) is not None:
            found.append(fact)
            after = DECIDER.fold([fact], after)
    return found


def test_every_kind_of_reminder_is_met():
    kinds = {
        fact.kind
        for said in (ROLLING, with_terms(renewal_reminder_days=30))
        for fact in came(state(*active(said)), [date(2028, 1, 1)])
    }

    assert {1, 2, 3} == kinds
