"""How many wait in quarantine, since when, and what became of all: told to who watches."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from prometheus_client import CollectorRegistry

from rapport.events.v1.quarantine_pb2 import DiscardQuarantinedEventsRequest
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest
from services.events.__main__ import SERVICE
from services.events.upkeep import gauges
from services.events.upkeep.gauges import EventsGauges, GaugesUpkeep
from services.kernel.clock import FixedClock

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock():
    """A clock that goes when it is told."""
    return FixedClock(NOON)


@pytest.fixture
async def asked(start_service, clock):
    """The service on that clock."""
    return await start_service(SERVICE, clock=clock)


@pytest.fixture
def registry():
    """Where the numbers are."""
    return CollectorRegistry()


@pytest.fixture
def upkeep(asked, registry):
    """A loop that takes a step when it is told."""
    return GaugesUpkeep(asked.kernel, EventsGauges(registry))


async def test_the_numbers_of_quarantine_are_told(
    asked, clock, upkeep, registry, plan, record, sent, quarantine, events
):
    def told():
        names = ("rapport_quarantine_waiting", "rapport_quarantine_oldest_age_seconds")
        return [registry.get_sample_value(name) for name in names]

    await upkeep.step()
    assert [0, 0] == told()

    await record(sent("a"), sent("b", properties='{"total":1}'))
    clock.advance(timedelta(hours=1))
    token = (await record(sent("c"), sent("c"), sent("d", user_id=""))).write_token
    await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token))
    await upkeep.step()

    waiting, age_s = told()
    assert 2 == waiting
    assert age_s == pytest.approx(3600, abs=1)
    outcomes = {"accepted": 1, "quarantined": 2, "duplicate": 1, "refused": 1, "sampled_out": 0}
    assert outcomes == _lately(registry)

    await quarantine.DiscardQuarantinedEvents(
        DiscardQuarantinedEventsRequest(
            names=["quarantinedEvents/a", "quarantinedEvents/c"], comment="x"
        )
    )
    await upkeep.step()
    assert [0, 0] == told()


def _lately(registry):
    outcomes = ("accepted", "quarantined", "duplicate", "refused", "sampled_out")
    name = "rapport_customer_events_lately"
    return {outcome: registry.get_sample_value(name, {"outcome": outcome}) for outcome in outcomes}


async def test_what_came_before_the_last_hour_is_summed_up_no_longer(
    clock, upkeep, registry, record, sent, events
):
    token = (await record(sent("a"), sent("b", user_id=""))).write_token
    await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token))
    clock.advance(timedelta(minutes=119))
    await upkeep.step()
    before = _lately(registry)
    clock.advance(timedelta(minutes=1))
    await upkeep.step()

    assert (1, 1) == (before["accepted"], before["refused"])
    assert {0} == set(_lately(registry).values())


async def test_a_large_quarantine_is_told_once_per_crossing(
    upkeep, plan, record, sent, quarantine, monkeypatch
):
    monkeypatch.setattr(gauges, "QUARANTINE_WARN_SIZE", 2)
    discard = DiscardQuarantinedEventsRequest(names=["quarantinedEvents/b"], comment="x")
    with structlog.testing.capture_logs() as lines:
        await record(sent("a"))
        await upkeep.step()
        await record(sent("b"))
        await upkeep.step()
        await upkeep.step()
        await quarantine.DiscardQuarantinedEvents(discard)
        await upkeep.step()
        await record(sent("c"))
        await upkeep.step()

    told = [
        (line["event"], line["waiting"])
        for line in lines
        if line["event"] in {"quarantine.large", "quarantine.small_again"}
    ]
    large, small = "quarantine.large", "quarantine.small_again"
    assert [(large, 2), (small, 1), (large, 2)] == told


async def test_a_database_that_is_away_stops_no_loop(upkeep, monkeypatch):
    steps = []
    monkeypatch.setattr(gauges, "PAUSE_S", 0)

    async def step(self):
        steps.append(True)
        if len(steps) == 3:
            raise asyncio.CancelledError
        raise ConnectionResetError("away")

    monkeypatch.setattr(GaugesUpkeep, "step", step)

    with pytest.raises(asyncio.CancelledError):
        await upkeep.run()

    assert 3 == len(steps)
