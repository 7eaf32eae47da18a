"""A segment is defined once, by a rule that can be evaluated, and archived for good."""

import pytest

from rapport.segments.v1.events_pb2 import SegmentArchived, SegmentCreated
from rapport.segments.v1.rule_pb2 import ActivityCondition, Condition, Rule, TraitCondition
from rapport.segments.v1.service_pb2 import ArchiveSegmentRequest, CreateSegmentRequest
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound
from services.kernel.testing import Spec
from services.segments.decider import DECIDER, MEMBERSHIP


def trait(operator, value=""):
    condition = TraitCondition(trait="tier", operator=f"TRAIT_OPERATOR_{operator}", value=value)
    return Condition(trait=condition)


ORDERED = Condition(
    activity=ActivityCondition(activity="Order Completed", count_min=2, window_days=30)
)
RULE = Rule(conditions=[ORDERED, trait("EQUALS", '"gold"')])
CREATED = SegmentCreated(display_name="Gold", rule=RULE)
CREATE = CreateSegmentRequest(segment_id="gold", display_name="Gold", rule=RULE)
ARCHIVE = ArchiveSegmentRequest(name="segments/gold")


def segment():
    return Spec(DECIDER)


def test_a_segment_is_created_with_its_rule():
    state = segment().when(CREATE).then(CREATED)

    assert state.rule == RULE.SerializeToString(deterministic=True)


def test_a_taken_id_names_who_has_it():
    error = segment().given(CREATED).when(CREATE).then_refused(AlreadyExists)

    assert {"existing_name": "segments/gold", "field": "segment_id"} == error.metadata


def test_a_name_of_blanks_is_none():
    create = CreateSegmentRequest(display_name=" ", rule=RULE)

    segment().when(create).then_refused(InvalidArgument)


@pytest.mark.parametrize(
    ("operator", "value"),
    [
        ("EXISTS", '"gold"'),
        ("EQUALS", ""),
        ("EQUALS", "gold"),
        ("EQUALS", "null"),
        ("EQUALS", '["gold"]'),
        ("EQUALS", '{"a": 1}'),
        ("EQUALS", "NaN"),
        ("NOT_EQUALS", "[" * 2000),
        ("LESS_THAN", "true"),
        ("AT_LEAST", ""),
        ("CONTAINS", "7"),
        ("CONTAINS", ""),
    ],
)
def test_a_value_that_the_operator_cannot_compare_is_refused_by_its_place(operator, value):
    rule = Rule(conditions=[ORDERED, trait(operator, value)])
    create = CreateSegmentRequest(display_name="x", rule=rule)

    error = segment().when(create).then_refused(InvalidArgument)

    assert ["rule.conditions[1].trait.value"] == [each.field for each in error.violations]


def test_a_name_that_no_fact_can_have_is_refused_by_its_place():
    nul = Condition(activity=ActivityCondition(activity="a\0", count_min=1, window_days=1))
    named = Condition(trait=TraitCondition(trait="a\0b", operator="TRAIT_OPERATOR_EXISTS"))
    create = CreateSegmentRequest(display_name="x", rule=Rule(conditions=[nul, named]))

    error = segment().when(create).then_refused(InvalidArgument)

    assert ["rule.conditions[0].activity.activity", "rule.conditions[1].trait.trait"] == [
        each.field for each in error.violations
    ]


@pytest.mark.parametrize(
    ("operator", "value"),
    [("EXISTS", ""), ("EQUALS", "true"), ("LESS_THAN", "1e3"), ("CONTAINS", '""')],
)
def test_a_value_that_can_be_compared_is_taken(operator, value):
    rule = Rule(conditions=[trait(operator, value)])

    segment().when(CreateSegmentRequest(display_name="x", rule=rule)).then(
        SegmentCreated(display_name="x", rule=rule)
    )


def test_archiving_twice_is_archiving_once():
    state = segment().given(CREATED).when(ARCHIVE).then(SegmentArchived())
    segment().given(CREATED, SegmentArchived()).when(ARCHIVE).then()

    assert state.is_archived


def test_what_does_not_exist_cannot_be_archived():
    segment().when(ARCHIVE).then_refused(NotFound)


def test_the_id_of_an_archived_segment_stays_taken():
    segment().given(CREATED, SegmentArchived()).when(CREATE).then_refused(AlreadyExists)


def test_no_segment_can_be_named_so_that_it_shares_a_stream_with_members():
    assert not f"{MEMBERSHIP}-gold".startswith(DECIDER.stream(""))
