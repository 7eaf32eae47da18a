"""What is shared joins nobody, unless people say so; what they block joins nobody either."""

import pytest

from rapport.identity.v1.explanations_pb2 import PairRelation, RefusalRule, RemedyKind
from rapport.identity.v1.flags_pb2 import FlagKind, ListIdentifierFlagsRequest
from services.identity.identifiers import identifier
from services.identity.projections import survey
from services.identity.projections.explanations import explain_pair, explain_profile
from services.identity.projections.flags import list_flags
from services.identity.rules import DEFAULT
from services.kernel.errors import NotFound
from tests.identity_world import Facts

TABLET = ("anonymous_id", "tablet")
ADA, BOB, EVE = (("user_id", name) for name in ("ada", "bob", "eve"))


@pytest.fixture
def facts():
    return Facts()


def logins(facts, *names):
    """Each of some people uses the tablet."""
    return [facts.track("Logged In", user_id=name, anonymous_id="tablet") for name in names]


async def pair(people, *both):
    strong, weak = sorted(identifier(DEFAULT, "acme", *each) for each in both)
    return await explain_pair(people.pool, "acme", strong, weak)


async def test_a_tablet_of_two_belongs_to_the_first_and_one_of_three_to_nobody(people, facts):
    browsed = facts.track("Browsed", anonymous_id="tablet")
    await people.happens(browsed, *logins(facts, "ada", "bob"))
    assert await people.activities("user_id:ada") == ["Logged In", "Browsed"]

    told = await people.happens(*logins(facts, "eve"))

    assert await people.activities("anonymous_id:tablet") == ["Browsed"]
    assert await people.identifiers("user_id:ada") == {"user_id:ada"}
    assert "ProfileSplit" in [event.DESCRIPTOR.name for event in told]


async def test_what_a_shared_tablet_does_without_a_login_stays_its_own_profile(people, facts):
    await people.happens(*logins(facts, "ada", "bob", "eve"))
    with pytest.raises(NotFound):
        await people.profile("anonymous_id:tablet")

    await people.happens(facts.track("Browsed", anonymous_id="tablet"))

    assert await people.identifiers("anonymous_id:tablet") == {"anonymous_id:tablet"}


async def test_whatever_comes_of_a_shared_tablet_reads_no_island(people, facts, monkeypatch):
    await people.happens(*logins(facts, "ada", "bob", "eve"))

    async def no_resolve(_):
        raise AssertionError

    monkeypatch.setattr("services.identity.projections.islands.Islands._resolve", no_resolve)
    await people.happens(*logins(facts, "ada", "fay", "gus"))

    assert await people.identifiers("user_id:gus") == {"user_id:gus"}


async def test_it_is_no_longer_shared_when_what_was_seen_is_taken_back(people, facts):
    imported = facts.imported(user_id="eve", anonymous_id="tablet")
    await people.happens(*logins(facts, "ada", "bob"), imported)
    assert await people.identifiers("user_id:ada") == {"user_id:ada"}

    await people.happens(facts.retracted(imported))

    assert await people.identifiers("user_id:ada") == {"user_id:ada", "anonymous_id:tablet"}


async def test_an_allowed_identifier_joins_however_many_it_was_seen_with(people, facts):
    await people.happens(*logins(facts, "ada", "bob", "eve"), facts.allowed(TABLET))
    assert await people.identifiers("user_id:ada") == {"user_id:ada", "anonymous_id:tablet"}

    await people.happens(facts.flag_cleared(TABLET))

    assert await people.identifiers("user_id:ada") == {"user_id:ada"}


async def test_a_blocked_identifier_parts_what_it_joined_and_waits_for_what_comes(people, facts):
    email = ("email", "ada@x.com")
    await people.happens(
        facts.identify(user_id="ada", traits={"email": "ada@x.com"}),
        facts.contact_created("c1", email="ada@x.com"),
        facts.blocked(email),
        facts.blocked(("phone", "+49 30 1234567")),
        facts.contact_created("c2", phone="+49 30 1234567"),
    )

    assert await people.identifiers("user_id:ada") == {"user_id:ada"}
    assert await people.identifiers("contact_id:c1") == {"contact_id:c1"}
    assert await people.identifiers("contact_id:c2") == {"contact_id:c2"}


