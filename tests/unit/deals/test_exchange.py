"""Amounts are told in another currency exactly, by the rate of their day, or it is told why not."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from services.deals.exchange import (
    CONVERTED_MINOR_MAX,
    ConvertedTooLarge,
    Rate,
    Rates,
    UnknownRate,
    conversion_date,
    known_currency,
    rate_text,
    read_day,
    read_rate,
)
from services.kernel.errors import InvalidArgument

MARCH = date(2026, 3, 1)
APRIL = date(2026, 4, 1)


def rates(*said):
    return Rates(Rate(source, target, day, Decimal(rate)) for source, target, day, rate in said)


@pytest.mark.parametrize(
    ("amount_minor", "source", "rate", "target", "expected"),
    [
        # 100.00 EUR are 16231 JPY, which have no smaller unit.
        (10_000, "EUR", "162.31", "JPY", 16_231),
        (16_231, "JPY", "0.006161", "EUR", 10_000),
        # 1 JPY is 0.6 cents.
        (1, "JPY", "0.006", "EUR", 1),
        # 12.50 USD are 3.841 KWD, which have a thousand fils.
        (1_250, "USD", "0.3073", "KWD", 3_841),
        (3_841, "KWD", "3.2541", "USD", 1_250),
        (1_000, "BHD", "430.5", "JPY", 431),
        (10_000, "CLF", "39231.47", "CLP", 39_231),
        (999, "USD", "0.92", "EUR", 919),
        (0, "USD", "0.92", "EUR", 0),
        (1, "USD", "1000000", "JPY", 10_000),
    ],
)
def test_an_amount_is_told_in_minor_units_of_the_other_currency(
    amount_minor, source, rate, target, expected
):
    known = rates((source, target, MARCH, rate))

    assert expected == known.convert(amount_minor, source, target, MARCH)


@pytest.mark.parametrize(
    ("amount_minor", "rate", "expected"),
    [
        (1, "0.5", 1),
        (3, "0.5", 2),
        (5, "0.5", 3),
        (1, "0.499999999999", 0),
        (1, "0.500000000001", 1),
        (1, "1.5", 2),
        (25, "0.1", 3),
        (10**15 - 1, "0.999999999999", 10**15 - 1 - 1_000),
    ],
)
def test_half_a_minor_unit_is_rounded_up_once(amount_minor, rate, expected):
    known = rates(("USD", "EUR", MARCH, rate))

    assert expected == known.convert(amount_minor, "USD", "EUR", MARCH)


def test_a_rate_counts_from_its_day_until_the_next_one():
    known = rates(("USD", "EUR", APRIL, "3"), ("USD", "EUR", MARCH, "2"))

    assert [Decimal(2), Decimal(2), Decimal(3), Decimal(3)] == [
        known.on("USD", "EUR", day)
        for day in (MARCH, APRIL - timedelta(days=1), APRIL, date(2030, 1, 1))
    ]
    assert (200, 300) == tuple(known.convert(100, "USD", "EUR", day) for day in (MARCH, APRIL))


@pytest.mark.parametrize(
    ("source", "target", "day"),
    [
        ("USD", "EUR", MARCH - timedelta(days=1)),  # not yet
        ("EUR", "USD", MARCH),  # the inverse
        ("USD", "GBP", MARCH),  # by way of the euro
        ("ZZZ", "EUR", MARCH),
    ],
)
def test_what_nobody_said_is_unknown_and_not_guessed(source, target, day):
    known = rates(("USD", "EUR", MARCH, "2"), ("EUR", "GBP", MARCH, "3"))

    with pytest.raises(UnknownRate) as caught:
        known.convert(100, source, target, day)
    unknown = caught.value
    assert (source, target, day) == (unknown.from_currency, unknown.to_currency, unknown.on)
    with pytest.raises(UnknownRate):
        known.on(source, target, day)


def test_a_currency_is_worth_itself_without_a_rate():
    assert 100 == Rates().convert(100, "EUR", "EUR", MARCH)
    assert 100 == Rates().convert(100, "ZZZ", "ZZZ", MARCH)


def test_no_amount_is_negative():
    for currency in ("EUR", "USD"):
        with pytest.raises(ValueError):
            Rates().convert(-1, currency, "EUR", MARCH)


def test_what_would_be_too_large_to_add_up_is_told():
    known = rates(("EUR", "JPY", MARCH, "100"))

    assert CONVERTED_MINOR_MAX == known.convert(CONVERTED_MINOR_MAX, "EUR", "JPY", MARCH)
    with pytest.raises(ConvertedTooLarge):
        known.convert(CONVERTED_MINOR_MAX + 1, "EUR", "JPY", MARCH)


def test_an_open_deal_counts_at_the_day_of_reading_and_a_closed_one_at_that_of_its_close():
    read_time = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
    close_time = datetime(2026, 2, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))

    assert MARCH == conversion_date(read_time)
    assert date(2026, 1, 31) == conversion_date(read_time, close_time)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.9213", "0.9213"),
        ("00.92130", "0.9213"),
        ("100", "100"),
        ("100.0", "100"),
        ("999999999999.999999999999", "999999999999.999999999999"),
        ("0.000000000001", "0.000000000001"),
    ],
)
def test_a_rate_is_written_in_one_way(text, written):
    assert written == rate_text(read_rate(text))
    assert read_rate(text) == read_rate(written)


@pytest.mark.parametrize(
    "text",
    [
        *("", "0", "0.000", "-1", "+1", "1e2", ".5", "1.", "NaN", "1_0", "٣", " 1", "1\n", "1,5"),
        *("1234567890123", "0.1234567890123"),
    ],
)
def test_what_is_no_rate_is_none(text):
    assert read_rate(text) is None


def test_a_day_is_one_of_the_calendar():
    assert MARCH == read_day("2026-03-01")
    for odd in ("2026-02-30", "20260301", "2026-W09-7", "2026-3-1", "0000-01-01", ""):
        assert read_day(odd) is None


def test_a_currency_without_a_minor_unit_is_none():
    assert "KWD" == known_currency("KWD", "currency")
    for odd in ("XAU", "XDR", "eur", "ZZZ", ""):
        with pytest.raises(InvalidArgument):
            known_currency(odd, "currency")
