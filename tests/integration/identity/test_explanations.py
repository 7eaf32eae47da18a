"""Why two identifiers are one person's, or are not, told from what was seen and decided."""

import random
from itertools import combinations

import pytest

from rapport.identity.v1.explanations_pb2 import PairRelation, RefusalRule, RemedyKind
from rapport.identity.v1.verdicts_pb2 import VerdictKind
from services.identity.identifiers import identifier
from services.identity.projections import explanations, survey
from services.identity.projections.explanations import explain_pair, explain_profile
from services.identity.rules import DEFAULT
from services.kernel.errors import NotFound, ResourceExhausted
from tests.identity_histories import DenseHistory
from tests.identity_world import Facts, apply, at

USER, OTHER = ("user_id", "u1"), ("user_id", "u2")
BROWSER, EMAIL = ("anonymous_id", "a1"), ("email", "ada@x.com")


@pytest.fixture
def facts():
    return Facts()


async def pair(people, *both):
    """The explanation of two identifiers."""
    strong, weak = sorted(identifier(DEFAULT, "acme", *each) for each in both)
    return await explain_pair(people.pool, "acme", strong, weak)


def said(known):
    return known.type, known.value


def steps(connections):
    """The identifiers of connections, each as type and value, and whether it was followed."""
    return [(said(c.one), said(c.other), not c.HasField("refusal")) for c in connections]


async def test_the_path_of_facts_says_why_two_are_one_person(people, facts):
    seen = facts.track("Order Completed", user_id="u1", anonymous_id="a1")
    told = facts.contact_created("ada", email="ada@x.com")
    identified = facts.identify(user_id="u1", traits={"email": "ada@x.com"})
    await people.happens(seen, told, identified)

    found = await pair(people, ("contact_id", "ada"), BROWSER)

    assert found.relation == PairRelation.PAIR_RELATION_ONE_PERSON
    assert found.one_profile == found.other_profile != ""
    assert steps(found.path) == [
        (("contact_id", "ada"), EMAIL, True),
        (USER, EMAIL, True),
        (USER, BROWSER, True),
    ]
    assert [step.fact.activity for step in found.path] == [
        "Contact Created",
        "Person Identified",
        "Order Completed",
    ]
    assert [step.fact.activity_id for step in found.path] == [
        str(event.event_id) for event in (told, identified, seen)
    ]


async def test_a_limit_that_refused_is_told_with_its_values_and_what_would_help(people, facts):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="a1"), facts.track(user_id="u2", anonymous_id="a1")
    )

    found = await pair(people, OTHER, BROWSER)

    [step] = found.path
    assert found.relation == PairRelation.PAIR_RELATION_REFUSED
    assert step.refusal.rule == RefusalRule.REFUSAL_RULE_LIMIT
    assert (step.refusal.identifier_type, step.refusal.limit) == ("user_id", 1)
    assert {said(known) for known in step.refusal.identifiers} == {USER, OTHER}
    assert {remedy.kind for remedy in step.refusal.remedies} == {RemedyKind.REMEDY_KIND_LINK}
    assert [{said(each.one), said(each.other)} for each in step.refusal.remedies] == [
        {USER, OTHER},
        {OTHER, BROWSER},
    ]


@pytest.mark.parametrize("remedy", [0, 1])
async def test_what_is_said_to_help_helps(people, facts, remedy):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="a1"), facts.track(user_id="u2", anonymous_id="a1")
    )
    [step] = (await pair(people, OTHER, BROWSER)).path
    advised = step.refusal.remedies[remedy]

    await people.happens(facts.linked(said(advised.one), said(advised.other)))

    found = await pair(people, OTHER, BROWSER)
    assert found.relation == PairRelation.PAIR_RELATION_ONE_PERSON


async def test_a_cut_is_told_with_who_said_so_when_and_why(people, facts):
    cut = facts.cut(USER, BROWSER, reason="a shared device")
    await people.happens(facts.track(user_id="u1", anonymous_id="a1"), cut)

    found = await pair(people, USER, BROWSER)

    [step] = found.path
    assert step.refusal.rule == RefusalRule.REFUSAL_RULE_CUT
    assert step.refusal.verdict == found.verdict
    assert found.verdict.kind == VerdictKind.VERDICT_KIND_CUT
    assert (found.verdict.actor, found.verdict.reason) == ("tests", "a shared device")
    assert found.verdict.decide_time.ToDatetime(tzinfo=at(0).tzinfo) == cut.record_time
    [remedy] = step.refusal.remedies
    assert remedy.kind == RemedyKind.REMEDY_KIND_CLEAR
    assert {said(remedy.one), said(remedy.other)} == {USER, BROWSER}


async def test_a_link_is_the_path(people, facts):
    linked = facts.linked(USER, OTHER, reason="she told us")
    await people.happens(facts.track(user_id="u1"), facts.track(user_id="u2"), linked)

    found = await pair(people, USER, OTHER)

    [step] = found.path
    assert found.relation == PairRelation.PAIR_RELATION_ONE_PERSON
    assert step.is_link
    assert step.verdict.reason == "she told us"
    assert step.fact.activity_id == str(linked.event_id)


