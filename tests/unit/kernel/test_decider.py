"""Deciders: three pure functions, the names around them, and the grammar that tests them."""

from dataclasses import dataclass, replace

import pytest

from services.kernel.command.decider import claims_nothing, etag_of, request_of
from services.kernel.errors import FailedPrecondition, InvalidArgument, NotFound, Reason
from services.kernel.testing import Spec
from tests.box import BOX, BoxEmptied, BoxLabelled, BoxState, PutRequest, TakeOutRequest, ThingPut

HAT, COAT = ThingPut(thing="hat"), ThingPut(thing="coat")


def test_given_nothing_a_command_may_be_the_first():
    state = Spec(BOX).when(PutRequest(things=["hat", "coat"])).then(HAT, COAT)

    assert BoxState(things=("hat", "coat"), exists=True) == state


def test_given_a_history_a_command_meets_the_state_it_led_to():
    Spec(BOX).given(HAT, BoxEmptied()).when(TakeOutRequest()).then()
    Spec(BOX).given(HAT).given(BoxEmptied(), COAT).when(TakeOutRequest()).then(BoxEmptied())


def test_a_refusal_names_its_class_and_reason():
    refused = Spec(BOX).when(TakeOutRequest(name="boxes/1")).then_refused(NotFound)
    assert {"resource": "boxes/1"} == refused.metadata
    Spec(BOX).when(PutRequest(fail="refused")).then_refused(
        FailedPrecondition, reason=Reason.STATE_FORBIDS
    )


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Spec(BOX).when(PutRequest(things=["hat"])).then(),
        lambda: Spec(BOX).when(PutRequest(things=["hat"])).then(COAT),
        lambda: Spec(BOX).when(PutRequest(things=["hat"])).then(HAT, COAT),
        lambda: Spec(BOX).when(PutRequest(things=["hat"])).then_refused(NotFound),
        lambda: Spec(BOX).when(TakeOutRequest()).then_refused(NotFound, reason=Reason.BUG),
        lambda: Spec(BOX).then(),
    ],
)
def test_a_spec_that_does_not_hold_fails(wrong):
    with pytest.raises(AssertionError):
        wrong()


def test_another_refusal_than_expected_is_shown():
    with pytest.raises(FailedPrecondition):
        Spec(BOX).when(PutRequest(fail="refused")).then_refused(NotFound)


def test_a_state_that_would_be_read_back_as_another_fails():
    @dataclass(frozen=True, slots=True)
    class Leaky:
        things: object = ()

    leaky = replace(BOX, initial=Leaky(), evolve=lambda _, event: Leaky((event.thing,)))
    with pytest.raises(AssertionError, match="read back"):
        Spec(leaky).given(HAT).when(PutRequest()).then()


def test_a_fold_goes_on_from_any_state():
    events = [HAT, BoxLabelled(label="winter"), COAT]

    assert BOX.fold(events) == BOX.fold(events[1:], BOX.fold(events[:1]))
    assert BOX.initial == BOX.fold([])


def test_names_and_streams_belong_together():
    assert "box-1-2" == BOX.stream("1-2")
    assert "boxes/1-2" == BOX.name("1-2") == BOX.resource_name("box-1-2")
    assert "1-2" == BOX.aggregate_id("boxes/1-2")


@pytest.mark.parametrize("name", ["", "boxes", "boxes/", "boxes/1/2", "crates/1", "/1", "Boxes/1"])
def test_a_name_of_something_else_is_refused(name):
    with pytest.raises(InvalidArgument) as refusal:
        BOX.aggregate_id(name, "parent")

    assert ["parent"] == [violation.field for violation in refusal.value.violations]


def test_an_etag_is_quoted():
    assert '"12"' == etag_of(12)


def test_requests_are_told_apart_by_everything_they_say():
    said = [
        PutRequest(name="boxes/1", request_id="r"),
        PutRequest(name="boxes/2", request_id="r"),
        PutRequest(name="boxes/1", things=["hat"], request_id="r"),
        TakeOutRequest(name="boxes/1", request_id="r"),
    ]

    assert len(said) == len({request_of(command, "r") for command in said})
    assert request_of(said[0], "r") == request_of(
        PutRequest.FromString(said[0].SerializeToString()), "r"
    )
    assert request_of(said[0], "") is None


def test_most_aggregates_claim_nothing():
    assert frozenset() == claims_nothing(BoxState())
