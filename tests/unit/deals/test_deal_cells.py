"""Values of deals as cells, by example."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from services.deals.deal_cells import amount_text, meant, minor_of, safe, time_text


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (123450, "EUR", "1234.50"),
        (0, "EUR", "0.00"),
        (5, "JPY", "5"),
        (5, "KWD", "0.005"),
        (10**15, "EUR", "10000000000000.00"),
        (7, "QQQ", "0.07"),
    ],
)
def test_an_amount_is_a_decimal_in_the_unit_of_its_currency(minor, currency, text):
    assert text == amount_text(minor, currency)
    assert minor == minor_of(text, currency)


@pytest.mark.parametrize("text", ["", "-1", "+1", "1e3", "1,23", "1.", "0.001", "NaN", "٣"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match=r"amount|finer"):
        minor_of(text, "EUR")


def test_thousands_may_be_parted():
    assert 123450000 == minor_of("1,234,500", "EUR")


def test_a_time_is_told_in_utc():
    there = timezone(timedelta(hours=1))

    assert "2026-03-01T12:00:00Z" == time_text(datetime(2026, 3, 1, 13, tzinfo=there))
    assert "2026-03-01T12:00:00.000005Z" == time_text(
        datetime(2026, 3, 1, 12, microsecond=5, tzinfo=UTC)
    )
    assert "" == time_text(None)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("'=1", "''=1"),
        ("-5", "'-5"),
        ("'tis", "'tis"),
        ("a=b", "a=b"),
        ("", ""),
        ("\tx", "'\tx"),
        (" =1", "' =1"),
        ("\uff1d1", "'\uff1d1"),
    ],
)
def test_a_formula_is_disarmed_and_comes_back(text, cell):
    assert cell == safe(text)
    assert text == meant(cell)
