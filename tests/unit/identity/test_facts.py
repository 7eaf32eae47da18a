"""What each event says about a person, and what it does not."""

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from rapport.deals.v1 import events_pb2 as deals_events
from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import (
    CustomerEventQuarantined,
    QuarantinedEventDiscarded,
    SourceDisabled,
)
from services.identity.facts import deal_of, key_of, read_fact, received_at
from services.identity.rules import DEFAULT
from services.identity.sent_ids import EXTERNAL_IDS_MAX
from tests.identity_world import Facts, at


def seen(fact):
    """The identifiers of a fact, the strongest first."""
    return [(known.type, known.value) for known in fact.identifiers]


def read(event, contacts=None):
    return read_fact(DEFAULT, event, contacts or {})


def test_a_key_sorts_by_the_time_of_receipt_then_by_the_event_id():
    early, late = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    low, high = UUID(int=1), UUID(int=2**128 - 1)

    keys = [key_of(early, low), key_of(early, high), key_of(late, low)]

    assert keys == sorted(keys)
    assert received_at(keys[2]) == late


def test_a_customer_event_carries_its_identifiers_wherever_sources_put_them():
    fact = read(
        Facts().identify(
            user_id="u1",
            anonymous_id="a1",
            traits={"email": "A@x.com", "phone": 4930123456},
            context={"traits": {"email": "b@x.com"}},
            properties={"email": "c@x.com"},
        )
    )

    assert seen(fact)[0] == ("user_id", "u1")
    assert set(seen(fact)) == {
        ("user_id", "u1"),
        ("anonymous_id", "a1"),
        ("email", "a@x.com"),
        ("email", "b@x.com"),
        ("email", "c@x.com"),
        ("phone", "4930123456"),
    }


def external(given, type_name="loyalty_id", collection="users", encoding="none"):
    return {"id": given, "type": type_name, "collection": collection, "encoding": encoding}


def test_a_context_carries_the_device_and_ids_that_other_systems_gave():
    context = {
        "device": {"id": "d1", "type": "ios"},
        "externalIds": [
            external("l1"),
            external(17, "Braze_ID"),
            external("a@x.com", "email"),
            # An account's, the CRM's, and three that lack something.
            external("l2", collection="accounts"),
            external("c1", "contact_id"),
            external("l3", encoding="md5"),
            external(True),
            {"id": "l4", "type": "loyalty_id"},
            "l5",
        ],
    }
    fact = read(Facts().track(user_id="u1", context=context))

    assert seen(fact)[0] == ("user_id", "u1")
    assert set(seen(fact)) == {
        ("user_id", "u1"),
        ("loyalty_id", "l1"),
        ("braze_id", "17"),
        ("email", "a@x.com"),
        ("device_id", "d1"),
    }


@pytest.mark.parametrize("listed", ["{}", "7", "[", '["a"]', "null"])
def test_external_ids_that_are_none_are_passed_by(listed):
    fact = read(Facts().track(user_id="u1", context=f'{{"externalIds": {listed}}}'))

    assert seen(fact) == [("user_id", "u1")]


def test_only_so_many_external_ids_of_an_event_are_read():
    listed = [external(f"l{n}") for n in range(EXTERNAL_IDS_MAX + 1)]
    fact = read(Facts().track(context={"externalIds": listed}))

    assert len(fact.identifiers) == EXTERNAL_IDS_MAX


def test_what_a_group_is_like_says_nothing_of_the_person():
    event = Facts().sent("group", user_id="u1", group_id="g", traits={"email": "info@g.com"})
    fact = read(event)

    assert seen(fact) == [("user_id", "u1")]
    assert fact.traits == ()
    assert fact.activity.name == "Group Joined"


def test_who_leaves_a_group_does_not_join_it():
    facts = Facts()
    left = read(facts.sent("group", user_id="u1", group_id="g", ends_membership=True))
    strange = read(facts.sent("track", name="Viewed", user_id="u1", ends_membership=True))

    assert left.activity.name == "Group Left"
    assert strange.activity.name == "Viewed"


def test_what_is_known_of_an_account_says_nothing_of_who_told_it():
    fact = read(
        Facts().sent(
            "account",
            user_id="u1",
            group_id="g",
            traits={"email": "info@g.com", "size": 7},
            properties={"email": "info@g.com"},
            context={"traits": {"email": "info@g.com"}},
        )
    )

    assert seen(fact) == [("user_id", "u1")]
    assert fact.traits == ()
    assert fact.activity.name == "Account Described"
    assert json.loads(fact.activity.details) == {"email": "info@g.com", "size": 7}


def test_an_account_that_nobody_tells_of_is_about_nobody():
    event = Facts().sent("account", group_id="g", properties={"email": "info@g.com"})

    assert read(event) is None


@pytest.mark.parametrize(
    "event",
    [
        CustomerEventQuarantined(customer_event=CustomerEvent(message_id="m", user_id="u1")),
        QuarantinedEventDiscarded(comment="spam"),
        SourceDisabled(),
    ],
)
def test_what_waits_in_quarantine_is_about_nobody(event):
    assert read(Facts().event("message-m", event)) is None


def test_only_identify_says_traits():
    facts = Facts()
    tracked = read(facts.track(user_id="u1", context={"traits": {"plan": "gold"}}))
    identified = read(
        facts.identify(
            user_id="u1", context={"traits": {"plan": "old", "age": 7}}, traits={"plan": None}
        )
    )

    assert tracked.traits == ()
    assert identified.traits == (("age", "7"), ("plan", None))


