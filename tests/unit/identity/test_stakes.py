"""What deals are to those they are made with: counts, stages and what was won, with since when."""

import json

import pytest

from services.identity.identifiers import node_of
from services.identity.rules import CONTACT_ID
from services.identity.stakes import computed, stakes
from services.identity.words import contact_at, word_of
from tests.identity_world import Facts, at


@pytest.fixture
def facts():
    return Facts()


def words(*events):
    return [word for event in events if (word := word_of(event)) is not None]


def traits(*events, contact="ada"):
    """The traits that the deals of events make of a contact: value and minute it was said."""
    deals = {}
    for event in events:
        deals.setdefault(event.stream, []).append(event)
    node = node_of("acme", CONTACT_ID, contact)
    found = [stakes(words(*deal)) for deal in deals.values()]
    made = computed([owned[node] for owned in found if node in owned])
    return {
        name: (
            None if said.value is None else json.loads(said.value),
            (said.occur_time - at(0)).total_seconds() // 60,
        )
        for name, said in made.items()
    }


def test_who_never_had_a_deal_has_no_trait_of_deals(facts):
    assert traits(facts.deal_opened("d1", "bob")) == {}


def test_an_open_deal_is_counted_and_counts_of_others_begin_with_0(facts):
    opened = facts.deal_opened("d1", "ada", occurred=3)

    assert traits(opened) == {
        "open_deal_count": (1, 3),
        "won_deal_count": (0, 3),
        "lost_deal_count": (0, 3),
        "deal_stages": (["open"], 3),
    }


def test_what_was_won_is_told_as_of_when_it_was_won(facts):
    opened = facts.deal_opened("d1", "ada", occurred=3)
    won = facts.deal_won("d1", "ada", amount_minor=99900, currency="EUR", received=9, occurred=5)

    assert traits(opened, won) == {
        "open_deal_count": (0, 5),
        "won_deal_count": (1, 5),
        "lost_deal_count": (0, 3),
        "deal_stages": (["won"], 5),
        "lifetime_value_eur_minor": (99900, 5),
        "last_won_time": ("2026-01-01T00:05:00.000000Z", 5),
    }


def test_value_is_summed_per_currency_exactly_and_never_converted(facts):
    events = []
    for deal, amount_minor, currency in [
        ("d1", 10**15, "EUR"),
        ("d2", 1, "EUR"),
        ("d3", 7, "USD"),
        ("d4", 0, ""),
    ]:
        events.append(facts.deal_opened(deal, "ada", occurred=1))
        won = facts.deal_won(deal, "ada", amount_minor=amount_minor, currency=currency, occurred=2)
        events.append(won)

    found = traits(*events)

    assert found["lifetime_value_eur_minor"] == (10**15 + 1, 2)
    assert found["lifetime_value_usd_minor"] == (7, 2)
    assert found["won_deal_count"] == (4, 2)


def test_a_reopened_deal_takes_its_win_back(facts):
    found = traits(
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_won("d1", "ada", amount_minor=7, currency="EUR", occurred=2),
        facts.deal_reopened("d1", occurred=4),
    )

    assert found["won_deal_count"] == (0, 4)
    assert found["open_deal_count"] == (1, 4)
    assert found["lifetime_value_eur_minor"] == (None, 4)
    assert found["last_won_time"] == (None, 4)


def test_of_two_wins_the_one_that_stays_is_the_last(facts):
    found = traits(
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_won("d1", "ada", amount_minor=7, currency="EUR", occurred=2),
        facts.deal_opened("d2", "ada", occurred=1),
        facts.deal_won("d2", "ada", amount_minor=8, currency="EUR", occurred=3),
        facts.deal_reopened("d2", occurred=6),
    )

    assert found["lifetime_value_eur_minor"] == (7, 6)
    assert found["last_won_time"] == ("2026-01-01T00:02:00.000000Z", 6)


def test_a_deal_that_is_told_to_be_won_twice_is_worth_what_the_later_word_says(facts):
    opened = facts.deal_opened("d1", "ada", occurred=1)
    first = facts.deal_won("d1", "ada", amount_minor=5, currency="EUR", received=2, occurred=2)
    second = facts.deal_won("d1", "ada", amount_minor=7, currency="EUR", received=3, occurred=3)

    made = traits(opened, first, second)

    assert (7, 2) == made["lifetime_value_eur_minor"]
    assert (1, 2) == made["won_deal_count"]


