"""Laws of reports, over thousands of histories that the rules of deals let happen."""

from datetime import date
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.deals.v1.reports_pb2 import (
    WATERFALL_LINE_KIND_OPEN_AT_END,
    WATERFALL_LINE_KIND_REVALUATION,
    WaterfallLineKind,
)
from services.deals.exchange import Rate, Rates
from services.deals.sums import Sum, gathered
from services.deals.waterfall import ADDED, TAKEN, waterfall
from tests import deals_reference as reference
from tests.deals_histories import BEGIN, HALF_DAY, seeds, tell

windows = st.tuples(st.integers(-1, 30), st.integers(1, 20)).map(
    lambda days: (BEGIN + days[0] * HALF_DAY, BEGIN + (days[0] + days[1]) * HALF_DAY)
)
rates = st.lists(
    st.builds(
        Rate,
        st.sampled_from(["USD", "JPY"]),
        st.just("EUR"),
        st.integers(1, 28).map(lambda day: date(2026, 1, day)),
        st.decimals(Decimal("0.0001"), 200, places=4),
    ),
    max_size=5,
    unique_by=lambda rate: (rate.from_currency, rate.effective_date),
).map(Rates)


@given(seeds, windows, st.booleans())
@settings(max_examples=400)
def test_the_waterfall_adds_up_in_every_currency(seed, window, is_recorded):
    told = reference.histories(tell(seed), is_recorded=is_recorded)
    amounts, counts = reference.waterfall(told, *window)

    for currency in {currency for line in amounts.values() for currency in line}:
        assert amounts["OPEN_AT_END"][currency] == sum(
            amounts[name_of(kind)][currency] for kind in ADDED
        ) - sum(amounts[name_of(kind)][currency] for kind in TAKEN)
    changes = {"AMOUNT_UP", "AMOUNT_DOWN"}
    assert counts["OPEN_AT_END"] == sum(
        counts[name_of(kind)] for kind in ADDED if name_of(kind) not in changes
    ) - sum(counts[name_of(kind)] for kind in TAKEN if name_of(kind) not in changes)


@given(seeds, windows)
@settings(max_examples=100)
def test_what_one_window_ends_with_the_next_starts_with(seed, window):
    told = reference.histories(tell(seed))
    start, end = window
    middle = start + (end - start) / 2

    whole, _ = reference.waterfall(told, start, end)
    first, _ = reference.waterfall(told, start, middle)
    second, _ = reference.waterfall(told, middle, end)

    assert first["OPEN_AT_END"] == second["OPEN_AT_START"]
    for kind in (*ADDED[1:], *TAKEN):
        name = name_of(kind)
        assert +whole[name] == +(first[name] + second[name])


@given(
    st.dictionaries(
        st.sampled_from([*ADDED, *TAKEN, WATERFALL_LINE_KIND_OPEN_AT_END]),
        st.lists(
            st.builds(
                Sum,
                st.sampled_from(["EUR", "USD", "JPY", ""]),
                st.integers(1, 28).map(lambda day: date(2026, 1, day)),
                st.integers(1, 5),
                st.integers(0, 10**9),
            )
        ),
    ),
    rates,
)
def test_told_in_one_currency_it_adds_up_to_the_cent(sums, rates):
    lines, left_out = waterfall(sums, "EUR", rates)

    assert lines[WATERFALL_LINE_KIND_OPEN_AT_END].converted_minor == (
        sum(lines[kind].converted_minor for kind in ADDED)
        - sum(lines[kind].converted_minor for kind in TAKEN)
        + lines[WATERFALL_LINE_KIND_REVALUATION].converted_minor
    )
    told = {"EUR", "USD", "JPY"} - {part.currency for part in left_out}
    for kind, parts in sums.items():
        assert lines[kind].converted_minor == sum(
            rates.convert(part.amount_minor, part.currency, "EUR", part.day)
            for part in gathered(parts)
            if part.currency in told
        )


def name_of(kind):
    return WaterfallLineKind.Name(kind).removeprefix("WATERFALL_LINE_KIND_")
