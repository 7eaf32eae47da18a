"""What is kept of a fact, and which facts a batch that takes some back still holds."""

import pytest

from services.identity.facts import read_fact
from services.identity.retraction import Kept, said_by, settle
from services.identity.rules import DEFAULT
from tests.identity_world import Facts


def read(event):
    return read_fact(DEFAULT, event, {})


def kept(fact):
    return Kept.of(fact.atom, fact.key, fact.occur_time, said_by(fact))


@pytest.mark.parametrize(
    "event",
    [
        Facts().track(user_id="u1", anonymous_id="a1", properties={"email": "ada@x.com"}),
        Facts().identify(user_id="u1", traits={"plan": "gölden", "age": None, "of": {"a": [1]}}),
        Facts().identify(anonymous_id="a1", traits={"plan": 1.50}),
        Facts().alias(user_id="new", previous_id="old"),
        Facts().contact_created("c1", given_name="Ada", email="ada@x.com", phone="000000"),
        Facts().contact_email_changed("c1", ""),
    ],
    ids=["seen", "said", "decimal", "link", "asserted", "taken back"],
)
def test_a_fact_is_kept_with_all_that_it_said(event):
    fact = read(event)

    assert list(kept(fact).edges()) == list(fact.edges())
    assert kept(fact).traits == fact.traits
    assert dict(kept(fact).asserted) == (fact.asserted or {})


def test_a_fact_that_said_nothing_but_what_was_done_takes_no_room():
    assert said_by(read(Facts().track(user_id="u1"))) is None


def test_a_batch_that_takes_nothing_back_is_as_it_is():
    facts = Facts()
    events = [facts.track(user_id="u1"), facts.contact_created("c1")]

    assert settle(events) == (events, {})


def test_what_a_batch_itself_takes_back_is_not_in_it():
    facts = Facts()
    wrong, right = facts.imported(user_id="u1"), facts.imported(user_id="u2")
    retracted = facts.retracted(wrong)
    message_id = wrong.event.customer_event.message_id

    still_true, retractions = settle([wrong, right, retracted])

    assert wrong not in still_true
    assert right in still_true
    assert retractions == {("acme", message_id): retracted}


def test_what_is_recorded_behind_its_retraction_is_a_new_fact():
    facts = Facts()
    wrong = facts.imported(user_id="u1")
    message_id = wrong.event.customer_event.message_id
    again = facts.imported(user_id="u1", message_id=message_id)
    other = Facts("other").imported(user_id="u1", message_id=message_id)

    still_true, _ = settle([wrong, other, facts.retracted(wrong), again])

    assert wrong not in still_true
    assert again in still_true
    assert other in still_true


def test_what_came_with_no_import_is_not_taken_back():
    facts = Facts()
    lasting = facts.track(user_id="u1")

    still_true, _ = settle([lasting, facts.retracted(lasting)])

    assert lasting in still_true
