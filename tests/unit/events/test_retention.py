"""For how long customer events are kept: what a rule takes, and how one is made."""

from datetime import UTC, datetime, timedelta

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import (
    RetentionRuleCreated,
    RetentionRuleDisabled,
    RetentionRuleEnabled,
    RetentionSettings,
)
from rapport.events.v1.retention_pb2 import (
    CreateRetentionRuleRequest,
    DisableRetentionRuleRequest,
    EnableRetentionRuleRequest,
)
from services.events.deciders.retention_rule import (
    DECIDER,
    RETENTION_RULES_MAX,
    decider_with,
)
from services.events.retention import before, takes
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound, ResourceExhausted
from services.kernel.log.recorded import timestamp_of
from services.kernel.testing import Spec

NOW = datetime(2026, 11, 26, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
ERASE, ANONYMISE = 1, 2
NAME = "retentionRules/pages"
SETTINGS = RetentionSettings(type=3, keep_days=30)
CREATED = RetentionRuleCreated(display_name="Pages", settings=SETTINGS)
CREATE = CreateRetentionRuleRequest(
    retention_rule_id="pages", display_name="Pages", settings=SETTINGS
)
ENABLE = EnableRetentionRuleRequest(name=NAME)
DISABLE = DisableRetentionRuleRequest(name=NAME)


def old(by=MICROSECOND, **fields):
    """A customer event that was received 30 days and so much more ago."""
    received = timestamp_of(NOW - timedelta(days=30) - by)
    return CustomerEvent(**{"type": 1, "name": "Seen", "receive_time": received} | fields)


@pytest.mark.parametrize(
    ("settings", "is_taken"),
    [
        ({}, True),
        ({"type": 1}, True),
        ({"type": 2}, False),
        ({"source": "sources/web"}, True),
        ({"source": "sources/app"}, False),
        ({"event_name": "Seen"}, True),
        ({"event_name": "seen"}, False),
        ({"keep_days": 31}, False),
        ({"keep_days": 1}, True),
    ],
)
def test_a_rule_takes_what_it_is_about(settings, is_taken):
    rule = RetentionSettings(**{"keep_days": 30} | settings)

    assert is_taken is takes(rule, old(source="sources/web"), NOW)


def test_what_is_exactly_so_old_is_kept_a_microsecond_longer():
    rule = RetentionSettings(keep_days=30)

    assert NOW - timedelta(days=30) == before(rule, NOW)
    assert takes(rule, old(), NOW)
    assert not takes(rule, old(by=timedelta()), NOW)


def test_what_is_nobodys_already_is_not_anonymised_again_but_can_be_erased():
    left = old(message_id="anonymised-1")

    assert not takes(RetentionSettings(keep_days=30, treatment=ANONYMISE), left, NOW)
    assert takes(RetentionSettings(keep_days=30, treatment=ERASE), left, NOW)


def test_a_rule_is_made_enabled_and_disabled_and_what_is_so_already_is_no_news():
    Spec(DECIDER).when(CREATE).then(CREATED)
    Spec(DECIDER).given(CREATED).when(ENABLE).then(RetentionRuleEnabled())
    Spec(DECIDER).given(CREATED, RetentionRuleEnabled()).when(ENABLE).then()
    Spec(DECIDER).given(CREATED, RetentionRuleEnabled()).when(DISABLE).then(RetentionRuleDisabled())
    Spec(DECIDER).given(CREATED).when(DISABLE).then()
    Spec(DECIDER).given(CREATED).when(CREATE).then_refused(AlreadyExists)
    Spec(DECIDER).when(ENABLE).then_refused(NotFound)


@pytest.mark.parametrize("source", ["web", "sources/a/b"])
def test_a_rule_is_about_a_source_that_there_can_be(source):
    settings = RetentionSettings(source=source, keep_days=1)
    create = CreateRetentionRuleRequest(display_name="Pages", settings=settings)

    Spec(DECIDER).when(create).then_refused(InvalidArgument)


def test_a_workspace_has_so_many_rules_and_no_more():
    Spec(decider_with(RETENTION_RULES_MAX - 1)).when(CREATE).then(CREATED)
    Spec(decider_with(RETENTION_RULES_MAX)).when(CREATE).then_refused(ResourceExhausted)