async def test_what_somebody_links_is_joined_though_it_is_shared(people, facts):
    await people.happens(*logins(facts, "ada", "bob", "eve"), facts.linked(TABLET, BOB))

    assert await people.identifiers("user_id:bob") == {"user_id:bob", "anonymous_id:tablet"}
    assert await people.identifiers("user_id:ada") == {"user_id:ada"}


async def test_a_shared_identifier_is_told_with_what_would_help(people, facts):
    await people.happens(*logins(facts, "ada", "bob", "eve"))

    found = await pair(people, ADA, BOB)
    refusal = found.path[0].refusal

    assert found.relation == PairRelation.PAIR_RELATION_REFUSED
    assert refusal.rule == RefusalRule.REFUSAL_RULE_HUB
    assert (refusal.identifier_type, refusal.limit) == ("anonymous_id", 2)
    assert [(known.type, known.value) for known in refusal.identifiers] == [TABLET]
    assert [(remedy.kind, remedy.one.value, remedy.other.value) for remedy in refusal.remedies] == [
        (RemedyKind.REMEDY_KIND_ALLOW, "tablet", ""),
        (RemedyKind.REMEDY_KIND_LINK, "tablet", "ada"),
    ]


async def test_what_is_said_to_help_a_shared_identifier_helps(people, facts):
    await people.happens(*logins(facts, "ada", "bob", "eve"), facts.allowed(TABLET))

    assert (await pair(people, ADA, TABLET)).relation == PairRelation.PAIR_RELATION_ONE_PERSON


async def test_a_blocked_identifier_is_told_with_who_said_so(people, facts):
    await people.happens(*logins(facts, "ada"), facts.blocked(TABLET))

    [refusal] = [each.refusal for each in (await pair(people, ADA, TABLET)).path]

    assert (refusal.violation, refusal.limit) == ("ID value blocked", 0)
    assert (refusal.flag.kind, refusal.flag.actor) == (FlagKind.FLAG_KIND_BLOCK, "tests")
    assert refusal.remedies[0].kind == RemedyKind.REMEDY_KIND_CLEAR_FLAG


async def test_a_profile_shows_what_is_shared_and_what_was_set_aside(people, facts):
    await people.happens(*logins(facts, "ada", "bob", "eve"), facts.linked(TABLET, ADA))

    found = await explain_profile(people.pool, "acme", "profiles/user_id:ada")

    assert [(known.identifier.value, known.is_shared) for known in found.identifiers] == [
        ("ada", False),
        ("tablet", True),
    ]
    assert {each.one.value for each in found.refused} == {"ada", "bob", "eve"}


async def test_of_what_was_set_aside_only_so_much_is_told(people, facts, monkeypatch):
    monkeypatch.setattr(survey, "ASIDE_EXPLAINED_MAX", 2)
    await people.happens(*logins(facts, "ada", "bob", "eve", "fay"), facts.linked(TABLET, ADA))

    found = await explain_profile(people.pool, "acme", "profiles/user_id:ada")

    assert len(found.refused) == 2


async def test_flags_are_listed_with_the_values_that_somebody_tells_of(people, facts):
    await people.happens(
        *logins(facts, "ada"),
        facts.blocked(TABLET),
        facts.allowed(("email", "nobody@x.com")),
        facts.blocked(EVE),
        facts.flag_cleared(EVE),
    )

    async def listed(**asked):
        page = await list_flags(people.pool, "acme", ListIdentifierFlagsRequest(**asked))
        return {(flag.identifier.type, flag.identifier.value, flag.kind) for flag in page.flags}

    block, allow = FlagKind.FLAG_KIND_BLOCK, FlagKind.FLAG_KIND_ALLOW
    assert await listed() == {(*TABLET, block), ("email", "", allow)}
    assert await listed(filter="kind = FLAG_KIND_ALLOW") == {("email", "", allow)}
    assert await listed(filter='identifier_type = "anonymous_id"') == {(*TABLET, block)}
