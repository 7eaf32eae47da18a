"""Who is one person, told as stories."""

import pytest

from services.kernel.errors import InvalidArgument, NotFound
from tests.identity_world import Facts, at


@pytest.fixture
def facts():
    return Facts()


async def test_what_a_visitor_did_before_the_login_is_the_users(people, facts):
    viewed = facts.track("Product Viewed", anonymous_id="a1")
    await people.happens(viewed)
    before = await people.profile("anonymous_id:a1")

    await people.happens(facts.track("Order Completed", anonymous_id="a1", user_id="u1"))

    after = await people.profile("user_id:u1")
    assert after.name == before.name
    assert await people.identifiers("user_id:u1") == {"anonymous_id:a1", "user_id:u1"}
    assert await people.activities("user_id:u1") == ["Order Completed", "Product Viewed"]


async def test_two_profiles_that_turn_out_to_be_one_become_the_older(people, facts):
    await people.happens(facts.track(anonymous_id="a1"), facts.track(user_id="u1"))
    older = await people.profile("anonymous_id:a1")
    younger = await people.profile("user_id:u1")

    await people.happens(facts.identify(anonymous_id="a1", user_id="u1"))

    for name in (older.name, younger.name):
        found = await people.profile(name.removeprefix("profiles/"))
        assert found.name == older.name


async def test_an_older_fact_that_arrives_late_gives_the_profile_its_id_and_the_old_one_leads_on(
    people, facts
):
    await people.happens(facts.identify(user_id="u1", anonymous_id="a1", received=50))
    young = (await people.profile("user_id:u1")).name

    await people.happens(facts.track(anonymous_id="a1", received=10))

    old = await people.profile("user_id:u1")
    assert old.name != young
    assert (await people.profile(young.removeprefix("profiles/"))).name == old.name
    assert old.create_time.ToDatetime(tzinfo=at(0).tzinfo) == at(10)


async def test_two_users_of_one_device_stay_two_people(people, facts):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="kiosk"),
        facts.track(user_id="u2", anonymous_id="kiosk"),
    )

    assert await people.identifiers("user_id:u1") == {"user_id:u1", "anonymous_id:kiosk"}
    assert await people.identifiers("user_id:u2") == {"user_id:u2"}


async def test_the_device_belongs_to_whom_it_was_seen_with_first_whoever_is_heard_of_first(
    people, facts
):
    await people.happens(facts.track(user_id="u2", anonymous_id="kiosk", received=20))
    assert await people.identifiers("anonymous_id:kiosk") == {"user_id:u2", "anonymous_id:kiosk"}

    await people.happens(facts.track(user_id="u1", anonymous_id="kiosk", received=10))

    assert await people.identifiers("anonymous_id:kiosk") == {"user_id:u1", "anonymous_id:kiosk"}
    assert await people.identifiers("user_id:u2") == {"user_id:u2"}


async def test_a_blocked_value_joins_nobody(people, facts):
    await people.happens(
        facts.track(user_id="u1", anonymous_id="null", properties={"email": "test@test.com"}),
        facts.track(user_id="u2", anonymous_id="null", properties={"email": "test@test.com"}),
    )

    assert await people.identifiers("user_id:u1") == {"user_id:u1"}
    with pytest.raises(NotFound):
        await people.profile("anonymous_id:null")


async def test_an_alias_makes_two_user_ids_one_person(people, facts):
    await people.happens(
        facts.identify(user_id="old", traits={"plan": "gold"}),
        facts.identify(user_id="new", traits={"city": "Rome"}),
        facts.alias(user_id="new", previous_id="old"),
    )

    assert {"user_id:old", "user_id:new"} < await people.identifiers("user_id:new")
    assert await people.traits("user_id:old") == {"plan": '"gold"', "city": '"Rome"'}


async def test_an_alias_claims_what_a_browser_did(people, facts):
    await people.happens(
        facts.track("Product Viewed", anonymous_id="a1"),
        facts.alias(user_id="u1", previous_id="a1"),
    )

    assert await people.activities("user_id:u1") == ["Ids Aliased", "Product Viewed"]


