"""What an import brought and was undone, told as stories: as if nobody had ever heard of it."""

import pytest

from services.kernel.errors import NotFound
from tests.identity_world import Facts


@pytest.fixture
def facts():
    return Facts()


async def test_what_is_taken_back_was_never_there(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"plan": "free"}),
        facts.track("Product Viewed", user_id="u1", anonymous_id="a1"),
    )
    before = await people.profile("user_id:u1")
    wrong = facts.imported(
        "identify", user_id="u1", traits={"plan": "gold", "age": 7, "email": "wrong@x.com"}
    )
    await people.happens(wrong)
    assert await people.traits("email:wrong@x.com") == {
        "plan": '"gold"',
        "age": "7",
        "email": '"wrong@x.com"',
    }

    told = await people.happens(facts.retracted(wrong))

    assert await people.profile("user_id:u1") == before
    assert await people.activities("user_id:u1") == ["Product Viewed", "Person Identified"]
    with pytest.raises(NotFound):
        await people.profile("email:wrong@x.com")
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileIdentifiersChanged",
        "ProfileRecounted",
        "ProfileTraitsChanged",
    ]
    assert {said.trait: said.value for said in told[3].changes} == {
        "age": "",
        "email": "",
        "plan": '"free"',
    }


async def test_a_person_nobody_tells_of_any_longer_is_nobody(people, facts):
    only = facts.imported(user_id="u1", anonymous_id="a1")
    await people.happens(only)
    name = (await people.profile("user_id:u1")).name.removeprefix("profiles/")

    told = await people.happens(facts.retracted(only))

    for gone in ("user_id:u1", "anonymous_id:a1", name):
        with pytest.raises(NotFound):
            await people.profile(gone)
    assert not (await people.listed()).profiles
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileIdentifiersChanged",
        "ProfileRemoved",
    ]


async def test_two_people_that_only_a_wrong_import_made_one_are_two_again(people, facts):
    await people.happens(facts.track(user_id="u1"), facts.track(anonymous_id="a1"))
    one, other = await people.profile("user_id:u1"), await people.profile("anonymous_id:a1")
    wrong = facts.imported(user_id="u1", anonymous_id="a1")
    await people.happens(wrong)

    told = await people.happens(facts.retracted(wrong))

    assert await people.profile("user_id:u1") == one
    assert await people.profile("anonymous_id:a1") == other
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileCreated",
        "ProfileIdentifiersChanged",
        "ProfileIdentifiersChanged",
        "ProfileSplit",
        "ProfileRecounted",
        "ProfileRecounted",
    ]


async def test_a_device_that_a_wrong_import_gave_to_another_goes_to_whom_it_was_refused(
    people, facts
):
    wrong = facts.imported(user_id="u2", anonymous_id="kiosk")
    await people.happens(wrong, facts.track(user_id="u1", anonymous_id="kiosk"))
    assert await people.identifiers("user_id:u1") == {"user_id:u1"}

    await people.happens(facts.retracted(wrong))

    assert await people.identifiers("user_id:u1") == {"user_id:u1", "anonymous_id:kiosk"}


async def test_an_alias_that_is_taken_back_parts_those_it_made_one(people, facts):
    wrong = facts.imported("alias", user_id="new", previous_id="old")
    await people.happens(facts.track(user_id="old"), facts.track(user_id="new"), wrong)

    await people.happens(facts.retracted(wrong))

    assert await people.identifiers("user_id:old") == {"user_id:old"}
    assert await people.identifiers("user_id:new") == {"user_id:new"}


async def test_who_was_named_for_what_is_taken_back_goes_on_by_another_name(people, facts):
    oldest = facts.imported(anonymous_id="a1")
    await people.happens(oldest, facts.track(user_id="u1", anonymous_id="a1"))
    before = await people.profile("user_id:u1")

    told = await people.happens(facts.retracted(oldest))

    found = await people.profile("user_id:u1")
    assert found.name != before.name
    # The browser is still known, and is still hers: its name leads on.
    assert await people.profile(before.name.removeprefix("profiles/")) == found
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileCreated",
        "ProfileIdentifiersChanged",
        "ProfileIdentifiersChanged",
        "ProfilesMerged",
        "ProfileRecounted",
    ]


async def test_a_name_whose_identifier_nobody_knows_any_longer_leads_nowhere(people, facts):
    oldest = facts.imported(user_id="u1", anonymous_id="a1")
    await people.happens(oldest, facts.track(anonymous_id="a1"))
    name = (await people.profile("anonymous_id:a1")).name.removeprefix("profiles/")

    told = await people.happens(facts.retracted(oldest))

    assert await people.identifiers("anonymous_id:a1") == {"anonymous_id:a1"}
    for gone in (name, "user_id:u1"):
        with pytest.raises(NotFound):
            await people.profile(gone)
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileCreated",
        "ProfileIdentifiersChanged",
        "ProfileIdentifiersChanged",
        "ProfileSplit",
        "ProfileRemoved",
        "ProfileRecounted",
    ]


async def test_a_shared_tablet_loses_its_own_facts_beside_people_whom_somebody_linked(
    people, facts
):
    alone = facts.imported(anonymous_id="tablet")
    wrong = facts.imported(user_id="u1")
    await people.happens(
        *(facts.track(user_id=user, anonymous_id="tablet") for user in ("u1", "u2", "u3")),
        facts.linked(("user_id", "u1"), ("user_id", "u2")),
        alone,
        wrong,
    )

    told = await people.happens_at_once(facts.retracted(alone), facts.retracted(wrong))

    assert await people.activities("user_id:u1") == ["Product Viewed", "Product Viewed"]
    assert await people.identifiers("user_id:u1") == {"user_id:u1", "user_id:u2"}
    assert await people.profiles("anonymous_id:tablet") == [None]
    assert [event.DESCRIPTOR.name for event in told] == [
        "ProfileActivityRetracted",
        "ProfileActivityRetracted",
        "ProfileIdentifiersChanged",
        "ProfileRemoved",
        "ProfileRecounted",
    ]


async def test_a_message_that_is_sent_again_after_it_was_taken_back_counts_anew(people, facts):
    wrong = facts.imported("identify", user_id="u1", traits={"plan": "gold"})
    message_id = wrong.event.customer_event.message_id
    again = facts.sent("identify", message_id=message_id, user_id="u2", traits={"plan": "free"})

    await people.happens(wrong, facts.retracted(wrong), again)

    assert await people.traits("user_id:u2") == {"plan": '"free"'}
    with pytest.raises(NotFound):
        await people.profile("user_id:u1")


async def test_only_what_came_with_an_import_can_be_taken_back(people, facts):
    lasting = facts.track(user_id="u1")
    await people.happens(lasting)

    assert await people.happens(facts.retracted(lasting)) == []
    assert await people.activities("user_id:u1") == ["Product Viewed"]


async def test_a_retraction_reaches_no_other_workspace(people, facts):
    wrong = facts.imported(user_id="u1")
    theirs = Facts("other", seed=1)
    same = theirs.imported(user_id="u1", message_id=wrong.event.customer_event.message_id)
    await people.happens(wrong, same)

    await people.happens(theirs.retracted(same))

    assert await people.activities("user_id:u1") == ["Product Viewed"]
    with pytest.raises(NotFound):
        await people.profile("user_id:u1", workspace="other")
