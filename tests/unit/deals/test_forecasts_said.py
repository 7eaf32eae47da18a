"""Quotas and submissions: what is refused, what is news, and what they are called."""

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import ForecastSubmitted, QuotaRemoved, QuotaSet
from rapport.deals.v1.forecasts_pb2 import (
    ForecastCall,
    RemoveQuotaRequest,
    SetQuotaRequest,
    SubmitForecastRequest,
)
from services.deals.deciders import forecast_submission, quota
from services.deals.exchange import CONVERTED_MINOR_MAX
from services.deals.forecast_subject import Subject, known_subject
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.testing import Spec


def euros(amount_minor):
    return Money(amount_minor=amount_minor, currency="EUR")


ABOUT = {"owner": "members/kim", "period": "2026-Q4", "pipeline": "pipelines/sales"}
SET = QuotaSet(**ABOUT, amount=euros(100))
CALL = ForecastCall(commit=euros(100), most_likely=euros(100), best_case=euros(250), note="Sure")
SUBMITTED = ForecastSubmitted(
    **ABOUT, commit=euros(100), most_likely=euros(100), best_case=euros(250), note="Sure"
)
REMOVE = RemoveQuotaRequest(name="quotas/owner_kim_2026-Q4_sales")


def set_quota(**said):
    return SetQuotaRequest(**ABOUT | {"amount": euros(100)} | said)


def submit(**call):
    return SubmitForecastRequest(**ABOUT, call=ForecastCall(**call))


@pytest.mark.parametrize(
    ("subject", "key"),
    [
        (Subject(period="2026"), "all_2026"),
        (Subject(period="2026-11", pipeline="pipelines/sales"), "all_2026-11_sales"),
        (Subject(owner="members/kim", period="2026-Q4"), "owner_kim_2026-Q4"),
        (Subject(team="teams/kim", period="2026-Q4"), "team_kim_2026-Q4"),
    ],
)
def test_an_id_is_made_of_what_something_is_about(subject, key):
    assert key == subject.id


def test_nothing_is_said_of_an_owner_and_a_team_at_once():
    with pytest.raises(InvalidArgument, match="team"):
        known_subject(set_quota(team="teams/north"))


def test_nothing_is_said_of_a_period_that_no_calendar_has():
    with pytest.raises(InvalidArgument, match="period"):
        known_subject(set_quota(period="2026-13"))


def test_a_quota_is_set():
    Spec(quota.DECIDER).when(set_quota()).then(SET)


def test_the_quota_that_is_set_already_is_no_news():
    Spec(quota.DECIDER).given(SET).when(set_quota()).then()


def test_a_later_quota_says_what_it_replaces():
    replaced = QuotaSet(**ABOUT, amount=euros(0), previous_amount=euros(100))

    Spec(quota.DECIDER).given(SET).when(set_quota(amount=euros(0))).then(replaced)


@pytest.mark.parametrize(
    "amount", [euros(-1), euros(CONVERTED_MINOR_MAX + 1), Money(amount_minor=1, currency="XTS")]
)
def test_a_quota_that_cannot_be_added_up_is_refused(amount):
    Spec(quota.DECIDER).when(set_quota(amount=amount)).then_refused(InvalidArgument)


def test_a_quota_at_the_edge_is_set():
    largest = euros(CONVERTED_MINOR_MAX)

    Spec(quota.DECIDER).when(set_quota(amount=largest)).then(QuotaSet(**ABOUT, amount=largest))


def test_a_removed_quota_can_be_set_again():
    removed = QuotaRemoved(previous_amount=euros(100))

    Spec(quota.DECIDER).given(SET).when(REMOVE).then(removed)
    Spec(quota.DECIDER).given(SET, removed).when(REMOVE).then()
    Spec(quota.DECIDER).given(SET, removed).when(set_quota()).then(SET)


def test_a_quota_that_nobody_set_is_not_removed():
    Spec(quota.DECIDER).when(REMOVE).then_refused(NotFound)


def test_a_submission_is_a_fact_each_time():
    command = SubmitForecastRequest(**ABOUT, call=CALL)

    Spec(forecast_submission.DECIDER).when(command).then(SUBMITTED)
    Spec(forecast_submission.DECIDER).given(SUBMITTED).when(command).then(SUBMITTED)


def test_a_submission_is_shown_as_it_was_said():
    assert CALL == forecast_submission.DECIDER.fold([SUBMITTED]).call
    partly = ForecastSubmitted(**ABOUT, best_case=euros(0))
    assert ForecastCall(best_case=euros(0)) == forecast_submission.DECIDER.fold([partly]).call


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ({"note": "Nothing"}, "call"),
        ({"commit": euros(-1)}, "call.commit.amount_minor"),
        ({"commit": euros(2), "best_case": euros(1)}, "call.best_case.amount_minor"),
        ({"commit": euros(2), "most_likely": euros(1)}, "call.most_likely.amount_minor"),
        (
            {"commit": euros(1), "best_case": Money(amount_minor=2, currency="USD")},
            "call.best_case.currency",
        ),
    ],
)
def test_a_submission_that_contradicts_itself_is_refused_by_name(call, field):
    with pytest.raises(InvalidArgument) as refused:
        forecast_submission.DECIDER.decide(submit(**call), forecast_submission.State())

    assert [field] == [violation.field for violation in refused.value.violations]
