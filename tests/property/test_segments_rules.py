"""The law of rules: verdict, due and since equal a slow scan over every moment that matters."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from services.segments.rules import (
    ActivityCondition,
    Facts,
    Operator,
    Rule,
    Trait,
    TraitCondition,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
US = timedelta(microseconds=1)
NAMES = ("Order", "Visit")

moments = st.integers(0, 30).map(lambda count: START + count * timedelta(days=1))
jitters = st.sampled_from([timedelta(0), US, -US])
times = st.builds(lambda moment, jitter: moment + jitter, moments, jitters)
facts_of_a_profile = st.builds(
    lambda activities, traits: Facts(
        traits=traits, activities={name: sorted(found) for name, found in activities.items()}
    ),
    st.dictionaries(st.sampled_from(NAMES), st.lists(times, max_size=8)),
    st.dictionaries(
        st.just("tier"), st.builds(Trait, st.sampled_from(['"gold"', '"iron"', None]), times)
    ),
)
conditions = st.one_of(
    st.builds(
        ActivityCondition,
        st.sampled_from(NAMES),
        st.integers(1, 3),
        st.integers(1, 10).map(lambda days: timedelta(days=days)),
    ),
    st.just(TraitCondition("tier", Operator.EQUALS, "gold")),
)


def rule_from(found):
    return Rule(
        tuple(c for c in found if isinstance(c, TraitCondition)),
        tuple(c for c in found if isinstance(c, ActivityCondition)),
    )


rules = st.lists(conditions, min_size=1, max_size=3).map(rule_from)


def scan(rule, facts, now):
    """What the rule means, said as plainly as possible."""

    def in_window(condition, time):
        return now - condition.window < time <= now

    tier = facts.traits.get("tier")
    return all(tier is not None and tier.value == '"gold"' for _ in rule.traits) and all(
        sum(in_window(c, time) for time in facts.activities.get(c.activity, ())) >= c.count_min
        for c in rule.activities
    )


def turning_points(rule, facts):
    """Every moment at which the answer might change by itself."""
    found = set()
    for condition in rule.activities:
        for time in facts.activities.get(condition.activity, ()):
            found |= {time, time + condition.window}
    return sorted(found)


@given(rules, facts_of_a_profile, times)
def test_a_verdict_equals_the_scan(rule, facts, now):
    assert scan(rule, facts, now) == rule.verdict(facts, now).holds


@given(rules, facts_of_a_profile, times)
def test_the_answer_changes_no_earlier_than_due(rule, facts, now):
    verdict = rule.verdict(facts, now)
    between = [point for point in turning_points(rule, facts) if now < point]

    if verdict.due is not None:
        assert verdict.due > now
    for point in between:
        for moment in (point - US, point):
            if moment >= now and (verdict.due is None or moment < verdict.due):
                assert scan(rule, facts, moment) == verdict.holds


@given(rules, facts_of_a_profile, times)
def test_a_rule_that_holds_ceases_exactly_when_due(rule, facts, now):
    verdict = rule.verdict(facts, now)

    if verdict.holds and verdict.due is not None:
        assert not scan(rule, facts, verdict.due)


@given(rules, facts_of_a_profile, times)
def test_the_newest_that_happened_and_the_future_are_enough(rule, facts, now):
    needed = {}
    for name, found in facts.activities.items():
        count = max((c.count_min for c in rule.activities if c.activity == name), default=0)
        happened = [time for time in found if time <= now]
        needed[name] = happened[len(happened) - min(count, len(happened)) :] + [
            time for time in found if time > now
        ]

    assert rule.verdict(facts, now) == rule.verdict(Facts(facts.traits, needed), now)


@given(rules, facts_of_a_profile, times)
def test_since_is_the_last_moment_at_which_the_answer_changed(rule, facts, now):
    """Told for rules on activities; what a trait was before is not known."""
    counted = Rule((), rule.activities)
    since = counted.since(facts, now)
    holds = scan(counted, facts, now)
    turned = [
        point
        for point in turning_points(counted, facts)
        if point <= now and scan(counted, facts, point) != scan(counted, facts, point - US)
    ]

    assert since == (max(turned) if turned else None)
    if since is not None:
        assert scan(counted, facts, since) == holds
