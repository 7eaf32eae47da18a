"""Spans begin and end with facts; what was between those of one transaction is none."""

from datetime import UTC, datetime, timedelta

from services.identity.chronicle import Spans

PLACE = ("acme", "p")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def at(minute):
    return NOON + timedelta(minutes=minute)


def added(spans):
    return [(about, since, until, value) for _, about, since, until, value in spans.added()]


def test_a_span_goes_on_until_it_ends():
    spans = Spans()
    spans.begin(PLACE, "plan", at(0), "free")
    spans.begin(PLACE, "city", at(0), "Oslo")
    spans.end(PLACE, "plan", at(1))

    assert [("plan", at(0), at(1), "free"), ("city", at(0), None, "Oslo")] == added(spans)


def test_what_is_so_anew_ends_what_was_so():
    spans = Spans()
    spans.begin(PLACE, "plan", at(0), "free")
    spans.begin(PLACE, "plan", at(1), "gold")

    assert [("plan", at(0), at(1), "free"), ("plan", at(1), None, "gold")] == added(spans)


def test_what_ends_when_it_begins_was_never_so():
    spans = Spans()
    spans.begin(PLACE, "plan", at(0), "free")
    spans.begin(PLACE, "plan", at(0), "gold")
    spans.end(PLACE, "plan", at(0))

    assert [] == added(spans)


def test_what_was_there_before_ends_once_by_itself_or_with_all_the_rest():
    spans = Spans()
    spans.begin(PLACE, "plan", at(1), "gold")
    spans.end_all(PLACE, at(2))
    spans.begin(PLACE, "plan", at(3), "free")
    spans.end(PLACE, "city", at(3))

    assert {(PLACE, "plan"): at(1)} == spans.ended
    assert {PLACE: at(2)} == spans.all_ended
    assert [("plan", at(1), at(2), "gold"), ("plan", at(3), None, "free")] == added(spans)


def test_who_is_new_had_nothing_that_could_end():
    spans = Spans()
    spans.new.add(PLACE)
    spans.begin(PLACE, "plan", at(0), "free")
    spans.end_all(PLACE, at(1))

    assert ({}, {}) == (spans.ended, spans.all_ended)
    assert [("plan", at(0), at(1), "free")] == added(spans)