def test_an_event_without_a_live_identifier_is_about_nobody():
    assert read(Facts().track(user_id="null", anonymous_id="undefined")) is None


def test_the_earlier_id_of_an_alias_is_taken_for_a_persons_and_for_a_browsers():
    fact = read(Facts().alias(user_id="new", previous_id="old"))

    assert set(seen(fact)) == {("user_id", "new"), ("user_id", "old"), ("anonymous_id", "old")}
    [(weak, strong)] = fact.links
    assert strong == fact.atom
    assert {weak, strong} == {k.node for k in fact.identifiers if k.type == "user_id"}


@pytest.mark.parametrize("previous_id", ["new", "null"])
def test_an_alias_of_nothing_links_nothing(previous_id):
    assert read(Facts().alias(user_id="new", previous_id=previous_id)).links == frozenset()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("track", "Order Completed"),
        ("identify", "Person Identified"),
        ("page", "Page Viewed"),
        ("screen", "Screen Viewed"),
        ("alias", "Ids Aliased"),
    ],
)
def test_an_activity_has_a_readable_name(kind, name):
    event = Facts().sent(kind, name="Order Completed", user_id="u1", previous_id="u2")

    assert read(event).activity.name == name


def test_the_time_of_receipt_is_the_platforms_and_the_time_of_the_deed_the_sources():
    fact = read(Facts().track(user_id="u1", received=9, occurred=4))

    assert received_at(fact.key) == at(9)
    assert fact.occur_time == at(4)


def test_ill_json_is_no_reason_to_stop():
    fact = read(Facts().identify(user_id="u1", traits='{"plan":', context="[]", properties="x"))

    assert seen(fact) == [("user_id", "u1")]
    assert fact.traits == ()


def test_a_contact_says_what_its_slots_hold():
    facts = Facts()
    created = read(
        facts.contact_created(
            "c1", given_name="Ada", email="Ada@x.com", custom_fields={"tier": "1"}
        )
    )
    archived = read(facts.contact_archived("c1"))

    assert seen(created) == [("contact_id", "c1")]
    assert created.asserted["email"].value == "ada@x.com"
    assert created.asserted["phone"] is None
    assert created.traits == (("email", '"Ada@x.com"'), ("given_name", '"Ada"'), ("tier", '"1"'))
    assert archived.asserted == {"email": None, "phone": None}
    assert archived.traits == ()


def test_a_custom_field_does_not_hide_a_field_of_the_contact():
    fact = read(
        Facts().contact_created("c1", email="ada@x.com", custom_fields={"email": "not this"})
    )

    assert fact.traits == (("email", '"ada@x.com"'),)


def test_an_emptied_field_takes_the_trait_back():
    facts = Facts()

    assert read(facts.contact_email_changed("c1", "")).traits == (("email", None),)
    assert read(facts.contact_renamed("c1", given_name="Ada")).traits == (
        ("family_name", None),
        ("given_name", '"Ada"'),
    )


def test_a_name_of_what_is_computed_is_not_for_others_to_say():
    said = {"won_deal_count": 9, "lifetime_value_eur_minor": 1, "lifetime_value": 2}
    fact = read(Facts().identify(user_id="u1", traits=said))
    of_contact = read(Facts().contact_created("c1", custom_fields={"deal_stages": "x"}))

    assert fact.traits == (("lifetime_value", "2"),)
    assert of_contact.traits == ()


def test_a_deal_without_a_contact_is_about_nobody():
    assert read(Facts().deal_opened("d1", "")) is None


def test_a_fact_of_a_deal_is_about_its_contact_and_says_when_it_occurred():
    moved = Facts().deal_moved("d1", received=9, occurred=4)
    fact = read(moved, {moved.event_id: "c1"})

    assert deal_of(moved) == ("acme", "d1")
    assert seen(fact) == [("contact_id", "c1")]
    assert fact.activity.name == "Deal Stage Changed"
    assert fact.activity.resource == "deals/d1"
    assert fact.occur_time == at(4)
    assert received_at(fact.key) == at(9)


@pytest.mark.parametrize(
    ("change", "activity"),
    [
        (deals_events.DealMovedToPipeline, "Deal Moved To Pipeline"),
        (deals_events.DealWon, "Deal Won"),
        (deals_events.DealReopened, "Deal Reopened"),
        (deals_events.DealContactsChanged, "Deal Contacts Changed"),
        (deals_events.DealAmountChanged, "Deal Amount Changed"),
        (deals_events.DealProbabilityOverridden, "Deal Probability Overridden"),
        (deals_events.DealUndeleted, "Deal Undeleted"),
    ],
)
def test_every_fact_of_a_deal_is_an_activity_of_its_contact(change, activity):
    event = Facts().deal("d1", change())

    assert read(event, {event.event_id: "c1"}).activity.name == activity


@pytest.mark.parametrize("change", [deals_events.PipelineCreated, deals_events.ExchangeRateSet])
def test_what_is_no_fact_of_a_deal_is_about_nobody(change):
    event = Facts().event("pipeline-sales", change())

    assert deal_of(event) is None
    assert read(event, {event.event_id: "c1"}) is None
