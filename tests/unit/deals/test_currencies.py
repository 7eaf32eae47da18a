"""A base currency is set and changed; a rate is set for a day, corrected and removed."""

import pytest

from rapport.deals.v1.currencies_pb2 import (
    RemoveExchangeRateRequest,
    SetBaseCurrencyRequest,
    SetExchangeRateRequest,
)
from rapport.deals.v1.events_pb2 import BaseCurrencySet, ExchangeRateRemoved, ExchangeRateSet
from services.deals.deciders import base_currency
from services.deals.deciders.exchange_rate import (
    DECIDER,
    EXCHANGE_RATES_MAX,
    decider_with,
    id_of,
)
from services.kernel.errors import InvalidArgument, NotFound, ResourceExhausted
from services.kernel.testing import Spec

NAME = "exchangeRates/USD-EUR-2026-03-01"
PAIR = {"from_currency": "USD", "to_currency": "EUR", "effective_date": "2026-03-01"}
SET = ExchangeRateSet(**PAIR, rate="0.92")
REMOVED = ExchangeRateRemoved(**PAIR, rate="0.92")
REMOVE = RemoveExchangeRateRequest(name=NAME)


def setting(rate="0.92", **said):
    return SetExchangeRateRequest(**PAIR | {"rate": rate} | said)


def base():
    return Spec(base_currency.DECIDER)


def rate():
    return Spec(DECIDER)


def test_a_base_currency_is_set_and_changed():
    euro = BaseCurrencySet(currency="EUR")

    state = base().when(SetBaseCurrencyRequest(currency="EUR")).then(euro)
    assert "EUR" == state.currency
    dollar = BaseCurrencySet(currency="USD", previous_currency="EUR")
    state = base().given(euro).when(SetBaseCurrencyRequest(currency="USD")).then(dollar)
    assert "USD" == state.currency


def test_what_is_the_base_already_is_no_news():
    euro = BaseCurrencySet(currency="EUR")

    base().given(euro).when(SetBaseCurrencyRequest(currency="EUR")).then()


def test_no_base_is_a_currency_that_nobody_knows():
    error = base().when(SetBaseCurrencyRequest(currency="XAU")).then_refused(InvalidArgument)

    assert ["currency"] == [violation.field for violation in error.violations]


def test_a_rate_is_set_for_a_pair_and_a_day():
    state = rate().when(setting("00.920")).then(SET)

    assert "0.92" == state.rate
    assert NAME == DECIDER.name(id_of(setting()))


def test_a_correction_tells_what_was_said_before():
    corrected = ExchangeRateSet(**PAIR, rate="0.93", previous_rate="0.92")

    rate().given(SET).when(setting("0.93")).then(corrected)


def test_what_the_rate_is_already_is_no_news():
    rate().given(SET).when(setting("0.920")).then()


def test_a_rate_is_removed_once_and_can_be_set_again():
    state = rate().given(SET).when(REMOVE).then(REMOVED)

    assert "" == state.rate
    rate().given(SET, REMOVED).when(REMOVE).then()
    rate().given(SET, REMOVED).when(setting()).then(SET)


def test_what_nobody_set_cannot_be_removed():
    error = rate().when(REMOVE).then_refused(NotFound)

    assert {"resource": NAME} == error.metadata


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"from_currency": "ZZZ"}, "from_currency"),
        ({"to_currency": "XAU"}, "to_currency"),
        ({"from_currency": "EUR"}, "to_currency"),
        ({"effective_date": "2026-02-30"}, "effective_date"),
        ({"rate": "0"}, "rate"),
        ({"rate": "-1"}, "rate"),
        ({"rate": "1234567890123"}, "rate"),
        ({"rate": "0.1234567890123"}, "rate"),
    ],
)
def test_what_is_no_rate_is_refused_by_its_field(said, field):
    error = rate().when(setting(**said)).then_refused(InvalidArgument)

    assert [field] == [violation.field for violation in error.violations]


def test_a_workspace_has_so_many_rates_which_can_still_be_corrected():
    full = decider_with(EXCHANGE_RATES_MAX)

    Spec(decider_with(EXCHANGE_RATES_MAX - 1)).when(setting()).then(SET)
    error = Spec(full).when(setting()).then_refused(ResourceExhausted)
    assert "EXCHANGE_RATES_MAX" == error.metadata["limit"]
    Spec(full).given(SET, REMOVED).when(setting()).then_refused(ResourceExhausted)
    corrected = ExchangeRateSet(**PAIR, rate="0.93", previous_rate="0.92")
    Spec(full).given(SET).when(setting("0.93")).then(corrected)
    Spec(full).given(SET).when(REMOVE).then(REMOVED)
