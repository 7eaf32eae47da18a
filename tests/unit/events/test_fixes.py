"""What a customer event says is mended; what it is stays."""

import json

import pytest

from rapport.events.v1.customer_event_pb2 import (
    CustomerEvent,
    CustomerEventType,
    TimeFlag,
    Violation,
)
from rapport.events.v1.quarantine_pb2 import QuarantineFix
from services.events.door import Admitted, Door
from services.events.fixes import Fixes, judged_again, merged, read_patch
from services.events.schema import Reason
from services.kernel.errors import InvalidArgument

KEPT = CustomerEvent(
    message_id="a",
    type=CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
    name="Order Completed",
    user_id="u-1",
    properties='{"total": 1.10}',
    source="sources/shop",
    import_name="imports/1",
    receive_time={"seconds": 20},
    occur_time={"seconds": 10},
    original_time={"seconds": 9},
    time_flags=[TimeFlag.TIME_FLAG_CLOCK_SKEWED],
    violations=[Violation(rule="required")],
)


def patched(patch):
    return Fixes(patch=read_patch(json.dumps(patch))).mended(KEPT)


def test_without_fixes_nothing_changes():
    assert KEPT == Fixes().mended(KEPT) == patched({})


def test_a_fix_replaces_what_it_names_and_may_empty_it():
    fix = QuarantineFix(name="Order Paid", properties="")

    mended = Fixes({"a": fix, "b": QuarantineFix(name="other")}).mended(KEPT)

    assert ("Order Paid", "", "u-1") == (mended.name, mended.properties, mended.user_id)
    assert "Order Completed" == KEPT.name


def test_a_patch_comes_after_the_fix():
    fixes = Fixes({"a": QuarantineFix(properties='{"x":1}')}, read_patch('{"properties":{"y":2}}'))

    assert {"x": 1, "y": 2} == json.loads(fixes.mended(KEPT).properties)


def test_a_patch_takes_away_what_is_null():
    mended = patched({"name": None, "properties": None, "context": {"a": None}})

    assert ("", "", "{}") == (mended.name, mended.properties, mended.context)


def test_what_cannot_be_read_is_patched_by_nobody():
    broken = Fixes({"a": QuarantineFix(properties="{")}, {"properties": {"a": 1}}).mended(KEPT)

    assert "{" == broken.properties


@pytest.mark.parametrize(
    "patch",
    ["[]", "{", '{"user_id":"x"}', '{"name":1}', '{"traits":[]}', '{"properties":"x"}', "1" * 9],
)
def test_a_patch_that_cannot_be_meant_is_refused(patch):
    with pytest.raises(InvalidArgument):
        read_patch(patch)


# The examples of RFC 7396, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_means_what_its_rfc_says(target, patch, result):
    assert result == merged(target, patch)


def test_what_is_judged_again_keeps_its_id_its_source_and_its_times():
    mended = Fixes().mended(KEPT)

    found = judged_again(Door(), mended)

    assert isinstance(found, Admitted)
    expected = CustomerEvent()
    expected.CopyFrom(KEPT)
    expected.ClearField("violations")
    assert expected == found.opened.event


def test_what_was_mended_into_nonsense_says_so():
    mended = Fixes({"a": QuarantineFix(name=" ")}).mended(KEPT)

    assert Reason.NO_NAME == judged_again(Door(), mended).reason
