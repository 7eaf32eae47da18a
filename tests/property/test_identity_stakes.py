"""What deals make of a person follows from the set of their facts, in any order, more than once."""

from hypothesis import given
from hypothesis import strategies as st

from services.identity.stakes import Standing, computed, stakes
from services.identity.words import word_of
from tests.identity_world import Facts

CONTACTS = ["", "ada", "bob"]
MINUTES = st.integers(0, 6)
AMOUNTS = st.integers(0, 10**15)
CURRENCIES = st.sampled_from(["", "EUR", "USD"])


@st.composite
def deals(draw):
    """The facts of one deal, told in any order of their times."""
    facts = Facts(seed=draw(st.integers(0, 2**32)))
    opened = facts.deal_opened("d1", draw(st.sampled_from(CONTACTS)), occurred=draw(MINUTES))
    kinds = draw(st.lists(st.sampled_from(KINDS), max_size=8))
    return [opened, *(kind(facts, draw, occurred=draw(MINUTES)) for kind in kinds)]


KINDS = [
    lambda facts, draw, **times: facts.deal_won(
        "d1", "", amount_minor=draw(AMOUNTS), currency=draw(CURRENCIES), **times
    ),
    lambda facts, _, **times: facts.deal_lost("d1", "", **times),
    lambda facts, _, **times: facts.deal_reopened("d1", **times),
    lambda facts, _, **times: facts.deal_moved("d1", **times),
    lambda facts, _, **times: facts.deal_deleted("d1", **times),
    lambda facts, _, **times: facts.deal_undeleted("d1", **times),
    lambda facts, draw, **times: facts.deal_contacts_changed(
        "d1", draw(st.sampled_from(CONTACTS)), **times
    ),
]


def heard(events):
    """The words of events as they are kept: each once."""
    return list({word.key: word for event in events if (word := word_of(event))}.values())


@given(deals(), st.randoms(use_true_random=False))
def test_any_order_and_repetition_of_a_deals_facts_gives_the_same_traits(told, rng):
    again = [*told, *rng.choices(told, k=3)]
    rng.shuffle(again)

    ordered, shuffled = stakes(heard(told)), stakes(heard(again))

    assert ordered == shuffled
    assert computed(list(ordered.values())) == computed(list(shuffled.values()))


@given(deals())
def test_a_deal_counts_for_one_contact_at_the_most(told):
    owned = stakes(heard(told)).values()
    counting = [stake for stake in owned if stake.standing is not Standing.NOTHING]

    assert len(counting) <= 1


@given(st.lists(deals(), max_size=5))
def test_value_is_the_exact_sum_of_what_is_won_now(all_deals):
    owned = [stake for told in all_deals for stake in stakes(heard(told)).values()]
    won = [stake.sale for stake in owned if stake.standing is Standing.WON]

    made = computed(owned)

    for currency in ("EUR", "USD"):
        amounts = [sale.amount_minor for sale in won if sale.currency == currency]
        said = made.get(f"lifetime_value_{currency.lower()}_minor")
        assert (said and said.value) == (str(sum(amounts)) if amounts else None)
