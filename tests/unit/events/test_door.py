"""A door asks what a workspace decided: may it come, who is sampled, what is changed and judged."""

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType, Violation
from services.events.door import (
    MILLION,
    Admitted,
    Door,
    Judgement,
    SampledOut,
    Verdict,
    admit,
    is_sampled,
    readmit,
)
from services.events.schema import Reason, Refusal

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
VIOLATION = Violation(rule="required", path="/properties/total", detail="is missing")


def sent(**changes):
    return CustomerEvent(**{"type": TRACK, "name": "Order Completed", "user_id": "u-1"} | changes)


class Judges:
    """A plan with one verdict; it leaves `secret` out."""

    def __init__(self, verdict):
        self.verdict = verdict

    def judge(self, opened):
        if "secret" in opened.properties:
            del opened.properties["secret"]
            opened.changed.add("properties")
        return Judgement(self.verdict, [VIOLATION])


class Sets:
    """Transformations that set fields of the customer event, hash the email, or refuse."""

    def __init__(self, refusal=None, **fields):
        self.refusal = refusal
        self.fields = fields

    def apply(self, opened):
        for name, value in self.fields.items():
            setattr(opened.event, name, value)
        if "email" in opened.traits:
            opened.traits["email"] = "hashed"
            opened.changed.add("traits")
        return self.refusal


def test_an_open_door_lets_everything_in_as_it_is():
    event = sent(properties='{"a": 1.10}')

    found = admit(Door(), event)

    assert isinstance(found, Admitted)
    assert (None, ()) == (found.quarantine, found.carried)
    assert '{"a": 1.10}' == found.opened.event.properties


def test_what_breaks_the_rules_for_all_is_refused_before_the_door_is_asked():
    assert Reason.NO_IDENTIFIER == admit(Door(plan=Judges(Verdict.LET_IN)), sent(user_id="")).reason


def test_only_allowed_types_come_in():
    door = Door(source="sources/shop", allowed_types=frozenset({PAGE}))

    assert isinstance(admit(door, sent(type=PAGE)), Admitted)
    refusal = admit(door, sent())
    assert Reason.TYPE_NOT_ALLOWED == refusal.reason
    assert "sources/shop" in refusal.detail


def test_a_sample_is_the_share_asked_for_and_the_same_people_for_ever():
    door = Door(source="sources/shop", sampled_millionths=MILLION // 4)
    people = [f"u-{number}" for number in range(4_000)]

    sampled = {person for person in people if is_sampled(door, sent(user_id=person))}

    assert 900 < len(sampled) < 1_100
    assert sampled == {person for person in people if is_sampled(door, sent(user_id=person))}
    # Chosen by no process: whoever changes how people are chosen changes who was chosen.
    assert "u-100" in sampled
    assert "u-0" not in sampled
    assert isinstance(admit(door, sent(user_id="u-0")), SampledOut)


def test_a_larger_sample_holds_all_of_the_smaller():
    small, large = (Door(source="s", sampled_millionths=n) for n in (100_000, 300_000))
    people = [sent(user_id=f"u-{number}") for number in range(2_000)]

    assert all(is_sampled(large, each) for each in people if is_sampled(small, each))


def test_a_browser_is_in_the_sample_or_not_whoever_logs_in():
    door = Door(source="sources/shop", sampled_millionths=MILLION // 2)

    for number in range(200):
        known, unknown = (
            sent(anonymous_id=f"a-{number}", user_id=user) for user in (f"u-{number}", "")
        )
        assert is_sampled(door, known) == is_sampled(door, unknown)


@pytest.mark.parametrize("millionths", [1, MILLION])
def test_the_ends_of_the_scale_sample_nobody_and_everybody(millionths):
    door = Door(source="s", sampled_millionths=millionths)
    sampled = [is_sampled(door, sent(user_id=f"u-{number}")) for number in range(1_000)]

    assert {millionths == MILLION} == set(sampled)


@pytest.mark.parametrize(
    ("verdict", "quarantine"),
    [(Verdict.LET_IN, None), (Verdict.QUARANTINE, Reason.PLAN_VIOLATED)],
)
def test_a_plan_lets_in_or_quarantines_and_says_what_is_wrong(verdict, quarantine):
    found = admit(Door(plan=Judges(verdict)), sent(properties='{"secret":1,"a":2}'))

    assert isinstance(found, Admitted)
    assert quarantine == (found.quarantine and found.quarantine.reason)
    assert [VIOLATION] == list(found.opened.event.violations)
    assert '{"a":2}' == found.opened.event.properties


def test_a_plan_may_refuse():
    refusal = admit(Door(plan=Judges(Verdict.REFUSE)), sent())

    assert (Reason.PLAN_VIOLATED, "/properties/total: is missing (required)") == (
        refusal.reason,
        refusal.detail,
    )


def test_what_transformations_make_must_still_be_a_customer_event():
    dropped = Refusal(Reason.DROPPED, "bots are not wanted")

    assert dropped == admit(Door(transformations=Sets(refusal=dropped)), sent())
    assert Reason.NO_NAME == admit(Door(transformations=Sets(name="")), sent()).reason
    renamed = admit(Door(transformations=Sets(name="Paid")), sent())
    assert "Paid" == renamed.opened.event.name


def test_who_came_is_known_before_and_after_transformations():
    door = Door(transformations=Sets(user_id="u-2"), has_suppressions=True)

    found = admit(door, sent(traits='{"email":"ada@x.org"}'))

    expected = {("user_id", "u-1"), ("user_id", "u-2"), ("email", "ada@x.org"), ("email", "hashed")}
    assert expected <= set(found.carried)


def test_what_was_let_in_once_is_judged_again_but_not_turned_away():
    closed = Door(
        source="s", allowed_types=frozenset({PAGE}), sampled_millionths=1, is_disabled=True
    )

    assert isinstance(readmit(closed, sent()), Admitted)
    assert Reason.PLAN_VIOLATED == readmit(Door(plan=Judges(Verdict.REFUSE)), sent()).reason
    kept = readmit(Door(plan=Judges(Verdict.QUARANTINE)), sent())
    assert Reason.PLAN_VIOLATED == kept.quarantine.reason
