"""Alerts name numbers that a process of ours tells, and say what is to be done."""

import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from services.deals.upkeep.reminders import ReminderMetrics
from services.events.upkeep.gauges import QUARANTINE_WARN_SIZE, EventsGauges
from services.kernel.feed.reader import ReaderMetrics
from services.kernel.feed.relay import RelayMetrics
from services.kernel.process.metrics import RpcMetrics
from services.kernel.process.tasks import Tasks
from services.kernel.views.projection import ProjectionMetrics
from services.segments.upkeep import UpkeepMetrics

ALERTS = Path(__file__).parents[2] / "deploy" / "alerts"
RULES = [
    pytest.param(rule, id=rule["alert"])
    for path in sorted(ALERTS.glob("*.yaml"))
    for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
TELLING = (
    EventsGauges,
    ProjectionMetrics,
    ReaderMetrics,
    RelayMetrics,
    ReminderMetrics,
    RpcMetrics,
    Tasks,
    UpkeepMetrics,
)


def known():
    """The labels of each number that our processes tell, by its name."""
    registry = CollectorRegistry()
    for each in TELLING:
        each(registry)
    found = {}
    for collector in set(registry._names_to_collectors.values()):
        labels = set(collector._labelnames)
        for family in collector.describe():
            suffix = "_total" if family.type == "counter" else ""
            found[f"{family.name}{suffix}"] = labels
    return found


@pytest.mark.parametrize("rule", RULES)
def test_an_alert_names_numbers_and_labels_that_there_are(rule):
    numbers = known()

    named = re.findall(r"\b(rapport_\w+)(?:\{([^}]*)\})?", rule["expr"])
    assert named
    for number, matchers in named:
        assert number in numbers
        labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
        assert labels <= numbers[number]


@pytest.mark.parametrize("rule", RULES)
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_the_alert_and_the_log_call_the_same_quarantine_large():
    [expression] = [
        found.values[0]["expr"]
        for found in RULES
        if found.values[0]["alert"] == "QuarantineIsLarge"
    ]

    assert expression.endswith(f">= {QUARANTINE_WARN_SIZE}")
