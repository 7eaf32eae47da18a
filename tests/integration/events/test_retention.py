"""Customer events are kept for as long as the rules say, and not a moment less."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from rapport.events.v1.events_pb2 import RetentionSettings
from rapport.events.v1.retention_pb2 import (
    CreateRetentionRuleRequest,
    DisableRetentionRuleRequest,
    EnableRetentionRuleRequest,
    GetRetentionRuleRequest,
    ListRetentionRulesRequest,
    PreviewRetentionRuleRequest,
)
from rapport.events.v1.retention_pb2_grpc import RetentionServiceStub
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest, ReceiptOutcome
from services.events.__main__ import SERVICE
from services.events.upkeep import retaining
from services.kernel.clock import FixedClock
from services.kernel.erasing import register
from services.kernel.erasing.erasing import Erasing
from services.kernel.testing import eventually
from tests.erased_people import tables_with
from tests.integration.events.test_erasing import listed, rebuilt_as_live, told

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = timedelta(days=30)
MICROSECOND = timedelta(microseconds=1)
SECOND = timedelta(seconds=1)
PAGE, ANONYMISE = 3, 2
WITHIN_S = 20.0


@pytest.fixture
def clock():
    return FixedClock(BEGIN)


@pytest.fixture
async def asked(start_service, clock, monkeypatch):
    """The running service, which looks for what is old all the time."""
    monkeypatch.setattr(retaining, "PAUSE_S", 0.1)
    monkeypatch.setattr(retaining, "RETRY_PAUSE_S", 0.1)
    return await start_service(SERVICE, clock=clock)


@pytest.fixture
def rules(asked):
    return asked.stub(RetentionServiceStub)


async def enabled(rules, rule_id, **settings):
    """A rule that is enabled; its name."""
    create = CreateRetentionRuleRequest(
        retention_rule_id=rule_id,
        display_name="A rule",
        settings=RetentionSettings(keep_days=30, **settings),
    )
    name = (await rules.CreateRetentionRule(create)).retention_rule.name
    await rules.EnableRetentionRule(EnableRetentionRuleRequest(name=name))
    return name


async def test_what_is_older_goes_whatever_became_of_it_and_nothing_younger(
    asked, rules, clock, events, record, sent, plan, discard
):
    """By type, in quarantine too; another type, and what was received later, stay."""
    plan.needed = "total"
    good = '{"total":1}'
    page = {"type": PAGE, "properties": good}
    await record(sent("old", **page), sent("track", properties=good, user_id="zq7"))
    await record(sent("waits", type=PAGE, user_id="zq7"), sent("gone", type=PAGE, user_id="zq7"))
    await discard("gone")
    clock.advance(SECOND)
    await record(sent("young", **page))
    name = await enabled(rules, "pages", type=PAGE)
    preview = PreviewRetentionRuleRequest(name=name)

    async def taken(count):
        got = await rules.GetRetentionRule(GetRetentionRuleRequest(name=name))
        assert count == got.retention_rule.taken_count

    clock.set(BEGIN + DAYS)
    at = await rules.PreviewRetentionRule(preview)
    clock.advance(MICROSECOND)
    past = await rules.PreviewRetentionRule(preview)
    clock.advance(SECOND / 2)
    await eventually(lambda: taken(3), within_s=WITHIN_S)
    between = await listed(events)
    clock.advance(SECOND)
    await eventually(lambda: taken(4), within_s=WITHIN_S)
    await rules.DisableRetentionRule(DisableRetentionRuleRequest(name=name))
    clock.advance(2 * SECOND)
    again = await record(sent("old", **page), sent("gone", **page))
    [rule] = (await rules.ListRetentionRules(ListRetentionRulesRequest())).retention_rules

    assert (0, 1) == (at.count, past.count)
    assert {"track", "young"} == between
    assert {"track"} == await listed(events)
    assert {ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE} == {r.outcome for r in again.receipts}
    assert ("A rule", 4) == (rule.display_name, rule.taken_count)
    assert 5 == len(await told(asked.kernel))
    assert [] == await rebuilt_as_live(asked.kernel)


async def test_what_is_no_persons_is_kept_for_ever_where_the_rule_says_so(
    asked, rules, clock, events, record, sent, monkeypatch
):
    """Even if the process is lost before it has begun to erase, and after all was erased."""
    take_steps, lost = Erasing.take_steps, []

    async def crashing(self, *args, **kwargs):
        if len(lost) == 1:
            await take_steps(self, *args, **kwargs)
        if len(lost) < 2:
            lost.append(args)
            raise ConnectionResetError
        return await take_steps(self, *args, **kwargs)

    monkeypatch.setattr(Erasing, "take_steps", crashing)
    await record(sent("m-1", user_id="zq7", properties='{"total":5,"note":"zq7"}'))
    await enabled(rules, "all", treatment=ANONYMISE)
    clock.advance(timedelta(days=31))

    async def anonymised():
        found = await events.ListCustomerEvents(ListCustomerEventsRequest())
        assert ['{"total":5}'] == [each.properties for each in found.customer_events]
        return found.customer_events[0]

    left = await eventually(anonymised, within_s=WITHIN_S)

    async def resumed():
        assert 2 == len(lost)

    await eventually(resumed, within_s=WITHIN_S)
    clock.advance(timedelta(days=31))

    assert (BEGIN, "") == (left.receive_time.ToDatetime(tzinfo=UTC), left.user_id)
    assert [] == await tables_with(asked.kernel.pool, "zq7")
    assert left == await anonymised()


async def test_a_rule_that_is_disabled_ends_what_it_has_begun_and_takes_no_more(
    asked, rules, clock, events, record, sent, monkeypatch
):
    """The feed would keep what the log has lost, until somebody enabled the rule again."""
    take_steps, halted = Erasing.take_steps, retaining.halted_rules
    is_over = asyncio.Event()

    async def known_to_be_over(pool):
        found = await halted(pool)
        if found:
            is_over.set()
        return found

    async def crashing(self, erasure, **_):
        if is_over.is_set():
            return await take_steps(self, erasure)
        begun = await register.read(asked.kernel.pool, "acme", erasure.name)
        if not begun.counts:
            self._events_per_step = 1
            await take_steps(self, erasure, turn_s=0)
        raise ConnectionResetError

    async def left(count):
        assert count == len(await listed(events))

    async def wound_up():
        assert [] == await register.unfinished(asked.kernel.pool, "acme", name)

    monkeypatch.setattr(Erasing, "take_steps", crashing)
    monkeypatch.setattr(retaining, "halted_rules", known_to_be_over)
    await record(sent("m-1"), sent("m-2"))
    name = await enabled(rules, "all")
    clock.advance(timedelta(days=31))
    await eventually(lambda: left(1), within_s=WITHIN_S)
    await rules.DisableRetentionRule(DisableRetentionRuleRequest(name=name))
    await eventually(wound_up, within_s=WITHIN_S)
    await left(1)
    clock.advance(SECOND)
    await rules.EnableRetentionRule(EnableRetentionRuleRequest(name=name))
    await eventually(lambda: left(0), within_s=WITHIN_S)
