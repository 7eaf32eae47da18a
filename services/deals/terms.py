"""What a contract says of its days: when terms begin and end, and which one runs on a day. Pure.

A term of some months ends on the day before its first day comes round again; where the last month
has no such day, on the last of that month. The days of further terms are counted from the first
and not from the one before, so the 31st stays the 31st after a February. Terms lie side by side:
each day from the first on is in one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta

from rapport.deals.v1.contract_terms_pb2 import ContractTerms
from services.deals.exchange import NO_CURRENCY
from services.kernel.errors import FieldViolation, InvalidArgument
from services.kernel.iso4217 import EXPONENTS

FIRST_DAY = date(1900, 1, 1)
LAST_DAY = date(2199, 12, 31)
"""Dates of contracts lie between these, so that no sum of days leaves the calendar."""

VALUE_MINOR_MAX = 10**15
"""Small enough that the sums of thousands of such contracts are exact in 64 bits."""

DAY = timedelta(days=1)
MONTH_DAYS_MIN = 28

_NO_DAY = f"must be a day between {FIRST_DAY} and {LAST_DAY}, such as 2026-01-31"
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_MONTHS_PER_YEAR = 12


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a contract, from 1 on; both days belong to it."""

    number: int
    start: date
    end: date


@dataclass(frozen=True, slots=True)
class Course:
    """How terms follow each other.

    Their ends are counted from `counted_from`: the first is `months` after it, each further one
    `renewal_months` later. Without these there is only the first.
    """

    start: date
    counted_from: date
    months: int
    renewal_months: int = 0

    def term(self, number: int) -> Term:
        """The term with this number."""
        months = self.months + (number - 1) * self.renewal_months
        start = self.start
        if number > 1:
            start = anniversary(self.counted_from, months - self.renewal_months)
        return Term(number, start, last_day(self.counted_from, months))

    def term_at(self, day: date) -> Term:
        """The first term that has not ended before a day; the last when all have."""
        if not self.renewal_months:
            return self.term(1)
        missing = months_past(self.counted_from, day) - self.months
        return self.term(1 + max(0, -(-missing // self.renewal_months)))


def course_of(terms: ContractTerms) -> Course:
    """How the terms of a contract follow each other by what it says."""
    start = date.fromisoformat(terms.start_date)
    renewal_months = terms.renewal_term_months or terms.term_months
    rolls = renewal_months if terms.auto_renew else 0
    if terms.end_date:
        return Course(start, date.fromisoformat(terms.end_date) + DAY, 0, rolls)
    return Course(start, start, terms.term_months, rolls)


def term_at(terms: ContractTerms, day: date) -> Term:
    """The term of a contract that runs on a day if nobody ends it; the first before it begins."""
    return course_of(terms).term_at(day)


def anniversary(day: date, months: int) -> date:
    """The same day so many months later; where the month has no such day, the first of the next."""
    years, month = divmod(day.month - 1 + months, _MONTHS_PER_YEAR)
    try:
        return date(day.year + years, month + 1, day.day)
    except ValueError:
        # Only months that are followed by another of the same year lack a day.
        return date(day.year + years, month + 2, 1)


def last_day(start: date, months: int) -> date:
    """The last day of so many months that begin with a day."""
    return anniversary(start, months) - DAY


def months_past(start: date, day: date) -> int:
    """The least number of months that, begun with `start`, do not end before a day."""
    months = (day.year - start.year) * _MONTHS_PER_YEAR + day.month - start.month
    return months + (0 if start.day > day.day else 1)


def parsed_date(text: str) -> date | None:
    """The day that a text such as `2026-01-31` names, or None when contracts have no such day."""
    if not _DATE.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if FIRST_DAY <= day <= LAST_DAY else None


def known_day(name: str, text: str) -> date | None:
    """The day that a field says, if it says any; refuses what is none."""
    day = parsed_date(text)
    if text and day is None:
        raise InvalidArgument.of(name, _NO_DAY)
    return day


def checked(terms: ContractTerms, inside: str = "terms.") -> ContractTerms:
    """Refuses what no contract could say, naming each field."""
    if found := [replace(each, field=inside + each.field) for each in _violations(terms)]:
        raise InvalidArgument(found)
    return terms


def _violations(terms: ContractTerms) -> Iterator[FieldViolation]:
    if not terms.reference.strip():
        yield FieldViolation("reference", "a contract needs one that can be read")
    start, end = parsed_date(terms.start_date), parsed_date(terms.end_date)
    if start is None:
        yield FieldViolation("start_date", _NO_DAY)
    if bool(terms.end_date) == bool(terms.term_months):
        yield FieldViolation("end_date", "give either end_date or term_months")
    elif terms.end_date and end is None:
        yield FieldViolation("end_date", _NO_DAY)
    elif start and end and end < start:
        yield FieldViolation("end_date", f"lies before {start}")
    if terms.auto_renew and not (terms.renewal_term_months or terms.term_months):
        yield FieldViolation("renewal_term_months", "what renews itself needs a number of months")
    if terms.HasField("value"):
        if terms.value.currency not in EXPONENTS:
            yield FieldViolation("value.currency", NO_CURRENCY)
        if not 0 <= terms.value.amount_minor <= VALUE_MINOR_MAX:
            yield FieldViolation("value.amount_minor", f"lies between 0 and {VALUE_MINOR_MAX}")
