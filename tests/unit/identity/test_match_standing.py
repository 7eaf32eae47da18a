"""What a run found is about the profiles of now, not about those it began with."""

import pytest

from rapport.identity.v1.match_pb2 import MatchClosure
from services.identity.identifiers import identifier
from services.identity.match_standing import (
    Anchored,
    Standing,
    anchor_of,
    closure_of,
    plan,
)
from services.identity.matching import FoundEvidence, FoundPair
from services.identity.rules import DEFAULT, Rules
from services.identity.verdicts import pair_id

ADA, ADAH, OTHER = (
    identifier(DEFAULT, "acme", "contact_id", each)._replace(value="") for each in "123"
)
RUN, MODEL = "matchRuns/r1", "1-abc"
ANCHORED = {"a": Anchored("a", ADA), "b": Anchored("b", ADAH), "c": Anchored("c", OTHER)}


def found(one, other, weight=500):
    return FoundPair(one, other, weight, (FoundEvidence(1, 2, weight),))


def standing(one="a", other="b", *, is_cut=False):
    first, second = sorted([ADA, ADAH])
    judged = [(each.type, each.node) for each in (first, second)]
    return Standing("open", *judged, one, other, is_cut)


def planned(*pairs, standings=(), compared=(), anchored=ANCHORED, cuts=()):
    return plan(
        RUN, MODEL, pairs, standings, compared=set(compared), anchored=anchored, cuts=set(cuts)
    )


def test_what_was_found_is_suggested_by_the_strongest_identifiers():
    made = planned(found("a", "b", 1234))

    [(suggestion_id, fact)] = made.found.items()
    one, other = sorted([ADA, ADAH])
    assert suggestion_id == pair_id(one, other)
    assert (fact.one.node, fact.other.node) == (one.node, other.node)
    assert (fact.run, fact.weight_hundredths, fact.model_version) == (RUN, 1234, MODEL)
    [evidence] = fact.evidence
    assert (evidence.field, evidence.agreement, evidence.weight_hundredths) == (1, 2, 1234)


def test_who_was_merged_meanwhile_or_is_gone_is_not_suggested():
    merged = {**ANCHORED, "b": Anchored("a", ADA)}

    assert {} == planned(found("a", "b"), anchored=merged).found
    assert {} == planned(found("a", "b"), anchored={"a": ANCHORED["a"]}).found


def test_of_pairs_that_are_the_same_two_by_now_the_likeliest_is_suggested():
    merged = {**ANCHORED, "c": Anchored("a", ADA)}

    made = planned(found("a", "b", 900), found("b", "c", 700), anchored=merged)

    assert [900] == [fact.weight_hundredths for fact in made.found.values()]


def test_who_was_cut_is_never_suggested_again():
    made = planned(found("a", "b"), found("a", "c"), cuts=[("a", "b")])

    assert 1 == made.decided
    assert [OTHER.node] == [
        node
        for fact in made.found.values()
        for node in (fact.one.node, fact.other.node)
        if node != ADA.node
    ]


def test_a_suggestion_that_is_found_again_goes_on_by_its_own_identifiers():
    weaker = identifier(DEFAULT, "acme", "email", "ada@x.com")
    anchored = {**ANCHORED, "a": Anchored("a", weaker)}

    made = planned(found("a", "b", 100), standings=[standing()], anchored=anchored)

    assert ["open"] == list(made.found)
    assert {ADA.node, ADAH.node} == {made.found["open"].one.node, made.found["open"].other.node}
    assert {} == made.closed


def test_what_there_is_nothing_to_decide_about_is_closed_by_the_run():
    made = planned(standings=[standing("a", "a")])

    assert MatchClosure.MATCH_CLOSURE_ONE_PROFILE == made.closed["open"].closure
    assert RUN == made.closed["open"].run


@pytest.mark.parametrize(
    ("open_one", "compared", "is_found", "expected"),
    [
        (standing("a", "a"), "ab", True, MatchClosure.MATCH_CLOSURE_ONE_PROFILE),
        (standing("a", None), "ab", True, MatchClosure.MATCH_CLOSURE_GONE),
        (standing(None, None), "ab", True, MatchClosure.MATCH_CLOSURE_GONE),
        (standing(is_cut=True), "ab", True, MatchClosure.MATCH_CLOSURE_CUT),
        (standing(), "ab", False, MatchClosure.MATCH_CLOSURE_UNLIKELY),
        (standing(), "ab", True, MatchClosure.MATCH_CLOSURE_UNSPECIFIED),
        # Of whom the run did not look at, it says nothing.
        (standing(), "a", False, MatchClosure.MATCH_CLOSURE_UNSPECIFIED),
    ],
)
def test_a_suggestion_is_closed_for_a_reason(open_one, compared, is_found, expected):
    assert expected == closure_of(open_one, set(compared), is_found=is_found)


def test_the_strongest_identifier_stands_for_a_profile():
    known = [("anonymous_id", "0"), ("email", "3"), ("contact_id", "9"), ("contact_id", "8")]

    anchor = anchor_of(DEFAULT, known)

    assert ("contact_id", "8", "") == (anchor.type, anchor.node, anchor.value)


def test_a_type_that_the_rules_do_not_know_is_the_weakest():
    only_contacts = Rules(types=DEFAULT.types[:1])
    known = [("email", "3"), ("contact_id", "9")]

    assert "contact_id" == anchor_of(only_contacts, known).type
    assert "email" == anchor_of(only_contacts, known[:1]).type
