"""A tracking plan is drafted as a whole and published version by version, until it is archived."""

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    TrackingPlanArchived,
    TrackingPlanContent,
    TrackingPlanCreated,
    TrackingPlanDrafted,
    TrackingPlanPublished,
    TrackingPlanRule,
    ViolationPolicy,
)
from rapport.events.v1.tracking_plans_pb2 import (
    ArchiveTrackingPlanRequest,
    CreateTrackingPlanRequest,
    DraftTrackingPlanRequest,
    PublishTrackingPlanRequest,
)
from services.events.deciders.tracking_plan import DECIDER, TRACKING_PLANS_MAX, decider_with
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from services.kernel.testing import Spec

FLAG = ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG
NAME = "trackingPlans/shop"


def content(schema="{}"):
    track = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
    return TrackingPlanContent(
        rules=[TrackingPlanRule(type=track, event_name="Order", schema=schema, policy=FLAG)]
    )


CREATED = TrackingPlanCreated(display_name="Shop", content=content())
PUBLISHED = TrackingPlanPublished(version=1, content=content())
DRAFTED = TrackingPlanDrafted(content=content('{"type":"object"}'))
CREATE = CreateTrackingPlanRequest(
    tracking_plan_id="shop", display_name=" Shop ", content=content()
)
DRAFT = DraftTrackingPlanRequest(name=NAME, content=content('{"type":"object"}'))
PUBLISH = PublishTrackingPlanRequest(name=NAME)
ARCHIVE = ArchiveTrackingPlanRequest(name=NAME)


def plan():
    return Spec(DECIDER)


def test_a_plan_is_created_with_a_draft_and_nothing_published():
    state = plan().when(CREATE).then(CREATED)

    assert (0, b"") == (state.latest, state.published)


def test_a_taken_id_names_who_has_it():
    error = plan().given(CREATED).when(CREATE).then_refused(AlreadyExists)

    assert {"existing_name": NAME, "field": "tracking_plan_id"} == error.metadata


def test_a_name_of_blanks_is_none():
    plan().when(CreateTrackingPlanRequest(display_name=" ")).then_refused(InvalidArgument)


def test_a_workspace_has_so_many_plans():
    Spec(decider_with(TRACKING_PLANS_MAX - 1)).when(CREATE).then(CREATED)
    error = Spec(decider_with(TRACKING_PLANS_MAX)).when(CREATE).then_refused(ResourceExhausted)

    assert "TRACKING_PLANS_MAX" == error.metadata["limit"]


def test_a_draft_that_could_not_be_published_is_refused_by_its_field():
    draft = DraftTrackingPlanRequest(name=NAME, content=content("{"))
    error = plan().given(CREATED).when(draft).then_refused(InvalidArgument)

    assert ["content.rules[0].schema"] == [each.field for each in error.violations]


def test_a_draft_replaces_the_draft_and_leaves_what_is_published():
    state = plan().given(CREATED, PUBLISHED).when(DRAFT).then(DRAFTED)

    assert state.draft != state.published


def test_the_same_draft_is_no_news():
    plan().given(CREATED, DRAFTED).when(DRAFT).then()


def test_versions_count_on():
    plan().given(CREATED).when(PUBLISH).then(PUBLISHED)
    plan().given(CREATED, PUBLISHED, DRAFTED).when(PUBLISH).then(
        TrackingPlanPublished(version=2, content=DRAFTED.content)
    )


def test_what_is_published_is_not_published_again():
    plan().given(CREATED, PUBLISHED).when(PUBLISH).then()


def test_an_empty_draft_is_not_published():
    created = TrackingPlanCreated(display_name="Shop")
    error = plan().given(created).when(PUBLISH).then_refused(FailedPrecondition)

    assert "EMPTY" == error.metadata["state"]


def test_archiving_twice_is_archiving_once():
    state = plan().given(CREATED).when(ARCHIVE).then(TrackingPlanArchived())
    plan().given(CREATED, TrackingPlanArchived()).when(ARCHIVE).then()

    assert state.is_archived


@pytest.mark.parametrize("command", [DRAFT, PUBLISH])
def test_an_archived_plan_stays_as_it_is(command):
    error = (
        plan().given(CREATED, TrackingPlanArchived()).when(command).then_refused(FailedPrecondition)
    )

    assert "ARCHIVED" == error.metadata["state"]


@pytest.mark.parametrize("command", [DRAFT, PUBLISH, ARCHIVE])
def test_what_nobody_created_is_not_found(command):
    plan().when(command).then_refused(NotFound)
