"""Contracts as callers meet them, as the days go by."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry

from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import ContractTerms
from rapport.deals.v1.contracts_pb2_grpc import ContractsServiceStub
from services.deals.__main__ import SERVICE
from services.deals.deciders.contract import DECIDER
from services.deals.projections.contract_answers import contract_of, shown_on
from services.deals.projections.contracts import CONTRACT_ROWS, ContractsView
from services.deals.upkeep.reminders import ReminderMetrics, Reminders
from services.kernel.clock import FixedClock
from services.kernel.errors import AlreadyExists, InvalidArgument, NotFound
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin, read_stream
from services.kernel.log.recorded import timestamp_of
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild
from services.kernel.views.view import append_with_views
from tests.contracts_world import (
    FIXED,
    NOTICED,
    ROLLING,
    active,
    drafted,
    renewed,
    signed,
    terminated,
    with_terms,
)

START = datetime(2026, 6, 15, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def clock():
    return FixedClock(START)


@pytest.fixture
async def asked(start_service, clock):
    return await start_service(SERVICE, clock=clock)


@pytest.fixture
def contracts(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(ContractsServiceStub)


async def happened(kernel, **histories):
    """Contracts to which this happened, by id, each with a reference of its own."""
    origin = Origin("acme", "tests", "", "")
    appends = [
        Append(origin, DECIDER.stream(contract_id), [NewEvent(event) for event in history])
        for contract_id, history in histories.items()
    ]
    async with transaction(kernel.pool) as tx:
        await append_with_views(tx, kernel.log, kernel.views, appends)


async def reminders_of(kernel, contract_id):
    """The reminders that came of a contract: kind and day."""
    envelopes = await read_stream(kernel.pool, "acme", DECIDER.stream(contract_id))
    events = [kernel.event_types.decode(envelope).event for envelope in envelopes]
    return [
        (event.kind, event.due_date)
        for event in events
        if isinstance(event, facts.ContractReminderCame)
    ]


async def listed(contracts, **said):
    response = await contracts.ListContracts(pb.ListContractsRequest(**said))
    return [contract.name.removeprefix("contracts/") for contract in response.contracts]


async def test_a_contract_is_drafted_agreed_on_put_into_force_and_renewed(contracts):
    name = "contracts/looms"
    await contracts.DraftContract(pb.DraftContractRequest(contract_id="looms", terms=FIXED))
    await contracts.SubmitContract(pb.SubmitContractRequest(name=name))
    approved = await contracts.ApproveContract(pb.ApproveContractRequest(name=name))
    for party in (1, 2):
        await contracts.SignContract(
            pb.SignContractRequest(name=name, party=party, signatory="Ada")
        )
    await contracts.ActivateContract(pb.ActivateContractRequest(name=name))
    renewal = await contracts.RenewContract(
        pb.RenewContractRequest(name=name, contract_id="next", reference="C-18")
    )

    got = await contracts.GetContract(
        pb.GetContractRequest(name=name, read_token=renewal.write_token)
    )
    follower = await contracts.GetContract(pb.GetContractRequest(name="contracts/next"))
    assert "api_keys/tests" == approved.contract.approver
    assert renewal.renewed == got.contract
    assert renewal.contract == follower.contract
    assert (pb.CONTRACT_STATE_ACTIVE, "contracts/next") == (
        got.contract.state,
        got.contract.renewed_by,
    )
    assert (pb.CONTRACT_STATE_DRAFT, name, "2027-01-31", "2028-01-30") == (
        renewal.contract.state,
        renewal.contract.renews,
        renewal.contract.terms.start_date,
        renewal.contract.end_date,
    )


async def test_a_reference_belongs_to_one_contract_and_a_refused_renewal_changes_neither(
    asked, contracts
):
    await contracts.DraftContract(pb.DraftContractRequest(contract_id="first", terms=FIXED))
    await happened(asked.kernel, old=active(with_terms(reference="C-16")))

    with pytest.raises(AlreadyExists) as drafted_twice:
        await contracts.DraftContract(pb.DraftContractRequest(terms=with_terms(reference=" c-17 ")))
    with pytest.raises(AlreadyExists) as taken:
        await contracts.RenewContract(
            pb.RenewContractRequest(name="contracts/old", contract_id="new", reference="C-17")
        )
    with pytest.raises(AlreadyExists):
        await contracts.RenewContract(
            pb.RenewContractRequest(name="contracts/old", contract_id="old", reference="C-18")
        )

    old = await contracts.GetContract(pb.GetContractRequest(name="contracts/old"))
    assert "contracts/first" == drafted_twice.value.metadata["existing_name"]
    assert "contracts/first" == taken.value.metadata["existing_name"]
    assert "" == old.contract.renewed_by
    with pytest.raises(NotFound):
        await contracts.GetContract(pb.GetContractRequest(name="contracts/new"))


def many():
    """Contracts in every state, with terms of all lengths from the ends of months."""
    found = {}
    for number, start in enumerate(["2024-02-29", "2026-01-31", "2026-08-30", "2025-12-01"]):
        for months in (1, 3, 12, 25):
            for renewal in (0, 1, 2, 12):
                terms = with_terms(
                    start_date=start,
                    term_months=months,
                    auto_renew=renewal > 0,
                    renewal_term_months=renewal,
                )
                found[f"of-{number}-{months}-{renewal}"] = active(terms)
    closed = with_terms(
        start_date="2026-01-10",
        term_months=0,
        end_date="2026-02-28",
        auto_renew=True,
        renewal_term_months=1,
    )
    return {
        **found,
        "closed": active(closed),
        "draft": [drafted(ROLLING)],
        "signed": signed(),
        "noticed": [*active(ROLLING), NOTICED],
        "terminated": [*active(ROLLING), terminated("2026-09-30")],
        "dropped": [drafted(), terminated()],
        "renewed": [*active(ROLLING), renewed("2026-12-31")],
    }


async def test_what_is_filtered_by_is_what_is_shown_on_every_day(asked, contracts, clock):
    kernel = asked.kernel
    await happened(kernel, **many())
    records = await kernel.pool.fetch("select * from contracts.contracts")
    rows = [CONTRACT_ROWS.row(record) for record in records]
    firsts = [date(2025 + month // 12, month % 12 + 1, 1) for month in range(1, 36)]
    days = [first + timedelta(days=days) for first in firsts for days in (-2, -1, 0)]

    for day in days[::2]:
        told = {
            row.aggregate_id: (shown.state, shown.end_date)
            for row in rows
            for shown in [contract_of(row.aggregate_id, row, day)]
        }
        found = await kernel.pool.fetch(
            f"select contract_id, state, end_date from {shown_on(day, 'contracts')}"
        )
        assert told == {row[0]: (row[1], row[2]) for row in found}

    clock.set(datetime(2026, 10, 1, tzinfo=UTC))
    assert ["dropped", "terminated"] == sorted(
        await listed(contracts, filter="state = TERMINATED", page_size=1_000)
    )
    assert ["noticed", "renewed"] == sorted(
        await listed(
            contracts,
            filter='state = ACTIVE AND end_date <= "2027-01-30"'
            ' AND (notice_date:* OR renewed_by = "contracts/next")',
        )
    )


async def test_a_walk_in_the_order_of_moving_days_begins_anew_with_each_day(
    asked, contracts, clock
):
    await happened(asked.kernel, a=active(ROLLING), b=active(FIXED))
    by_end = pb.ListContractsRequest(order_by="end_date", page_size=1)
    as_made = pb.ListContractsRequest(page_size=1)
    by_end.page_token = (await contracts.ListContracts(by_end)).next_page_token
    as_made.page_token = (await contracts.ListContracts(as_made)).next_page_token

    clock.advance(DAY)

    assert 1 == len((await contracts.ListContracts(as_made)).contracts)
    with pytest.raises(InvalidArgument):
        await contracts.ListContracts(by_end)


async def test_the_past_is_shown_as_it_was(asked, contracts, clock):
    await happened(asked.kernel, looms=active(with_terms(start_date="2025-06-20")))
    then = timestamp_of(clock.now())
    before = await contracts.GetContract(pb.GetContractRequest(name="contracts/looms"))
    page = await contracts.ListContracts(pb.ListContractsRequest())
    clock.advance(30 * DAY)
    await contracts.UpdateContract(
        pb.UpdateContractRequest(name="contracts/looms", terms=ContractTerms(owner="members/ada"))
    )

    got = await contracts.GetContract(pb.GetContractRequest(name="contracts/looms", read_time=then))
    then_active = pb.ListContractsRequest(read_time=then, filter="state = ACTIVE")
    now = await contracts.GetContract(pb.GetContractRequest(name="contracts/looms"))

    assert before == got
    assert page == await contracts.ListContracts(then_active)
    assert (pb.CONTRACT_STATE_EXPIRED, "members/ada") == (
        now.contract.state,
        now.contract.terms.owner,
    )
    assert [] == await listed(contracts, filter="state = ACTIVE")


async def test_a_rebuilt_view_equals_the_live_one(asked):
    kernel = asked.kernel
    await happened(kernel, **many())
    rebuild = Rebuild(kernel.pool, kernel.log, ContractsView(), kernel.event_types, {})

    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert len(many()) == comparison.live["contracts"][0]
    assert comparison.equal


async def test_reminders_come_once_also_when_nobody_looked_on_their_day(start_service, clock):
    first = await start_service(SERVICE, clock=clock)
    await happened(first.kernel, rolling=active(ROLLING), fixed=active(FIXED))
    clock.set(datetime(2027, 2, 14, tzinfo=UTC))

    second = await start_service(SERVICE, clock=clock)

    async def all_came():
        assert [(1, "2027-01-15"), (1, "2027-02-13")] == await reminders_of(
            second.kernel, "rolling"
        )
        assert [(3, "2027-01-30")] == await reminders_of(second.kernel, "fixed")

    await eventually(all_came, within_s=20)


async def test_workers_that_look_at_once_record_each_reminder_once(asked, clock, monkeypatch):
    monkeypatch.setattr("services.deals.upkeep.reminders.CONTRACTS_PER_STEP_MAX", 2)
    await happened(asked.kernel, **{f"c-{n}": active(FIXED) for n in range(5)})
    workers = [Reminders(asked.kernel, ReminderMetrics(CollectorRegistry())) for _ in range(3)]
    clock.set(datetime(2027, 1, 30, tzinfo=UTC))

    for _ in range(4):
        await asyncio.gather(*(worker.step() for worker in workers))

    for number in range(5):
        assert [(3, "2027-01-30")] == await reminders_of(asked.kernel, f"c-{number}")


async def test_a_contract_that_cannot_be_read_holds_up_no_other(asked, clock):
    registry = CollectorRegistry()
    worker = Reminders(asked.kernel, ReminderMetrics(registry))
    await happened(asked.kernel, **{f"c-{n}": active(FIXED) for n in range(3)})
    clock.set(datetime(2027, 1, 30, tzinfo=UTC))
    await asked.kernel.pool.execute(
        "update contracts.contracts set folded = '\\xff' where contract_id = 'c-0'"
    )

    looks = [await worker.step() for _ in range(2)]

    came = [await reminders_of(asked.kernel, f"c-{number}") for number in range(3)]
    assert [True, False] == looks
    assert [[], [(3, "2027-01-30")], [(3, "2027-01-30")]] == came
    assert 1 == registry.get_sample_value("rapport_contract_reminders_failed_total")
    assert 2 == registry.get_sample_value("rapport_contract_reminders_total")
