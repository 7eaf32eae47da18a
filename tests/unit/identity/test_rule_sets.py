"""Rules are written down whole, and put into force step by step."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rapport.identity.v1 import events_pb2 as facts
from rapport.identity.v1 import rule_sets_pb2 as pb
from services.identity.changes import Change
from services.identity.deciders.rule_set import DECIDER, RULE_SETS_MAX, decider_with
from services.identity.rule_sets import EXAMPLES_PER_KIND_MAX, Shift, checked, rules_in, written_as
from services.identity.rules import (
    BLOCKED_PATTERNS_MAX,
    DEFAULT,
    LIMIT_MAX,
    WINDOW_DAYS_MAX,
    IdentifierType,
)
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

NAME = "ruleSets/r"
TOO_MANY = ("a",) * (BLOCKED_PATTERNS_MAX + 1)
OWN = IdentifierType(
    "loyalty_card",
    rank=2,
    limit=3,
    window=timedelta(days=7, microseconds=1),
    hub_over=4,
    blocked_values=frozenset({"none", "0"}),
    blocked_patterns=("test*", "*@example.com"),
    is_numeric=True,
)
RULES = replace(DEFAULT, types=(*DEFAULT.types, OWN), default_region="DE", nodes_max=50)


def draft(rules=RULES):
    return pb.DraftRuleSetRequest(rule_set_id="r", display_name="Mine", rules=written_as(rules))


def after(*commands):
    """The state that commands lead to, and what a worker says to them."""
    state = DECIDER.initial
    for command in commands:
        events = (
            DECIDER.decide(command, state)
            if command.DESCRIPTOR.name.endswith("Request") and hasattr(pb, command.DESCRIPTOR.name)
            else [command]
        )
        state = DECIDER.fold(events, state)
    return state


def test_rules_are_the_same_when_they_are_read_again():
    assert rules_in(written_as(RULES)) == RULES
    assert rules_in(facts.ResolutionRules()) == DEFAULT


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("rules.default_region", replace(DEFAULT, default_region="de")),
        ("rules.types[7].limit", {"limit": 0}),
        ("rules.types[7].limit", {"limit": LIMIT_MAX + 1}),
        ("rules.types[7].hub_over", {"hub_over": 0}),
        ("rules.types[7].name", {"name": "Loyalty"}),
        ("rules.types[7].window", {"window": timedelta(days=WINDOW_DAYS_MAX + 1)}),
        ("rules.types[7].window", {"window": timedelta(seconds=-1)}),
        ("rules.types[7].blocked_patterns", {"blocked_patterns": ("",)}),
        (
            "rules.types[7].blocked_patterns",
            {"blocked_patterns": ("a",) * (BLOCKED_PATTERNS_MAX + 1)},
        ),
    ],
)
def test_what_is_wrong_with_rules_is_named(field, wrong):
    if isinstance(wrong, dict):
        wrong = replace(DEFAULT, types=(*DEFAULT.types, replace(OWN, **wrong)))
    field = field.replace("[7]", f"[{len(DEFAULT.types)}]")

    with pytest.raises(InvalidArgument) as refused:
        checked(written_as(wrong), "rules")
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_drafted_rule_set_keeps_all_rules_even_those_built_in():
    [drafted] = DECIDER.decide(pb.DraftRuleSetRequest(display_name="As it is"), DECIDER.initial)

    assert rules_in(drafted.rules) == DEFAULT
    assert len(drafted.rules.types) == len(DEFAULT.types)


def test_an_id_is_drafted_once_and_not_without_end():
    with pytest.raises(AlreadyExists):
        DECIDER.decide(draft(), after(draft()))
    assert decider_with(RULE_SETS_MAX - 1).decide(draft(), DECIDER.initial)
    with pytest.raises(ResourceExhausted):
        decider_with(RULE_SETS_MAX).decide(draft(), DECIDER.initial)


PREVIEW, DISCARD = pb.PreviewRuleSetRequest(name=NAME), pb.DiscardRuleSetRequest(name=NAME)
PUBLISH = pb.PublishRuleSetRequest(name=NAME)
AT_ONCE = pb.PublishRuleSetRequest(name=NAME, skip_preview=True)
PREVIEWED, PUBLISHED = facts.RuleSetPreviewed(), facts.RuleSetPublished()
SUPERSEDED, FAILED = facts.RuleSetSuperseded(by="ruleSets/s"), facts.RuleSetFailed(reason="x")


@pytest.mark.parametrize(
    ("before", "command", "fact"),
    [
        ([], PREVIEW, "RuleSetPreviewRequested"),
        ([PREVIEW, PREVIEWED], PREVIEW, "RuleSetPreviewRequested"),
        ([PREVIEW, FAILED], PREVIEW, "RuleSetPreviewRequested"),
        ([PREVIEW, PREVIEWED], PUBLISH, "RuleSetPublishRequested"),
        ([], AT_ONCE, "RuleSetPublishRequested"),
        ([AT_ONCE, PUBLISHED, SUPERSEDED], AT_ONCE, "RuleSetPublishRequested"),
        ([AT_ONCE, PUBLISHED, SUPERSEDED], PREVIEW, "RuleSetPreviewRequested"),
        ([PREVIEW], DISCARD, "RuleSetDiscarded"),
        ([AT_ONCE], DISCARD, "RuleSetDiscarded"),
    ],
)
def test_a_step_follows_another(before, command, fact):
    [event] = DECIDER.decide(command, after(draft(), *before))

    assert event.DESCRIPTOR.name == fact


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ([PREVIEW], PREVIEW),
        ([AT_ONCE], PUBLISH),
        ([AT_ONCE, PUBLISHED], PUBLISH),
        ([DISCARD], DISCARD),
    ],
)
def test_a_step_that_was_taken_is_no_news(before, command):
    assert DECIDER.decide(command, after(draft(), *before)) == []


@pytest.mark.parametrize(
    ("before", "command"),
    [
        ([], PUBLISH),
        ([PREVIEW], PUBLISH),
        ([AT_ONCE, PUBLISHED], PREVIEW),
        ([AT_ONCE, PUBLISHED], DISCARD),
        ([DISCARD], PREVIEW),
        ([DISCARD], AT_ONCE),
    ],
)
def test_a_step_that_leads_nowhere_is_refused(before, command):
    with pytest.raises(FailedPrecondition):
        DECIDER.decide(command, after(draft(), *before))


def test_nothing_is_done_with_what_nobody_drafted():
    with pytest.raises(NotFound):
        DECIDER.decide(PREVIEW, DECIDER.initial)


def test_what_would_become_of_profiles_is_counted_with_some_of_each_kind():
    shift = Shift()
    told = [
        facts.ProfileCreated(profile="profiles/new"),
        facts.ProfileSplit(profile="profiles/a", split_off="profiles/new", atoms=["1", "2"]),
        facts.ProfileSplit(profile="profiles/a", split_off="profiles/b", atoms=["3"]),
        facts.ProfileRemoved(profile="profiles/c"),
        *(
            facts.ProfilesMerged(survivor="profiles/b", absorbed=f"profiles/{n}", atoms=[f"{n}"])
            for n in range(EXAMPLES_PER_KIND_MAX + 1)
        ),
    ]
    for event in told:
        shift.add(Change("p", event, None))

    counts = shift.counts
    assert (counts.created_count, counts.split_count, counts.removed_count) == (1, 1, 1)
    assert counts.merged_count == EXAMPLES_PER_KIND_MAX + 1
    assert counts.moved_count == 3 + EXAMPLES_PER_KIND_MAX + 1
    assert len(list(shift.examples())) == EXAMPLES_PER_KIND_MAX + 2 + 1