async def test_a_contact_is_the_person_who_uses_its_email(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"email": "ada@x.com", "plan": "gold"}),
        facts.contact_created("c1", given_name="Ada", email="Ada@X.com"),
        facts.deal_opened("d1", "c1"),
        facts.deal_moved("d1"),
        facts.deal_won("d1", "c1"),
    )

    assert await people.identifiers("contact_id:c1") == {
        "contact_id:c1",
        "user_id:u1",
        "email:ada@x.com",
    }
    assert await people.activities("email:ada@x.com") == [
        "Deal Won",
        "Deal Stage Changed",
        "Deal Opened",
        "Contact Created",
        "Person Identified",
    ]
    assert (await people.traits("user_id:u1")).items() >= {
        "plan": '"gold"',
        "given_name": '"Ada"',
        "email": '"Ada@X.com"',
    }.items()


async def test_an_email_that_moves_on_takes_its_person_along(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"email": "wrong@x.com", "plan": "gold"}),
        facts.contact_created("c1", given_name="Ada", email="wrong@x.com"),
    )
    assert (await people.profile("contact_id:c1")).name == (await people.profile("user_id:u1")).name

    told = await people.happens(facts.contact_email_changed("c1", "right@x.com"))

    assert await people.identifiers("contact_id:c1") == {"contact_id:c1", "email:right@x.com"}
    assert await people.identifiers("user_id:u1") == {"user_id:u1", "email:wrong@x.com"}
    assert await people.traits("user_id:u1") == {"plan": '"gold"', "email": '"wrong@x.com"'}
    assert await people.traits("contact_id:c1") == {
        "given_name": '"Ada"',
        "email": '"right@x.com"',
    }
    assert [event.DESCRIPTOR.name for event in told][:4] == [
        "ProfileCreated",
        "ProfileIdentifiersChanged",
        "ProfileIdentifiersChanged",
        "ProfileSplit",
    ]


async def test_an_address_that_only_a_contact_had_leads_nowhere_when_it_is_gone(people, facts):
    await people.happens(
        facts.contact_created("c1", email="typo@x.com"),
        facts.contact_email_changed("c1", "right@x.com"),
    )

    with pytest.raises(NotFound):
        await people.profile("email:typo@x.com")


async def test_the_last_word_about_an_email_counts_whenever_it_arrives(people, facts):
    await people.happens(
        facts.contact_email_changed("c1", "last@x.com", received=30),
        facts.contact_created("c1", email="first@x.com", received=10),
        facts.contact_email_changed("c1", "second@x.com", received=20),
    )

    assert await people.identifiers("contact_id:c1") == {"contact_id:c1", "email:last@x.com"}


async def test_an_archived_contact_frees_its_email_for_another(people, facts):
    await people.happens(
        facts.contact_created("c1", email="info@x.com", phone="+49 30 1234"),
        facts.contact_archived("c1"),
        facts.contact_created("c2", email="info@x.com"),
    )

    assert await people.identifiers("contact_id:c1") == {"contact_id:c1"}
    assert await people.identifiers("email:info@x.com") == {"contact_id:c2", "email:info@x.com"}
    assert await people.activities("contact_id:c1") == ["Contact Archived", "Contact Created"]


async def test_the_latest_word_on_a_trait_wins_whenever_it_arrives(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"plan": "gold", "age": 7}, occurred=20),
        facts.identify(user_id="u1", traits={"plan": "free", "age": None}, occurred=30),
        facts.identify(user_id="u1", traits={"plan": "old", "age": 6}, occurred=10),
    )

    assert await people.traits("user_id:u1") == {"plan": '"free"'}


async def test_a_person_is_unknown_in_another_workspace(people, facts):
    await people.happens(facts.track(user_id="u1"))
    profile = await people.profile("user_id:u1")

    with pytest.raises(NotFound):
        await people.profile("user_id:u1", workspace="other")
    with pytest.raises(NotFound):
        await people.profile(profile.name.removeprefix("profiles/"), workspace="other")
    assert not (await people.listed(workspace="other")).profiles


@pytest.mark.parametrize("name", ["Shoe Size:43", "email:", "nothing", "0" * 31, ""])
async def test_a_name_that_is_none_is_refused(people, name):
    with pytest.raises(InvalidArgument):
        await people.profile(name)


@pytest.mark.parametrize("name", ["email:nobody@x.com", "phone:1", "0" * 32])
async def test_a_name_that_leads_to_nobody_is_not_found(people, name):
    with pytest.raises(NotFound):
        await people.profile(name)


async def test_a_name_is_normalised_like_the_value_it_is_compared_with(people, facts):
    await people.happens(facts.identify(user_id="u1", traits={"email": "Ada@X.com"}))

    assert await people.profile("email: ADA@x.COM ") == await people.profile("user_id:u1")
