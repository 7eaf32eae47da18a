"""Each customer event that breaks a rule is refused with that rule's reason, and no other is."""

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from services.events import schema
from services.events.schema import Reason, made_up_message_id, refusal_of

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
IDENTIFY = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
SCREEN = CustomerEventType.CUSTOMER_EVENT_TYPE_SCREEN
GROUP = CustomerEventType.CUSTOMER_EVENT_TYPE_GROUP
ALIAS = CustomerEventType.CUSTOMER_EVENT_TYPE_ALIAS
ACCOUNT = CustomerEventType.CUSTOMER_EVENT_TYPE_ACCOUNT

FIRST_SECOND = -62_135_596_800  # 0001-01-01T00:00:00Z
LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z


def sent(**changes) -> CustomerEvent:
    fields = {"message_id": "m-1", "type": TRACK, "name": "Order Completed", "user_id": "u-1"}
    return CustomerEvent(**fields | changes)


def reason_of(customer_event):
    refusal = refusal_of(customer_event)
    return refusal and refusal.reason


def of_size(size):
    """A customer event of exactly so many bytes."""
    customer_event = sent(properties='{"a":""}')
    filler = "x" * (size - customer_event.ByteSize() - 4)
    customer_event.properties = f'{{"a":"{filler}"}}'
    customer_event.properties = f'{{"a":"{filler}{"x" * (size - customer_event.ByteSize())}"}}'
    return customer_event


def nested(depth):
    return '{"a":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"


@pytest.mark.parametrize(
    "customer_event",
    [
        sent(),
        sent(user_id="", anonymous_id="a-1"),
        sent(type=IDENTIFY, name="", traits='{"email":"ada@example.org"}'),
        sent(type=PAGE, name=""),
        sent(type=SCREEN, name=""),
        sent(type=GROUP, name="", group_id="acme"),
        sent(type=GROUP, name="", group_id="acme", ends_membership=True),
        sent(type=ACCOUNT, name="", user_id="", group_id="acme", traits='{"plan":"gold"}'),
        sent(type=ACCOUNT, name="", group_id="acme"),
        sent(type=ALIAS, name="", previous_id="a-1"),
        sent(message_id=""),
        sent(name="注文 完了 🎉", user_id="Ünïcode", properties='{"emoji":"\\ud83c\\udf89"}'),
        sent(properties=' {"a": null, "b": [1, 2.5e3, true]} ', context="{}"),
    ],
)
def test_what_breaks_no_rule_is_recorded(customer_event):
    assert reason_of(customer_event) is None


