"""Runs are started and ended once; what somebody decided about a suggestion stays decided."""

import pytest

from rapport.identity.v1.events_pb2 import (
    IdentifiersCut,
    IdentifiersLinked,
    JudgedIdentifier,
    MatchRunCancelled,
    MatchRunFailed,
    MatchRunFinished,
    MatchRunStarted,
    MatchSuggested,
    MatchSuggestionAccepted,
    MatchSuggestionClosed,
    MatchSuggestionRejected,
    VerdictCleared,
)
from rapport.identity.v1.match_pb2 import MatchClosure, MatchEvidence, MatchRunCounts
from rapport.identity.v1.match_runs_pb2 import CancelMatchRunRequest, StartMatchRunRequest
from rapport.identity.v1.match_suggestions_pb2 import (
    AcceptMatchSuggestionRequest,
    MatchStrength,
    RejectMatchSuggestionRequest,
    SuggestMatchRequest,
)
from services.identity import decider as verdict
from services.identity.deciders import match_run
from services.identity.deciders.match_suggestion import (
    ACCEPTED,
    CLOSED,
    DECIDER,
    OPEN,
    OPEN_SUGGESTIONS_MAX,
    REJECTED,
    VERY_LIKELY_HUNDREDTHS,
    About,
    decider_about,
    settle,
    strength_of,
    tell,
)
from services.identity.match_standing import identifier_of
from services.identity.rules import DEFAULT
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
)
from services.kernel.testing import Spec

START = StartMatchRunRequest(match_run_id="r1", filter="x")
CANCEL = CancelMatchRunRequest(name="matchRuns/r1")
STARTED = MatchRunStarted(filter="x")

ONE, OTHER = ("contact_id", "0" * 32), ("contact_id", "1" * 32)
JUDGED = [JudgedIdentifier(type=each[0], node=each[1]) for each in (ONE, OTHER)]
BY_HAND = MatchSuggested(one=JUDGED[0], other=JUDGED[1])
CLOSING = MatchSuggestionClosed(closure=MatchClosure.MATCH_CLOSURE_GONE, run="matchRuns/r1")
ACCEPT = AcceptMatchSuggestionRequest(name="matchSuggestions/s", reason="I know her")
REJECT = RejectMatchSuggestionRequest(name="matchSuggestions/s", reason="Twins")
NOBODY = {ONE[1]: 0, OTHER[1]: 0}
PAIR = [identifier_of(DEFAULT, each) for each in (ONE, OTHER)]


def found(weight):
    evidence = [MatchEvidence(field=1, agreement=1, weight_hundredths=weight)]
    return MatchSuggested(
        one=JUDGED[0],
        other=JUDGED[1],
        run="matchRuns/r1",
        weight_hundredths=weight,
        evidence=evidence,
        model_version="1-a",
    )


def run():
    return Spec(match_run.DECIDER)


def suggestion(open_count=0):
    return Spec(decider_about(About(ONE, OTHER, open_count)))


def settled(decision, *events, verdicts=(), others=NOBODY):
    states = DECIDER.fold(events), verdict.DECIDER.fold(verdicts)
    return settle("matchSuggestions/s", decision, verdict.Judged(*PAIR, others), states)


def test_a_run_is_started_once():
    run().when(START).then(STARTED)
    run().given(STARTED).when(START).then_refused(AlreadyExists)


def test_a_run_that_goes_on_can_be_cancelled_and_one_that_has_ended_cannot():
    run().given(STARTED).when(CANCEL).then(MatchRunCancelled())
    run().given(STARTED, MatchRunCancelled()).when(CANCEL).then()
    run().given(STARTED, MatchRunFinished()).when(CANCEL).then_refused(FailedPrecondition)
    run().given(STARTED, MatchRunFailed(reason="BUG")).when(CANCEL).then_refused(FailedPrecondition)
    run().when(CANCEL).then_refused(NotFound)


def test_what_a_run_did_is_kept():
    counts = MatchRunCounts(profiles=3, found=1)
    finished = MatchRunFinished(counts=counts, model_version="1-a")

    state = match_run.DECIDER.fold([STARTED, finished])

    assert (counts, "1-a") == (MatchRunCounts.FromString(state.counts), state.model_version)


def test_suggesting_by_hand_is_news_unless_it_was_suggested_or_decided():
    asked = SuggestMatchRequest()

    suggestion().when(asked).then(BY_HAND)
    suggestion().given(found(300), CLOSING).when(asked).then(BY_HAND)
    suggestion().given(found(300)).when(asked).then()
    suggestion().given(BY_HAND, MatchSuggestionRejected()).when(asked).then()