async def test_two_that_nothing_connects_and_one_that_nobody_knows_are_told_apart(people, facts):
    await people.happens(
        facts.track(user_id="u1"), facts.track(user_id="u2"), facts.cut(USER, BROWSER)
    )

    apart, unknown = await pair(people, USER, OTHER), await pair(people, USER, BROWSER)

    assert apart.relation == PairRelation.PAIR_RELATION_UNCONNECTED
    assert apart.one_profile
    assert apart.other_profile
    assert unknown.relation == PairRelation.PAIR_RELATION_UNKNOWN
    # The verdict waits: of the identifier that nobody told of, only the type is known.
    assert unknown.verdict.kind == VerdictKind.VERDICT_KIND_CUT
    assert said(unknown.verdict.other) == ("anonymous_id", "")


async def test_a_profile_shows_what_it_is_made_of(people, facts):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="a1"),
        facts.identify(user_id="u1", traits={"email": "ada@x.com"}),
        facts.track(user_id="u2", anonymous_id="a1"),
        facts.linked(USER, ("user_id", "u3")),
    )

    found = await explain_profile(people.pool, "acme", "profiles/anonymous_id:a1")

    assert found.profile == (await people.profile("user_id:u1")).name
    assert [said(known.identifier) for known in found.identifiers] == [USER, EMAIL, BROWSER]
    assert [known.first_time.ToDatetime(tzinfo=at(0).tzinfo) for known in found.identifiers] == [
        at(0),
        at(1),
        at(0),
    ]
    assert steps(found.connections) == [(USER, EMAIL, True), (USER, BROWSER, True)]
    assert steps(found.refused) == [(OTHER, BROWSER, False)]
    [refused] = found.refused
    assert refused.one_profile == (await people.profile("user_id:u2")).name
    assert refused.other_profile == found.profile
    assert [verdict.kind for verdict in found.verdicts] == [VerdictKind.VERDICT_KIND_LINK]
    assert found.left_out_count == 0


async def test_what_an_answer_leaves_out_is_counted(people, facts, monkeypatch):
    for limit in ("CONNECTIONS_MAX", "REFUSALS_MAX", "VERDICTS_MAX"):
        monkeypatch.setattr(explanations, limit, 1)
    await people.happens(
        *(facts.track(user_id="u1", anonymous_id=f"a{n}") for n in range(3)),
        *(facts.track(user_id=f"u{n}", anonymous_id="a1") for n in range(2, 5)),
        facts.cut(USER, OTHER),
        facts.cut(USER, ("user_id", "u3")),
        facts.allowed(BROWSER),
    )

    found = await explain_profile(people.pool, "acme", "profiles/user_id:u1")

    assert [len(found.connections), len(found.refused), len(found.verdicts)] == [1, 1, 1]
    assert found.left_out_count == 5


async def test_too_much_that_hangs_together_is_not_resolved_for_a_question(
    people, facts, monkeypatch
):
    monkeypatch.setattr(survey, "ISLAND_NODES_EXPLAINED_MAX", 3)
    await people.happens(
        facts.track(user_id="u1", anonymous_id="a1"), facts.track(user_id="u2", anonymous_id="a1")
    )
    assert (await pair(people, USER, OTHER)).relation == PairRelation.PAIR_RELATION_REFUSED
    await people.happens(facts.allowed(BROWSER), facts.track(user_id="u3", anonymous_id="a1"))

    with pytest.raises(ResourceExhausted):
        await pair(people, USER, OTHER)


async def test_nobody_and_what_is_of_another_workspace_is_not_found(people, facts):
    await people.happens(facts.track(user_id="u1"))

    for workspace, name in (("acme", "user_id:u2"), ("other", "user_id:u1")):
        with pytest.raises(NotFound):
            await explain_profile(people.pool, workspace, f"profiles/{name}")


async def test_every_profile_and_pair_of_a_dense_crowd_is_explained_as_it_is(people):
    rng = random.Random(7)
    history = DenseHistory(rng, "acme").some(120, retracting=4, judging=12)
    async with people.pool.acquire() as connection:
        await apply(connection, history)
        nodes = await connection.fetch("select type, value, profile from profiles.nodes")
    for profile in {node["profile"] for node in nodes} - {None}:
        found = await explain_profile(people.pool, "acme", f"profiles/{profile}")
        known = {said(each.identifier) for each in found.identifiers}
        assert known == {(n["type"], n["value"]) for n in nodes if n["profile"] == profile}
        assert all(step.refusal.rule for step in found.refused)
        followed = {said(end) for step in found.connections for end in (step.one, step.other)}
        assert followed <= known
    for one, other in combinations(nodes, 2):
        found = await pair(people, (one["type"], one["value"]), (other["type"], other["value"]))
        is_one = found.relation == PairRelation.PAIR_RELATION_ONE_PERSON
        assert is_one == (one["profile"] == other["profile"] is not None)
