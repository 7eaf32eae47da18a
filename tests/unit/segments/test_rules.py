"""A rule compares like with like, and its window is open at its far end to the microsecond."""

from datetime import UTC, datetime, timedelta

import pytest

from rapport.segments.v1 import rule_pb2
from services.segments.rules import Facts, Trait, Verdict, rule_of

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
US = timedelta(microseconds=1)
DAY = timedelta(days=1)


def trait_rule(operator, value=""):
    condition = rule_pb2.TraitCondition(
        trait="it", operator=f"TRAIT_OPERATOR_{operator}", value=value
    )
    return rule_of(rule_pb2.Rule(conditions=[rule_pb2.Condition(trait=condition)]))


def activity(count_min=1, window_days=7, name="Order"):
    return rule_pb2.Condition(
        activity=rule_pb2.ActivityCondition(
            activity=name, count_min=count_min, window_days=window_days
        )
    )


def activity_rule(*conditions):
    return rule_of(rule_pb2.Rule(conditions=conditions or [activity()]))


def ordered(*times):
    return Facts(activities={"Order": sorted(times)})


@pytest.mark.parametrize(
    ("value", "operator", "compared", "holds"),
    [
        ('"gold"', "EQUALS", '"gold"', True),
        ('"gold"', "EQUALS", '"silver"', False),
        ("1", "EQUALS", "1.0", True),
        ("1e2", "EQUALS", "100", True),
        ("0.1", "EQUALS", "0.10000000000000000001", False),
        ("true", "EQUALS", "true", True),
        ("true", "EQUALS", "1", False),
        ('"1"', "EQUALS", "1", False),
        ("null", "EQUALS", '"null"', False),
        ("not json", "EQUALS", '"not json"', False),
        ('"silver"', "NOT_EQUALS", '"gold"', True),
        ('"gold"', "NOT_EQUALS", '"gold"', False),
        ("7", "NOT_EQUALS", '"gold"', False),
        ("[]", "NOT_EQUALS", '"gold"', False),
        ("7", "LESS_THAN", "8", True),
        ("8", "LESS_THAN", "8", False),
        ("10", "LESS_THAN", "9", False),
        ('"10"', "LESS_THAN", '"9"', True),
        ('"Z"', "LESS_THAN", '"a"', True),
        ("8", "AT_MOST", "8", True),
        ("8.5", "AT_MOST", "8", False),
        ("8.5", "GREATER_THAN", "8", True),
        ("8", "GREATER_THAN", "8", False),
        ("8", "AT_LEAST", "8", True),
        ("7", "AT_LEAST", "8", False),
        ('"9"', "AT_LEAST", "8", False),
        ('"golden"', "CONTAINS", '"gold"', True),
        ('"gold"', "CONTAINS", '"golden"', False),
        ('["gold", 7]', "CONTAINS", '"gold"', True),
        ('["golden"]', "CONTAINS", '"gold"', False),
        ("7", "CONTAINS", '"7"', False),
        ("null", "EXISTS", "", True),
        ("false", "EXISTS", "", True),
    ],
)
def test_a_trait_is_compared_with_a_value_of_its_kind(value, operator, compared, holds):
    facts = Facts(traits={"it": Trait(value, NOW)})

    assert trait_rule(operator, compared).verdict(facts, NOW) == Verdict(holds, None)


@pytest.mark.parametrize("operator", ["EQUALS", "NOT_EQUALS", "AT_MOST", "CONTAINS", "EXISTS"])
@pytest.mark.parametrize("facts", [Facts(), Facts(traits={"it": Trait(None, NOW)})])
def test_a_trait_that_is_not_there_never_matches(operator, facts):
    value = "" if operator == "EXISTS" else '"x"'

    assert not trait_rule(operator, value).verdict(facts, NOW).holds


@pytest.mark.parametrize(
    ("time", "holds", "due"),
    [
        (NOW - 7 * DAY - US, False, None),
        (NOW - 7 * DAY, False, None),
        (NOW - 7 * DAY + US, True, NOW + US),
        (NOW - US, True, NOW + 7 * DAY - US),
        (NOW, True, NOW + 7 * DAY),
        (NOW + US, False, NOW + US),
    ],
)
def test_the_window_ends_now_and_is_open_at_its_beginning(time, holds, due):
    assert Verdict(holds, due) == activity_rule().verdict(ordered(time), NOW)


@pytest.mark.parametrize(
    ("times", "holds", "due"),
    [
        ([], False, None),
        ([NOW], False, None),
        ([NOW, NOW], True, NOW + 7 * DAY),
        ([NOW - 2 * DAY, NOW - DAY, NOW], True, NOW + 6 * DAY),
        ([NOW - 6 * DAY, NOW, NOW + DAY], True, NOW + 7 * DAY),
        ([NOW - 6 * DAY, NOW + 2 * DAY], False, None),
        ([NOW - DAY, NOW + 2 * DAY], False, NOW + 2 * DAY),
    ],
)
def test_what_happened_often_enough_holds_until_too_little_is_left(times, holds, due):
    assert Verdict(holds, due) == activity_rule(activity(count_min=2)).verdict(ordered(*times), NOW)


def test_all_conditions_have_to_hold_and_the_first_to_end_ends_the_rule():
    rule = activity_rule(activity(), activity(window_days=3, name="Visit"))
    orders = {"Order": [NOW - DAY]}

    assert Verdict(False, None) == rule.verdict(Facts(activities=orders), NOW)
    visits = {**orders, "Visit": [NOW - DAY]}
    assert Verdict(True, NOW + 2 * DAY) == rule.verdict(Facts(activities=visits), NOW)


def test_a_time_at_the_end_of_the_calendar_is_no_error():
    end = datetime.max.replace(tzinfo=UTC)

    assert Verdict(False, end) == activity_rule().verdict(ordered(end), NOW)
    assert Verdict(True, end) == activity_rule().verdict(ordered(end - DAY), end - DAY)


def test_since_tells_the_beginning_of_what_is_unbroken():
    rule = activity_rule()
    times = ordered(NOW - 20 * DAY, NOW - 8 * DAY, NOW - 2 * DAY)

    assert rule.since(times, NOW) == NOW - 8 * DAY
    assert rule.since(times, NOW + 6 * DAY) == NOW + 5 * DAY
    assert rule.since(times, NOW - 10 * DAY) == NOW - 13 * DAY
    assert rule.since(times, NOW - 30 * DAY) is None


def test_since_takes_a_traits_time_where_the_value_decides():
    facts = Facts(traits={"it": Trait('"gold"', NOW - DAY)})

    assert trait_rule("EQUALS", '"gold"').since(facts, NOW) == NOW - DAY
    assert trait_rule("EQUALS", '"silver"').since(facts, NOW) == NOW - DAY
    assert trait_rule("EQUALS", '"gold"').since(Facts(), NOW) is None
