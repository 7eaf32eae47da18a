"""What people decide about two identifiers is stronger than what was seen, and can be undone."""

import pytest

from services.kernel.errors import NotFound
from tests.identity_world import Facts

USER, OTHER = ("user_id", "u1"), ("user_id", "u2")
BROWSER, EMAIL = ("anonymous_id", "a1"), ("email", "ada@x.com")


@pytest.fixture
def facts():
    return Facts()


async def test_a_cut_gives_back_what_was_done_and_said_under_each(people, facts):
    await people.happens(
        facts.identify(anonymous_id="a1", traits={"plan": "free"}),
        facts.identify(user_id="u1", traits={"plan": "gold", "age": 7}),
    )
    apart = await people.profile("anonymous_id:a1"), await people.profile("user_id:u1")
    await people.happens(facts.track("Order Completed", user_id="u1", anonymous_id="a1"))
    assert await people.traits("anonymous_id:a1") == {"plan": '"gold"', "age": "7"}

    told = await people.happens(facts.cut(USER, BROWSER))

    assert await people.profile("anonymous_id:a1") == apart[0]
    assert (await people.profile("user_id:u1")).traits == apart[1].traits
    assert await people.activities("user_id:u1") == ["Order Completed", "Person Identified"]
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileCreated",
        "ProfileIdentifiersChanged",
        "ProfileIdentifiersChanged",
        "ProfileSplit",
        "ProfileRecounted",
        "ProfileRecounted",
        "ProfileTraitsChanged",
        "ProfileTraitsChanged",
    ]


async def test_what_is_seen_after_a_cut_joins_nothing_either(people, facts):
    await people.happens(
        facts.cut(USER, BROWSER),
        facts.track(user_id="u1", anonymous_id="a1"),
        facts.track(anonymous_id="a1"),
    )

    assert await people.identifiers("user_id:u1") == {"user_id:u1"}
    assert await people.identifiers("anonymous_id:a1") == {"anonymous_id:a1"}


async def test_no_way_around_leads_past_a_cut(people, facts):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="a1"),
        facts.identify(user_id="u1", traits={"email": "ada@x.com"}),
        facts.cut(BROWSER, EMAIL),
    )

    # The e-mail is the stronger, so it stays.
    assert await people.identifiers("user_id:u1") == {"user_id:u1", "email:ada@x.com"}


async def test_a_link_joins_two_users_whatever_the_limit_says(people, facts):
    await people.happens(facts.track(user_id="u1"), facts.track(user_id="u2"))

    await people.happens(facts.linked(USER, OTHER))

    assert await people.identifiers("user_id:u1") == {"user_id:u1", "user_id:u2"}


async def test_a_link_makes_room_for_what_the_limit_refused(people, facts):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="a1"),
        facts.track(user_id="u2", anonymous_id="a1"),
    )
    assert await people.identifiers("user_id:u2") == {"user_id:u2"}

    await people.happens(facts.linked(USER, OTHER))

    assert await people.identifiers("user_id:u2") == {
        "user_id:u1",
        "user_id:u2",
        "anonymous_id:a1",
    }


async def test_a_verdict_that_is_taken_back_leaves_what_was_seen(people, facts):
    await people.happens(facts.track(user_id="u1", anonymous_id="a1"), facts.track(user_id="u2"))
    before = await people.profile("user_id:u1"), await people.profile("user_id:u2")

    await people.happens(
        facts.cut(USER, BROWSER),
        facts.linked(USER, OTHER),
        facts.cleared(USER, OTHER),
        facts.cleared(USER, BROWSER),
    )

    assert (await people.profile("user_id:u1"), await people.profile("user_id:u2")) == before


async def test_the_last_verdict_on_a_pair_holds_whichever_comes_first(people, facts):
    await people.happens(facts.track(user_id="u1"), facts.track(user_id="u2"))
    linked, cut = facts.linked(USER, OTHER), facts.cut(OTHER, USER)

    told = await people.happens(cut, linked, cut)

    assert told == []
    assert await people.identifiers("user_id:u1") == {"user_id:u1"}


async def test_a_verdict_waits_for_an_identifier_that_nobody_has_told_of(people, facts):
    await people.happens(facts.track(user_id="u1"), facts.linked(USER, OTHER))
    with pytest.raises(NotFound):
        await people.profile("user_id:u2")

    await people.happens(facts.track("Order Completed", user_id="u2"))

    assert await people.activities("user_id:u1") == ["Order Completed", "Product Viewed"]


async def test_an_identifier_is_not_kept_by_a_verdict_alone(people, facts):
    wrong = facts.imported(user_id="u2")
    await people.happens(facts.track(user_id="u1"), wrong, facts.linked(USER, OTHER))

    await people.happens(facts.retracted(wrong))

    assert await people.identifiers("user_id:u1") == {"user_id:u1"}
    with pytest.raises(NotFound):
        await people.profile("user_id:u2")


async def test_a_cut_between_two_that_are_linked_in_a_circle_is_kept(people, facts):
    await people.happens(
        *(facts.track(user_id=name) for name in ("u1", "u2", "u3")),
        facts.cut(USER, OTHER),
        facts.linked(USER, ("user_id", "u3")),
        facts.linked(OTHER, ("user_id", "u3")),
    )

    # The older link holds, the other would bring together what is cut.
    assert await people.identifiers("user_id:u3") == {"user_id:u1", "user_id:u3"}
    assert await people.identifiers("user_id:u2") == {"user_id:u2"}


async def test_a_link_that_could_not_be_followed_is_when_what_was_in_its_way_goes(people, facts):
    third = ("user_id", "u3")
    await people.happens(
        *(facts.track(user_id=name) for name in ("u1", "u2", "u3")),
        facts.cut(USER, OTHER),
        facts.linked(USER, third),
        facts.linked(OTHER, third),
    )

    await people.happens(facts.cleared(USER, third))

    assert await people.identifiers("user_id:u3") == {"user_id:u2", "user_id:u3"}


async def test_a_verdict_reaches_no_other_workspace(people, facts):
    theirs = Facts("other", seed=1)
    both = {"user_id": "u1", "anonymous_id": "a1"}
    await people.happens(facts.track(**both), theirs.track(**both), theirs.cut(USER, BROWSER))

    assert await people.identifiers("user_id:u1") == {"user_id:u1", "anonymous_id:a1"}


async def test_what_is_linked_comes_along_even_where_it_is_of_no_profile_yet(people, facts):
    emails = [f"e{n}@x.com" for n in range(7)]
    await people.happens(
        *(facts.identify(user_id="u1", traits={"email": email}) for email in emails),
        facts.linked(("email", emails[5]), ("email", emails[6])),
    )
    for past_the_limit in emails[5:]:
        with pytest.raises(NotFound):
            await people.profile(f"email:{past_the_limit}")

    await people.happens(facts.identify(user_id="u2", traits={"email": emails[6]}))

    assert await people.identifiers("user_id:u2") == {
        "user_id:u2",
        *(f"email:{email}" for email in emails[5:]),
    }