@pytest.mark.parametrize(
    ("fits", "does_not", "reason"),
    [
        (sent(message_id="é" * 100), sent(message_id="é" * 101), Reason.MESSAGE_ID_TOO_LONG),
        (sent(name="é" * 500), sent(name="é" * 501), Reason.NAME_TOO_LONG),
        (sent(user_id="é" * 255), sent(user_id="é" * 256), Reason.IDENTIFIER_TOO_LONG),
        (sent(anonymous_id="é" * 255), sent(anonymous_id="é" * 256), Reason.IDENTIFIER_TOO_LONG),
        (sent(previous_id="é" * 255), sent(previous_id="é" * 256), Reason.IDENTIFIER_TOO_LONG),
        (sent(group_id="é" * 255), sent(group_id="é" * 256), Reason.IDENTIFIER_TOO_LONG),
        (of_size(32 * 1024), of_size(32 * 1024 + 1), Reason.EVENT_TOO_LARGE),
        (sent(properties=nested(64)), sent(properties=nested(65)), Reason.JSON_TOO_DEEP),
        (sent(traits=nested(64)), sent(traits=nested(65)), Reason.JSON_TOO_DEEP),
        (sent(context=nested(64)), sent(context=nested(65)), Reason.JSON_TOO_DEEP),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_limit_is_met_but_not_passed(fits, does_not, reason):
    assert reason_of(fits) is None
    assert reason == reason_of(does_not)


def test_many_objects_side_by_side_are_not_deep():
    side_by_side = ",".join('{"a":{}}' for _ in range(100))

    assert reason_of(sent(properties=f'{{"a":[{side_by_side}]}}')) is None


@pytest.mark.parametrize("number", [0, 8, -1, 1000])
def test_a_type_that_nobody_knows_is_refused(number):
    assert reason_of(sent(type=number)) is Reason.TYPE_UNKNOWN


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_each_type_needs_what_it_is_about(blank):
    assert reason_of(sent(user_id=blank, anonymous_id=blank)) is Reason.NO_IDENTIFIER
    assert reason_of(sent(name=blank)) is Reason.NO_NAME
    assert reason_of(sent(type=ALIAS, previous_id=blank)) is Reason.NO_PREVIOUS_ID
    assert reason_of(sent(type=GROUP, group_id=blank)) is Reason.NO_GROUP_ID
    assert reason_of(sent(type=ACCOUNT, group_id=blank)) is Reason.NO_GROUP_ID


@pytest.mark.parametrize("call", [TRACK, IDENTIFY, PAGE, SCREEN, ALIAS, ACCOUNT])
def test_only_a_group_call_ends_a_membership(call):
    customer_event = sent(type=call, group_id="acme", previous_id="a-1", ends_membership=True)

    assert reason_of(customer_event) is Reason.MEMBERSHIP_MISPLACED


@pytest.mark.parametrize("field", ["properties", "traits", "context"])
@pytest.mark.parametrize(
    "text",
    [
        *("[]", "null", '"text"', "1", "{", "{}{}", "{'a':1}", '{"a":NaN}', '{"a":1e999}'),
        *('{"a":"\\ud800"}', '{"\\udc00":1}', " ", "\ufeff{}"),
    ],
)
def test_a_text_that_is_no_json_object_is_refused(field, text):
    assert reason_of(sent(**{field: text})) is Reason.JSON_INVALID


@pytest.mark.parametrize(
    "field", ["message_id", "name", "user_id", "anonymous_id", "previous_id", "group_id"]
)
def test_the_character_nul_is_refused_in_a_text(field):
    assert reason_of(sent(**{field: "a\0b"})) is Reason.CHARACTER_FORBIDDEN


@pytest.mark.parametrize("field", ["properties", "traits", "context"])
@pytest.mark.parametrize("text", [r'{"a":"\u0000"}', r'{"\u0000":1}', r'{"a":["\\\u0000"]}'])
def test_the_character_nul_is_refused_inside_json(field, text):
    assert reason_of(sent(**{field: text})) is Reason.CHARACTER_FORBIDDEN


@pytest.mark.parametrize("text", [r'{"a":"\\u0000"}', r'{"a":"\\\\u0000"}', r'{"a":"\n\\u0000"}'])
def test_an_escaped_backslash_before_u0000_is_no_nul(text):
    assert reason_of(sent(properties=text)) is None


def test_raw_control_characters_are_no_json():
    assert reason_of(sent(properties='{"a":"\0"}')) is Reason.JSON_INVALID


@pytest.mark.parametrize("field", ["original_time", "send_time", "corrected_time"])
def test_a_time_outside_the_years_1_to_9999_is_refused(field):
    def at(seconds, nanos=0):
        return sent(**{field: {"seconds": seconds, "nanos": nanos}})

    assert reason_of(at(FIRST_SECOND)) is None
    assert reason_of(at(LAST_SECOND, 999_999_999)) is None
    assert reason_of(at(FIRST_SECOND - 1)) is Reason.TIME_INVALID
    assert reason_of(at(LAST_SECOND + 1)) is Reason.TIME_INVALID
    assert reason_of(at(0, 1_000_000_000)) is Reason.TIME_INVALID
    assert reason_of(at(0, -1)) is Reason.TIME_INVALID


AT_THE_DOOR = {
    Reason.TYPE_NOT_ALLOWED,
    Reason.SUPPRESSED,
    Reason.PLAN_VIOLATED,
    Reason.DROPPED,
    Reason.ERASED,
}
"""What a customer event is refused for by a workspace, not by the rules for all."""


def test_every_reason_comes_with_a_sentence():
    broken = [
        sent(type=0),
        of_size(32 * 1024 + 1),
        sent(message_id="x" * 101),
        sent(name="x" * 501),
        sent(user_id="x" * 256),
        sent(name="\0"),
        sent(user_id=""),
        sent(name=""),
        sent(type=ALIAS),
        sent(type=GROUP),
        sent(ends_membership=True),
        sent(traits="[]"),
        sent(traits=nested(65)),
        sent(send_time={"nanos": -1}),
    ]
    refusals = [refusal_of(customer_event) for customer_event in broken]

    assert set(Reason) - AT_THE_DOOR == {refusal.reason for refusal in refusals}
    assert all(len(refusal.detail.split()) > 3 for refusal in refusals)


def test_a_made_up_message_id_is_the_same_only_for_the_same_place_in_the_same_call():
    first = made_up_message_id(sent(message_id=""), call="c-1", place=0)

    assert first == made_up_message_id(sent(message_id=""), call="c-1", place=0)
    others = {
        made_up_message_id(sent(message_id=""), call="c-2", place=0),
        made_up_message_id(sent(message_id=""), call="c-1", place=1),
        made_up_message_id(sent(message_id="", user_id="u-2"), call="c-1", place=0),
    }
    assert first not in others
    assert len(others) == 3
    assert len(first) <= schema.MESSAGE_ID_CHARACTERS_MAX
