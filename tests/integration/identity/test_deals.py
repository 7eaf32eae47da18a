"""What deals make of the person they are made with, as the view keeps it and tells it."""

import json

import pytest

from rapport.deals.v1.events_pb2 import DealRenamed
from rapport.identity.v1.events_pb2 import ProfileTraitsChanged
from tests.identity_world import Facts, at


@pytest.fixture
def facts():
    return Facts()


async def deals_of(people, name):
    """What is computed of somebody's deals, without what there is none of."""
    traits = {trait: json.loads(value) for trait, value in (await people.traits(name)).items()}
    names = ("open_deal_count", "won_deal_count", "lost_deal_count", "lifetime_value_eur_minor")
    return {trait: traits[trait] for trait in names if traits.get(trait)}


def told_traits(events):
    """The traits that were told, each with its last value and when that became so."""
    return {
        change.trait: (change.value, change.occur_time.ToDatetime(tzinfo=at(0).tzinfo))
        for event in events
        if isinstance(event, ProfileTraitsChanged)
        for change in event.changes
    }


def won(facts, deal, contact, amount_minor, **times):
    return facts.deal_won(deal, contact, amount_minor=amount_minor, currency="EUR", **times)


async def test_a_won_deal_shows_on_the_profile_and_a_reopened_one_does_no_longer(people, facts):
    await people.happens(facts.contact_created("ada"), facts.deal_opened("d1", "ada", occurred=2))
    told_won = await people.happens(won(facts, "d1", "ada", 99900, occurred=3))
    after_win = await deals_of(people, "contact_id:ada")
    told_reopened = await people.happens(facts.deal_reopened("d1", occurred=4))

    assert after_win == {"won_deal_count": 1, "lifetime_value_eur_minor": 99900}
    assert await deals_of(people, "contact_id:ada") == {"open_deal_count": 1}
    assert told_traits(told_won)["lifetime_value_eur_minor"] == ("99900", at(3))
    assert told_traits(told_reopened)["lifetime_value_eur_minor"] == ("", at(4))
    assert told_traits(told_reopened)["won_deal_count"] == ("0", at(4))


async def test_a_fact_that_changes_no_trait_tells_an_activity_alone(people, facts):
    await people.happens(facts.deal_opened("d1", "ada"), won(facts, "d1", "ada", 7))
    told = await people.happens(facts.deal_moved("d1", "won"))

    assert [event.DESCRIPTOR.name for event in told] == ["ProfileActivityRecorded"]


async def test_profiles_are_listed_by_what_was_won(people, facts):
    await people.happens(
        facts.deal_opened("d1", "ada"),
        won(facts, "d1", "ada", 99900),
        facts.deal_opened("d2", "bob"),
    )

    rich = await people.listed(filter="traits.lifetime_value_eur_minor >= 99900")
    none_yet = await people.listed(filter="traits.won_deal_count = 0")

    assert [each.name for each in rich.profiles] == [(await people.profile("contact_id:ada")).name]
    assert [each.name for each in none_yet.profiles] == [
        (await people.profile("contact_id:bob")).name
    ]


async def test_a_deal_that_goes_to_another_contact_counts_there_and_what_was_before_stays(
    people, facts
):
    await people.happens(facts.deal_opened("d1", "ada", occurred=1), won(facts, "d1", "ada", 7))
    told = await people.happens(facts.deal_contacts_changed("d1", "bob", "ada"))
    await people.happens(facts.deal_reopened("d1"))

    assert await deals_of(people, "contact_id:ada") == {}
    assert await deals_of(people, "contact_id:bob") == {"open_deal_count": 1}
    assert await people.activities("contact_id:ada") == ["Deal Won", "Deal Opened"]
    assert await people.activities("contact_id:bob") == ["Deal Reopened", "Deal Contacts Changed"]
    changed = [event.profile for event in told if isinstance(event, ProfileTraitsChanged)]
    assert set(changed) == {
        (await people.profile("contact_id:ada")).name,
        (await people.profile("contact_id:bob")).name,
    }


async def test_a_deal_that_loses_its_contact_counts_for_nobody(people, facts):
    await people.happens(facts.deal_opened("d1", "ada"), facts.deal_contacts_changed("d1"))
    await people.happens(won(facts, "d1", "", 7))

    assert await deals_of(people, "contact_id:ada") == {}
    assert await people.activities("contact_id:ada") == ["Deal Contacts Changed", "Deal Opened"]


async def test_a_deleted_deal_does_not_count_until_it_is_undeleted(people, facts):
    await people.happens(facts.deal_opened("d1", "ada"), won(facts, "d1", "ada", 7))
    await people.happens(facts.deal_deleted("d1"))
    deleted = await deals_of(people, "contact_id:ada")
    await people.happens(facts.deal_undeleted("d1"))

    assert deleted == {}
    assert await deals_of(people, "contact_id:ada") == {
        "won_deal_count": 1,
        "lifetime_value_eur_minor": 7,
    }


async def test_deals_come_along_when_profiles_merge_and_go_when_they_part(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"email": "ada@x.com"}),
        facts.contact_created("ada"),
        facts.deal_opened("d1", "ada"),
        won(facts, "d1", "ada", 7),
    )
    apart = await deals_of(people, "user_id:u1")
    merged = await people.happens(facts.contact_email_changed("ada", "ada@x.com"))
    together = await deals_of(people, "user_id:u1")
    parted = await people.happens(facts.contact_email_changed("ada", ""))

    assert apart == await deals_of(people, "user_id:u1") == {}
    assert together == {"won_deal_count": 1, "lifetime_value_eur_minor": 7}
    assert together == await deals_of(people, "contact_id:ada")
    assert told_traits(merged)["won_deal_count"][0] == "1"
    assert told_traits(parted)["won_deal_count"][0] == "1"


async def test_a_retraction_that_parts_a_contact_from_a_user_takes_the_deals_along(people, facts):
    imported = facts.imported("identify", user_id="u1", traits={"email": "ada@x.com"})
    await people.happens(
        facts.track(user_id="u1"),
        facts.contact_created("ada", email="ada@x.com"),
        facts.deal_opened("d1", "ada"),
        won(facts, "d1", "ada", 7),
        imported,
    )
    together = await deals_of(people, "user_id:u1")
    await people.happens(facts.retracted(imported))

    assert together == {"won_deal_count": 1, "lifetime_value_eur_minor": 7}
    assert await deals_of(people, "user_id:u1") == {}
    assert await deals_of(people, "contact_id:ada") == together


async def test_the_timeline_has_facts_that_were_told_late_where_they_occurred(people, facts):
    await people.happens(
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_moved("d1", occurred=2),
        facts.deal("d1", DealRenamed(display_name="Lamps"), occurred=9),
        won(facts, "d1", "ada", 7, occurred=5),
    )
    page = await people.timeline("contact_id:ada")

    assert [
        (entry.activity, entry.occur_time.ToDatetime(tzinfo=at(0).tzinfo)) for entry in page.entries
    ] == [
        ("Deal Renamed", at(9)),
        ("Deal Won", at(5)),
        ("Deal Stage Changed", at(2)),
        ("Deal Opened", at(1)),
    ]
    assert json.loads(page.entries[1].details)["closingStage"] == "won"
    assert {entry.resource for entry in page.entries} == {"deals/d1"}
