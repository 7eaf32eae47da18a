"""A transformation is created, configured, enabled and disabled; what it cannot do is refused."""

import pytest

from rapport.events.v1.events_pb2 import (
    TransformationConfigured,
    TransformationCreated,
    TransformationDisabled,
    TransformationEnabled,
    TransformationSettings,
    TransformationStep,
)
from rapport.events.v1.transformations_pb2 import (
    ConfigureTransformationRequest,
    CreateTransformationRequest,
    DisableTransformationRequest,
    EnableTransformationRequest,
)
from services.events.deciders.transformation import DECIDER, TRANSFORMATIONS_MAX, decider_with
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from services.kernel.testing import Spec

NAME = "transformations/mail"


def settings(path="traits.email", **more):
    return TransformationSettings(steps=[TransformationStep(hash={"path": path})], **more)


CREATED = TransformationCreated(display_name="Mail", settings=settings())
CREATE = CreateTransformationRequest(
    transformation_id="mail", display_name="Mail", settings=settings()
)
ENABLE = EnableTransformationRequest(name=NAME)
DISABLE = DisableTransformationRequest(name=NAME)


def configure(**changed):
    return ConfigureTransformationRequest(
        name=NAME, **{"display_name": "Mail", "settings": settings()} | changed
    )


def transformation():
    return Spec(DECIDER)


def test_a_new_one_changes_nothing_yet():
    state = transformation().when(CREATE).then(CREATED)

    assert not state.is_enabled


def test_a_taken_id_names_who_has_it():
    error = transformation().given(CREATED).when(CREATE).then_refused(AlreadyExists)

    assert {"existing_name": NAME, "field": "transformation_id"} == error.metadata


def test_a_workspace_has_so_many_transformations():
    Spec(decider_with(TRANSFORMATIONS_MAX - 1)).when(CREATE).then(CREATED)
    Spec(decider_with(TRANSFORMATIONS_MAX)).when(CREATE).then_refused(ResourceExhausted)


def test_it_is_enabled_and_disabled_once_each():
    transformation().given(CREATED).when(DISABLE).then()
    state = transformation().given(CREATED).when(ENABLE).then(TransformationEnabled())
    transformation().given(CREATED, TransformationEnabled()).when(ENABLE).then()
    transformation().given(CREATED, TransformationEnabled()).when(DISABLE).then(
        TransformationDisabled()
    )

    assert state.is_enabled


def test_it_may_do_something_else_and_stays_enabled():
    other = settings("traits.phone", rank=3)
    state = (
        transformation()
        .given(CREATED, TransformationEnabled())
        .when(configure(settings=other))
        .then(TransformationConfigured(display_name="Mail", settings=other))
    )

    assert (True, 3) == (state.is_enabled, state.rank)


def test_what_it_does_already_is_no_news():
    transformation().given(CREATED).when(configure()).then()


@pytest.mark.parametrize("changed", [{"display_name": " "}, {"settings": settings("email")}])
def test_what_cannot_be_read_or_done_is_refused(changed):
    transformation().given(CREATED).when(configure(**changed)).then_refused(InvalidArgument)


@pytest.mark.parametrize("command", [configure(), ENABLE, DISABLE])
def test_what_nobody_created_is_not_found(command):
    transformation().when(command).then_refused(NotFound)
