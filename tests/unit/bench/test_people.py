"""The generated world is the same for the same seed, of the promised size, and valid."""

from itertools import islice

from services.contacts.decider import DECIDER as CONTACT
from services.deals.deciders.deal import DECIDER as DEAL
from services.events.schema import refusal_of
from tests.bench.people import Shop, contact_events, deal_events


def test_the_same_seed_makes_the_same_customer_events():
    first, second = Shop("a", visitors=50), Shop("a", visitors=50)

    assert first.customer_events(20) == second.customer_events(20)
    assert first.customer_events(20) != Shop("b", visitors=50).customer_events(20)


def test_customer_events_are_of_a_realistic_size_and_none_is_refused():
    sent = Shop("a", visitors=50).customer_events(500)

    assert 250 <= sum(each.ByteSize() for each in sent) / len(sent) <= 300
    assert {None} == {refusal_of(each) for each in sent}
    assert len({each.message_id for each in sent}) == len(sent)


def test_generated_histories_are_folded_by_the_deciders():
    for decider, events in ((CONTACT, contact_events(40)), (DEAL, deal_events(40))):
        history = [event for _, event in islice(events, 4)]
        assert decider.fold(history) != decider.initial
