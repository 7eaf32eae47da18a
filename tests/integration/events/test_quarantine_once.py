"""One customer event leaves quarantine once: whoever asks, how often, and whatever fails."""

import asyncio
import uuid

import pytest

from rapport.events.v1.events_pb2 import CustomerEventQuarantined, CustomerEventRetracted
from rapport.events.v1.quarantine_pb2 import (
    DiscardQuarantinedEventsRequest,
    ListQuarantinedEventsRequest,
    QuarantineOutcome,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.quarantine_pb2_grpc import QuarantineServiceStub
from services.events.__main__ import SERVICE
from services.events.projections.quarantine import QuarantineView
from services.events.service import quarantine as limits
from services.kernel.errors import Unavailable
from services.kernel.log.log import Append, NewEvent, Origin, read_heads, read_partition
from services.kernel.testing import eventually
from services.kernel.views.view import append_with_views, digest

RECORDED = QuarantineOutcome.QUARANTINE_OUTCOME_RECORDED
STILL = QuarantineOutcome.QUARANTINE_OUTCOME_STILL_QUARANTINED
DISCARDED = QuarantineOutcome.QUARANTINE_OUTCOME_DISCARDED
ALREADY_RECORDED = QuarantineOutcome.QUARANTINE_OUTCOME_ALREADY_RECORDED
ALREADY_DISCARDED = QuarantineOutcome.QUARANTINE_OUTCOME_ALREADY_DISCARDED

IDS = [f"m-{number:02}" for number in range(20)]
NAMES = [f"quarantinedEvents/{message_id}" for message_id in IDS]
RESUBMIT = ResubmitQuarantinedEventsRequest(names=NAMES)
DISCARD = DiscardQuarantinedEventsRequest(names=reversed(NAMES), comment="a test of the shop")


@pytest.fixture
async def kept(plan, record, sent):
    """Twenty customer events in quarantine that the plan does not mind any more."""
    response = await record(*[sent(message_id) for message_id in IDS])
    plan.needed = ""
    return response


async def logged(asked):
    """The last words of the types in the log, by stream, in order."""
    found = {}
    for partition in await read_heads(asked.kernel.pool):
        for event in await read_partition(asked.kernel.pool, partition, after=0):
            found.setdefault(event.stream, []).append(event.type.rpartition(".")[2])
    return found


def outcomes(response):
    return {receipt.name: receipt.outcome for receipt in response.receipts}


async def waiting(asked):
    listed = await asked.stub(QuarantineServiceStub).ListQuarantinedEvents(
        ListQuarantinedEventsRequest(page_size=1000)
    )
    return [each.customer_event.message_id for each in listed.quarantined_events]


async def test_two_who_resubmit_at_once_record_each_once(asked, start_service, kept):
    other = await start_service(SERVICE)
    stubs = [process.stub(QuarantineServiceStub) for process in (asked, other)] * 3

    responses = await asyncio.gather(*[stub.ResubmitQuarantinedEvents(RESUBMIT) for stub in stubs])

    told = [outcomes(response) for response in responses]
    for name in NAMES:
        assert [RECORDED] + [ALREADY_RECORDED] * 5 == sorted(each[name] for each in told)
    histories = await logged(asked)
    assert len(IDS) == len(histories)
    assert all(
        ["CustomerEventQuarantined", "CustomerEventRecorded"] == h for h in histories.values()
    )
    assert [] == await waiting(asked)


async def test_of_two_who_resubmit_and_discard_at_once_one_wins(asked, start_service, kept):
    other = (await start_service(SERVICE)).stub(QuarantineServiceStub)
    quarantine = asked.stub(QuarantineServiceStub)
    filtered = DiscardQuarantinedEventsRequest(filter='name = "Order Completed"', comment="all")

    resubmitted, discarded, _ = await asyncio.gather(
        quarantine.ResubmitQuarantinedEvents(RESUBMIT),
        other.DiscardQuarantinedEvents(DISCARD),
        quarantine.DiscardQuarantinedEvents(filtered),
    )

    histories = await logged(asked)
    for name, message_id in zip(NAMES, IDS, strict=True):
        ends = histories[f"message-{message_id}"]
        assert 2 == len(ends)
        if ends[1] == "CustomerEventRecorded":
            assert (RECORDED, ALREADY_RECORDED) == (
                outcomes(resubmitted)[name],
                outcomes(discarded)[name],
            )
        else:
            assert ALREADY_DISCARDED == outcomes(resubmitted)[name]
            assert outcomes(discarded)[name] in {DISCARDED, ALREADY_DISCARDED}
    assert [] == await waiting(asked)


async def test_an_answer_that_got_lost_after_the_commit_is_told_again(asked, kept, monkeypatch):
    quarantine = asked.stub(QuarantineServiceStub)
    lost = []
    commit = type(asked.kernel.group_commit)._commit

    async def losing_the_answer(self, group):
        await commit(self, group)
        if not lost:
            lost.append(True)
            raise ConnectionResetError("the connection was lost after the commit")

    monkeypatch.setattr(type(asked.kernel.group_commit), "_commit", losing_the_answer)
    request = ResubmitQuarantinedEventsRequest(names=NAMES, request_id=str(uuid.uuid4()))
    with pytest.raises(Unavailable):
        await quarantine.ResubmitQuarantinedEvents(request)

    response = await quarantine.ResubmitQuarantinedEvents(request)

    assert dict.fromkeys(NAMES, RECORDED) == outcomes(response)
    assert list(range(21, 41)) == [receipt.position for receipt in response.receipts]
    assert {0: 40} == await read_heads(asked.kernel.pool)


async def test_a_connection_killed_before_the_commit_changes_nothing(asked, kept):
    quarantine = asked.stub(QuarantineServiceStub)
    async with asked.kernel.pool.acquire() as blocking, blocking.transaction():
        await asked.kernel.log.lock_heads(blocking, {0})
        resubmitting = asyncio.create_task(quarantine.ResubmitQuarantinedEvents(RESUBMIT))
        await eventually(lambda: _kill_who_waits(asked.kernel.pool))
        with pytest.raises(Unavailable):
            await resubmitting

    assert {0: 20} == await read_heads(asked.kernel.pool)
    assert set(IDS) == set(await waiting(asked))
    response = await quarantine.ResubmitQuarantinedEvents(RESUBMIT)
    assert dict.fromkeys(NAMES, RECORDED) == outcomes(response)


async def test_who_comes_while_as_many_resubmit_as_may_waits(asked, kept):
    quarantine = asked.stub(QuarantineServiceStub)
    at_once = limits.RESUBMISSIONS_AT_ONCE_MAX
    async with asked.kernel.pool.acquire() as blocking, blocking.transaction():
        await asked.kernel.log.lock_heads(blocking, {0})
        several = [
            asyncio.create_task(quarantine.ResubmitQuarantinedEvents(RESUBMIT))
            for _ in range(at_once + 1)
        ]
        await eventually(lambda: _queued(asked, at_once))
        assert not any(task.done() for task in several)

    told = [outcomes(response)[NAMES[0]] for response in await asyncio.gather(*several)]

    assert [RECORDED] + [ALREADY_RECORDED] * at_once == sorted(told)


async def test_one_that_was_taken_back_and_came_anew_is_judged_as_it_is_now(
    asked, kept, plan, record, sent, monkeypatch
):
    """Between the look at the fact and the commit an import is undone and sent again."""
    quarantine = asked.stub(QuarantineServiceStub)
    origin = Origin("acme", "imports", "", "")
    judged = limits.QuarantineService._judged

    async def meanwhile(self, message_ids, fixes, told_by):
        leaving = await judged(self, message_ids, fixes, told_by)
        async with asked.kernel.pool.acquire() as tx, tx.transaction():
            gone = CustomerEventRetracted(message_id=IDS[0])
            anew = CustomerEventQuarantined(customer_event=sent(IDS[0]))
            append = Append(origin, f"message-{IDS[0]}", [NewEvent(gone), NewEvent(anew)])
            await append_with_views(tx, asked.kernel.log, asked.kernel.views, [append])
        return leaving

    with monkeypatch.context() as patched:
        patched.setattr(limits.QuarantineService, "_judged", meanwhile)
        response = await quarantine.ResubmitQuarantinedEvents(RESUBMIT)

    assert (STILL, "CONFLICT") == (response.receipts[0].outcome, response.receipts[0].reason)
    assert [RECORDED] * 19 == [receipt.outcome for receipt in response.receipts[1:]]
    again = await quarantine.ResubmitQuarantinedEvents(RESUBMIT)
    assert RECORDED == again.receipts[0].outcome


async def test_a_view_folded_anew_in_whatever_batches_equals_the_live_one(
    asked, kept, plan, record, sent
):
    quarantine = asked.stub(QuarantineServiceStub)
    await quarantine.ResubmitQuarantinedEvents(ResubmitQuarantinedEventsRequest(names=NAMES[:5]))
    await quarantine.DiscardQuarantinedEvents(
        DiscardQuarantinedEventsRequest(names=NAMES[5:8], comment="x")
    )
    decode = SERVICE.event_types.decode
    logged = [decode(each) for each in await read_partition(asked.kernel.pool, 0, after=0)]

    async with asked.kernel.pool.acquire() as tx:
        live = await digest(tx, "quarantine")
        for number, batches in enumerate([[logged], [[event] for event in logged]]):
            schema = f"anew_{number}"
            await tx.execute(f"create schema {schema}")
            await tx.execute(QuarantineView().tables(schema))
            for batch in batches:
                async with tx.transaction():
                    await QuarantineView().apply(tx, schema, batch)
            assert live == await digest(tx, schema)

    assert 12 == live["quarantined_events"][0]


WAITING = """
select pid from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query like '%kernel.heads%'
"""


async def _kill_who_waits(pool):
    assert await pool.fetch(f"select pg_terminate_backend(pid) from ({WAITING}) waiting")


async def _queued(asked, number):
    group_commit = asked.kernel.group_commit
    assert number == len(group_commit._queue) + len(group_commit._taken)
