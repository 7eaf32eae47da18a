"""A deal is changed field by field, each with a fact of its own."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import (
    DealAmountChanged,
    DealAssigned,
    DealCompanyChanged,
    DealContactsChanged,
    DealCustomFieldsChanged,
    DealExpectedCloseChanged,
    DealForecastCategoryOverridden,
    DealLost,
    DealNextStepChanged,
    DealOpened,
    DealProbabilityOverridden,
    DealRenamed,
    DealStageChanged,
    DealWon,
)
from rapport.deals.v1.service_pb2 import DealDetails, UpdateDealRequest
from rapport.deals.v1.values_pb2 import FORECAST_CATEGORY_COMMIT, DealContact
from services.deals.deal import AMOUNT_MINOR_MAX
from services.deals.deciders.deal_changes import CUSTOM_FIELDS_MAX
from services.kernel.errors import FailedPrecondition, InvalidArgument
from services.kernel.testing import Spec
from tests.deals_world import (
    FIRST,
    LAST,
    NOW,
    PROPOSAL,
    QUALIFICATION,
    WON_STAGE,
    ago,
    at,
    rules,
)

LOOMS = "deals/looms"
EUROS = Money(amount_minor=5, currency="EUR")
ADA = DealContact(contact="contacts/ada", role="buyer")
OPENED = DealOpened(
    display_name="Looms",
    stage=QUALIFICATION,
    occur_time=ago(10),
    amount=EUROS,
    expected_close_time=ago(-30),
    custom_fields={"source": "fair", "size": "9"},
    owner="members/kim",
    team="teams/north",
)
DOLLARS = Money(amount_minor=7, currency="USD")
LATER = Timestamp(seconds=2_000_000_000)


def update(*paths, occur_time=None, **said):
    return UpdateDealRequest(
        name=LOOMS,
        deal=DealDetails(**said),
        update_mask=FieldMask(paths=paths),
        occur_time=occur_time,
    )


def opened():
    return Spec(rules()).given(OPENED)


def fields_of(error):
    return [violation.field for violation in error.violations]


@pytest.mark.parametrize(
    ("said", "fact"),
    [
        (
            {"display_name": "Mills"},
            DealRenamed(display_name="Mills", previous_display_name="Looms"),
        ),
        ({"contacts": [ADA]}, DealContactsChanged(contacts=[ADA])),
        ({"company": "companies/mill"}, DealCompanyChanged(company="companies/mill")),
        (
            {"owner": "members/lee"},
            DealAssigned(
                owner="members/lee",
                team="teams/north",
                previous_owner="members/kim",
                previous_team="teams/north",
            ),
        ),
        ({"amount": DOLLARS}, DealAmountChanged(amount=DOLLARS, previous_amount=EUROS)),
        (
            {"expected_close_time": LATER},
            DealExpectedCloseChanged(
                expected_close_time=LATER, previous_expected_close_time=ago(-30)
            ),
        ),
        ({"next_step": "call"}, DealNextStepChanged(next_step="call")),
        ({"custom_fields": {"a": "1"}}, DealCustomFieldsChanged(custom_fields={"a": "1"})),
        (
            {"forecast_category_override": FORECAST_CATEGORY_COMMIT},
            DealForecastCategoryOverridden(forecast_category=FORECAST_CATEGORY_COMMIT),
        ),
        ({"probability_bp_override": 0}, DealProbabilityOverridden(probability_bp=0)),
    ],
)
def test_each_field_has_a_fact_of_its_own(said, fact):
    fact.occur_time.CopyFrom(ago(2))

    state = opened().when(update(occur_time=ago(2), **said)).then(fact)

    assert at(state.change_time) == ago(2)
    Spec(rules()).given(OPENED, fact).when(update(**said)).then()


def test_what_is_not_meant_stays():
    opened().when(update("next_step", display_name="Mills")).then()


def test_what_is_meant_and_not_said_is_taken_away():
    gone = update("amount", "expected_close_time", "custom_fields", "owner", "team")
    times = {"occur_time": at(NOW)}

    opened().when(gone).then(
        DealAssigned(previous_owner="members/kim", previous_team="teams/north", **times),
        DealCustomFieldsChanged(**times),
        DealAmountChanged(previous_amount=EUROS, **times),
        DealExpectedCloseChanged(previous_expected_close_time=ago(-30), **times),
    )


def test_a_star_means_every_field():
    facts = rules().decide(update("*", display_name="Mills"), rules().fold([OPENED]))

    assert [
        "DealRenamed",
        "DealAssigned",
        "DealCustomFieldsChanged",
        "DealAmountChanged",
        "DealExpectedCloseChanged",
    ] == [type(fact).__name__ for fact in facts]


def test_one_custom_field_is_changed_without_the_others():
    one = update("custom_fields.size", custom_fields={"size": "10"})
    none = update("custom_fields.size")

    assert {"source": "fair", "size": "10"} == opened().when(one).then(
        DealCustomFieldsChanged(custom_fields={"source": "fair", "size": "10"}, occur_time=at(NOW))
    ).custom_fields
    opened().when(none).then(
        DealCustomFieldsChanged(custom_fields={"source": "fair"}, occur_time=at(NOW))
    )


def test_an_override_is_cleared_and_the_stage_counts_again():
    given = Spec(rules()).given(OPENED, DealProbabilityOverridden(probability_bp=0))

    state = given.when(update("probability_bp_override")).then(
        DealProbabilityOverridden(occur_time=at(NOW))
    )

    assert state.probability_bp is None


@pytest.mark.parametrize("ending", [DealWon(closing_stage=WON_STAGE), DealLost()])
@pytest.mark.parametrize(
    "said",
    [
        {"amount": DOLLARS},
        {"expected_close_time": LATER},
        {"forecast_category_override": FORECAST_CATEGORY_COMMIT},
        {"probability_bp_override": 1},
    ],
)
def test_what_a_forecast_is_made_of_stands_still_once_a_deal_is_closed(ending, said):
    closed = Spec(rules()).given(OPENED, ending)

    closed.when(update(**said)).then_refused(FailedPrecondition)
    closed.when(update(next_step="send roses", amount=EUROS)).then(
        DealNextStepChanged(next_step="send roses", occur_time=at(NOW))
    )


def test_an_override_outlives_a_move():
    category = DealForecastCategoryOverridden(
        forecast_category=FORECAST_CATEGORY_COMMIT, occur_time=ago(2)
    )
    moved = DealStageChanged(stage=PROPOSAL, previous_stage=QUALIFICATION, occur_time=ago(1))

    state = rules().fold([OPENED, category, moved])

    assert FORECAST_CATEGORY_COMMIT == state.forecast_category


def test_a_change_may_be_told_late_but_not_before_an_earlier_one():
    given = Spec(rules()).given(OPENED, DealNextStepChanged(next_step="a", occur_time=ago(5)))

    given.when(update(next_step="b", occur_time=ago(5))).then(
        DealNextStepChanged(next_step="b", occur_time=ago(5))
    )
    for moment in (ago(6), ago(-1)):
        error = given.when(update(next_step="b", occur_time=moment)).then_refused(InvalidArgument)
        assert ["occur_time"] == fields_of(error)


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("deal.display_name", update("display_name")),
        ("deal.display_name", update(display_name=" ")),
        ("deal.amount.currency", update(amount=Money(amount_minor=1))),
        ("deal.amount.currency", update(amount=Money(amount_minor=1, currency="ABC"))),
        (
            "deal.amount.amount_minor",
            update(amount=Money(amount_minor=AMOUNT_MINOR_MAX + 1, currency="EUR")),
        ),
        ("deal.expected_close_time", update(expected_close_time=Timestamp(seconds=2**60))),
        ("deal.expected_close_time", update(expected_close_time=FIRST)),
        ("deal.expected_close_time", update(expected_close_time=LAST)),
        ("deal.contacts[1].contact", update(contacts=[ADA, ADA])),
        ("update_mask", update("stage")),
        ("update_mask", update("amount.currency")),
        ("update_mask", update("custom_fields.")),
    ],
)
def test_a_deal_is_not_changed_into_what_makes_no_sense(field, asked):
    assert [field] == fields_of(opened().when(asked).then_refused(InvalidArgument))


def test_custom_fields_are_bounded_when_they_are_added_one_by_one():
    full = {f"f{number}": "x" for number in range(CUSTOM_FIELDS_MAX)}
    given = Spec(rules()).given(DealOpened(stage=PROPOSAL, custom_fields=full))

    one_more = given.when(update("custom_fields.g", custom_fields={"g": "x"}))
    assert ["deal.custom_fields"] == fields_of(one_more.then_refused(InvalidArgument))
    given.when(update("custom_fields.f1", custom_fields={"f1": "y"})).then(
        DealCustomFieldsChanged(custom_fields={**full, "f1": "y"}, occur_time=at(NOW))
    )
