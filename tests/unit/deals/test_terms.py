"""The days of contracts, by example."""

from datetime import date

import pytest

from rapport.deals.v1.contract_terms_pb2 import ContractTerms
from services.deals.terms import Term, course_of, last_day, parsed_date, term_at

LASTS = [
    ("2026-01-01", 12, "2026-12-31"),
    ("2026-01-31", 12, "2027-01-30"),
    ("2026-01-31", 1, "2026-02-28"),
    ("2024-01-31", 1, "2024-02-29"),
    ("2026-01-30", 1, "2026-02-28"),
    ("2026-01-29", 1, "2026-02-28"),
    ("2024-01-30", 1, "2024-02-29"),
    ("2024-01-29", 1, "2024-02-28"),
    ("2026-01-28", 1, "2026-02-27"),
    ("2026-03-31", 1, "2026-04-30"),
    ("2026-02-01", 1, "2026-02-28"),
    ("2023-03-01", 12, "2024-02-29"),
    ("2024-02-29", 12, "2025-02-28"),
    ("2024-02-29", 48, "2028-02-28"),
    ("2026-02-28", 12, "2027-02-27"),
    ("2026-12-31", 2, "2027-02-28"),
    ("2026-12-15", 1, "2027-01-14"),
    ("2199-12-31", 1200, "2299-12-30"),
]
TERMS = [
    ("2026-01-31", "2026-01-01", Term(1, date(2026, 1, 31), date(2026, 2, 28))),
    ("2026-01-31", "2026-02-28", Term(1, date(2026, 1, 31), date(2026, 2, 28))),
    ("2026-01-31", "2026-03-01", Term(2, date(2026, 3, 1), date(2026, 3, 30))),
    ("2026-01-31", "2026-03-31", Term(3, date(2026, 3, 31), date(2026, 4, 30))),
    ("2026-01-31", "2027-03-01", Term(14, date(2027, 3, 1), date(2027, 3, 30))),
]


@pytest.mark.parametrize(("start", "months", "end"), LASTS)
def test_so_many_months_end_on_the_day_before_the_first_comes_round_again(start, months, end):
    assert date.fromisoformat(end) == last_day(date.fromisoformat(start), months)


@pytest.mark.parametrize(("start", "day", "term"), TERMS)
def test_the_31st_stays_the_31st_after_a_february(start, day, term):
    terms = ContractTerms(start_date=start, term_months=1, auto_renew=True)

    assert term == term_at(terms, date.fromisoformat(day))


def test_further_terms_have_a_length_of_their_own():
    terms = ContractTerms(
        start_date="2026-01-01", term_months=24, auto_renew=True, renewal_term_months=12
    )

    assert Term(1, date(2026, 1, 1), date(2027, 12, 31)) == term_at(terms, date(2027, 12, 31))
    assert Term(2, date(2028, 1, 1), date(2028, 12, 31)) == term_at(terms, date(2028, 1, 1))
    assert Term(3, date(2029, 1, 1), date(2029, 12, 31)) == term_at(terms, date(2029, 7, 1))


def test_further_terms_are_counted_from_the_last_day_when_that_is_said():
    terms = ContractTerms(
        start_date="2026-01-15", end_date="2026-02-28", auto_renew=True, renewal_term_months=1
    )

    assert Term(1, date(2026, 1, 15), date(2026, 2, 28)) == term_at(terms, date(2026, 2, 28))
    assert Term(2, date(2026, 3, 1), date(2026, 3, 31)) == term_at(terms, date(2026, 3, 1))


def test_what_does_not_renew_itself_has_one_term():
    terms = ContractTerms(start_date="2026-01-01", term_months=12, renewal_term_months=1)

    assert Term(1, date(2026, 1, 1), date(2026, 12, 31)) == term_at(terms, date(2036, 1, 1))
    assert 0 == course_of(terms).renewal_months


@pytest.mark.parametrize(
    "text",
    ["", "2026-02-30", "2026-1-1", "20260101", "2026-01-01T00:00:00Z", "1899-12-31", "2200-01-01"],
)
def test_what_is_no_day_of_a_contract_is_none(text):
    assert parsed_date(text) is None


@pytest.mark.parametrize("text", ["1900-01-01", "2024-02-29", "2199-12-31"])
def test_what_is_a_day_is_read(text):
    assert text == parsed_date(text).isoformat()