def test_no_more_is_suggested_than_somebody_can_look_at():
    asked = SuggestMatchRequest()

    suggestion(OPEN_SUGGESTIONS_MAX - 1).when(asked).then(BY_HAND)
    suggestion(OPEN_SUGGESTIONS_MAX).when(asked).then_refused(ResourceExhausted)
    suggestion(OPEN_SUGGESTIONS_MAX).given(BY_HAND).when(asked).then()


def test_accepting_links_and_rejecting_cuts():
    linked = IdentifiersLinked(one=JUDGED[0], other=JUDGED[1], reason="I know her")
    cut = IdentifiersCut(one=JUDGED[0], other=JUDGED[1], reason="Twins")

    assert ([MatchSuggestionAccepted()], [linked]) == settled(ACCEPT, found(300))
    assert ([MatchSuggestionRejected()], [cut]) == settled(REJECT, found(300))


def test_deciding_twice_is_deciding_once_and_otherwise_is_deciding_anew():
    linked = IdentifiersLinked(one=JUDGED[0], other=JUDGED[1])
    accepted = found(300), MatchSuggestionAccepted()

    assert ([], []) == settled(ACCEPT, *accepted, verdicts=[linked])
    told, given = settled(REJECT, *accepted, verdicts=[linked])
    assert [MatchSuggestionRejected()] == told
    assert [IdentifiersCut] == [type(each) for each in given]


def test_who_decides_again_after_the_verdict_was_taken_back_gives_it_again():
    linked = IdentifiersLinked(one=JUDGED[0], other=JUDGED[1])
    accepted = found(300), MatchSuggestionAccepted()

    told, given = settled(ACCEPT, *accepted, verdicts=[linked, VerdictCleared()])

    assert ([], [IdentifiersLinked]) == (told, [type(each) for each in given])


def test_a_decision_may_not_pass_the_limit_of_verdicts():
    full = {ONE[1]: verdict.VERDICTS_PER_IDENTIFIER_MAX, OTHER[1]: 0}
    room = {ONE[1]: verdict.VERDICTS_PER_IDENTIFIER_MAX - 1, OTHER[1]: 0}

    assert settled(ACCEPT, found(1), others=room)[1]
    with pytest.raises(ResourceExhausted):
        settled(ACCEPT, found(1), others=full)


def test_nothing_is_decided_about_what_was_never_suggested():
    with pytest.raises(NotFound):
        settled(ACCEPT)


def told(fact, *events, room=1):
    """What a run records, the state after it, and what it counts."""
    counts = MatchRunCounts()
    before = DECIDER.fold(events)
    made = list(tell(fact, before, counts, room))
    counted = {field.name: value for field, value in counts.ListFields()}
    return made, DECIDER.fold(made, before).state, counted


def test_a_run_opens_what_is_new_or_was_closed():
    assert ([found(5)], OPEN, {"suggested": 1}) == told(found(5))
    assert ([found(5)], OPEN, {"suggested": 1}) == told(found(5), found(5), CLOSING)


def test_a_run_that_finds_the_same_again_has_no_news():
    assert ([], OPEN, {"confirmed": 1}) == told(found(5), found(5))
    assert ([found(6)], OPEN, {"confirmed": 1}) == told(found(6), found(5))
    assert ([found(6)], OPEN, {"confirmed": 1}) == told(found(6), BY_HAND)


@pytest.mark.parametrize(
    ("decided", "state"),
    [(MatchSuggestionRejected(), REJECTED), (MatchSuggestionAccepted(), ACCEPTED)],
    ids=["rejected", "accepted"],
)
def test_a_run_brings_nothing_back_that_somebody_decided(decided, state):
    assert ([], state, {"decided": 1}) == told(found(900), found(5), decided)
    assert ([], state, {}) == told(CLOSING, found(5), decided)


def test_a_run_closes_what_is_open():
    assert ([CLOSING], CLOSED, {"closed": 1}) == told(CLOSING, found(5))
    assert ([], 0, {}) == told(CLOSING)


def test_a_run_leaves_out_what_there_is_no_room_for():
    assert ([], 0, {"left_out": 1}) == told(found(5), room=0)
    assert ([found(6)], OPEN, {"confirmed": 1}) == told(found(6), found(5), room=0)


def test_the_thresholds_are_zero_and_ten():
    strengths = [strength_of(weight) for weight in (None, -1, 0, VERY_LIKELY_HUNDREDTHS - 1)]

    assert strengths == [
        MatchStrength.MATCH_STRENGTH_UNSPECIFIED,
        MatchStrength.MATCH_STRENGTH_UNSPECIFIED,
        MatchStrength.MATCH_STRENGTH_REVIEW,
        MatchStrength.MATCH_STRENGTH_REVIEW,
    ]
    assert 1_000 == VERY_LIKELY_HUNDREDTHS
    assert MatchStrength.MATCH_STRENGTH_VERY_LIKELY == strength_of(VERY_LIKELY_HUNDREDTHS)