def test_products_are_owned_once_and_as_long_as_a_deal_that_sold_them_is_won(facts):
    history = [
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_won("d1", "ada", products=["products/loom", "products/desk"], occurred=2),
        facts.deal_opened("d2", "ada", occurred=1),
        facts.deal_won("d2", "ada", products=["products/loom"], occurred=3),
        facts.deal_reopened("d1", occurred=4),
        facts.deal_deleted("d2", occurred=5),
    ]

    assert traits(*history[:4])["products_owned"] == (["products/desk", "products/loom"], 3)
    assert traits(*history[:5])["products_owned"] == (["products/loom"], 4)
    assert traits(*history)["products_owned"] == (None, 5)


def test_a_lost_deal_is_counted_as_lost(facts):
    found = traits(
        facts.deal_opened("d1", "ada", occurred=1), facts.deal_lost("d1", "ada", occurred=2)
    )

    assert found["lost_deal_count"] == (1, 2)
    assert found["open_deal_count"] == (0, 2)
    assert "last_won_time" not in found


def test_a_deleted_deal_counts_as_nothing_until_it_is_undeleted(facts):
    history = [
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_won("d1", "ada", amount_minor=7, currency="EUR", occurred=2),
        facts.deal_deleted("d1", occurred=3),
        facts.deal_undeleted("d1", occurred=5),
    ]

    deleted, restored = traits(*history[:3]), traits(*history)

    assert deleted["won_deal_count"] == (0, 3)
    assert deleted["lifetime_value_eur_minor"] == (None, 3)
    assert deleted["deal_stages"] == (None, 3)
    assert restored["won_deal_count"] == (1, 5)
    assert restored["lifetime_value_eur_minor"] == (7, 5)
    assert restored["last_won_time"] == ("2026-01-01T00:02:00.000000Z", 5)


def test_a_deal_counts_once_for_whoever_is_its_primary_contact_now(facts):
    history = [
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_won("d1", "ada", amount_minor=7, currency="EUR", occurred=2),
        facts.deal_contacts_changed("d1", "bob", "ada", occurred=4),
    ]

    ada, bob = traits(*history), traits(*history, contact="bob")

    assert ada["won_deal_count"] == (0, 4)
    assert ada["lifetime_value_eur_minor"] == (None, 4)
    assert bob["won_deal_count"] == (1, 4)
    assert bob["lifetime_value_eur_minor"] == (7, 4)
    assert bob["last_won_time"] == ("2026-01-01T00:02:00.000000Z", 4)


def test_a_win_told_after_another_contact_was_counts_for_that_one(facts):
    history = [
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_contacts_changed("d1", "bob", occurred=4),
        facts.deal_won("d1", "bob", amount_minor=7, currency="EUR", occurred=2),
    ]

    assert traits(*history)["won_deal_count"] == (0, 4)
    assert traits(*history, contact="bob")["won_deal_count"] == (1, 4)


def test_stages_of_all_deals_are_told_each_once(facts):
    found = traits(
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_moved("d1", "b", occurred=3),
        facts.deal_opened("d2", "ada", occurred=1),
        facts.deal_moved("d2", "a", occurred=2),
        facts.deal_opened("d3", "ada", occurred=1),
        facts.deal_moved("d3", "a", occurred=1),
    )

    assert found["deal_stages"] == (["a", "b"], 3)


def test_the_order_of_the_stream_wins_over_a_clock_that_was_behind(facts):
    found = traits(
        facts.deal_opened("d1", "ada", occurred=1),
        facts.deal_deleted("d1", occurred=9),
        facts.deal_undeleted("d1", occurred=8),
    )

    assert found["open_deal_count"] == (1, 9)


def test_a_fact_is_about_the_contact_the_deal_had_when_it_was_told(facts):
    opened = facts.deal_opened("d1", "ada")
    early = facts.deal_moved("d1")
    changed = facts.deal_contacts_changed("d1", "bob", "ada")
    late = facts.deal_moved("d1", occurred=0)
    told = words(opened, early, changed, late)
    opened_at, early_at, changed_at, late_at = (word.place for word in told)

    assert contact_at(told, opened_at) == "ada"
    assert contact_at(told, early_at) == "ada"
    assert contact_at(told, changed_at) == "bob"
    assert contact_at(told, late_at) == "bob"


def test_the_fact_that_takes_the_contact_away_is_the_last_about_that_contact(facts):
    opened = facts.deal_opened("d1", "ada")
    changed = facts.deal_contacts_changed("d1")
    after = facts.deal_moved("d1")
    told = words(opened, changed, after)

    assert contact_at(told, told[1].place) == "ada"
    assert contact_at(told, told[2].place) == ""
    assert traits(opened, changed)["open_deal_count"][0] == 0
