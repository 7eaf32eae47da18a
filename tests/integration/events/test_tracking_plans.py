"""A plan is drafted, published and in force at the doors; its past can be asked and its future."""

import asyncio
import json
import uuid

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import (
    SourceSettings,
    TrackingPlanContent,
    TrackingPlanRule,
    ViolationPolicy,
)
from rapport.events.v1.service_pb2 import (
    GetCustomerEventRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
)
from rapport.events.v1.sources_pb2 import CreateSourceRequest
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from rapport.events.v1.tracking_plans_pb2 import (
    ArchiveTrackingPlanRequest,
    ChangeKind,
    CreateTrackingPlanRequest,
    DiffTrackingPlanRequest,
    DraftTrackingPlanRequest,
    GetTrackingPlanRequest,
    InferTrackingPlanRequest,
    ListTrackingPlansRequest,
    PreviewTrackingPlanRequest,
    PublishTrackingPlanRequest,
    TrackingPlanState,
)
from rapport.events.v1.tracking_plans_pb2_grpc import TrackingPlansServiceStub
from services.events.projections import lookback
from services.kernel.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)

TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
FLAG = ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG
OMIT = ViolationPolicy.VIOLATION_POLICY_OMIT_PROPERTY
QUARANTINE = ViolationPolicy.VIOLATION_POLICY_QUARANTINE
REFUSE = ViolationPolicy.VIOLATION_POLICY_REFUSE
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
QUARANTINED = ReceiptOutcome.RECEIPT_OUTCOME_QUARANTINED
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED

PRICED = {"properties": {"price": {"type": "number"}}, "required": ["price"]}


def content_of(policy=QUARANTINE, schema=None, **more):
    inside = {"properties": {"properties": PRICED if schema is None else schema}}
    rule = TrackingPlanRule(
        type=TRACK, event_name="Order Completed", schema=json.dumps(inside), policy=policy
    )
    return TrackingPlanContent(rules=[rule], **more)


@pytest.fixture
def plans(asked):
    return asked.stub(TrackingPlansServiceStub)


@pytest.fixture
def publish(plans):
    """A plan with a published version: `await publish(content_of())`."""

    async def publish(content, plan_id="shop"):
        created = await plans.CreateTrackingPlan(
            CreateTrackingPlanRequest(tracking_plan_id=plan_id, display_name="S", content=content)
        )
        return await plans.PublishTrackingPlan(
            PublishTrackingPlanRequest(name=created.tracking_plan.name)
        )

    return publish


@pytest.fixture
def record_from(asked, events):
    """Records as a source that is held against the plan: `await record_from("shop", event)`."""
    known = set()

    async def record_from(plan_id, *customer_events):
        if plan_id not in known:
            known.add(plan_id)
            settings = SourceSettings(tracking_plan=f"trackingPlans/{plan_id}")
            await asked.stub(SourcesServiceStub).CreateSource(
                CreateSourceRequest(source_id=plan_id, display_name=plan_id, settings=settings)
            )
        return await events.RecordCustomerEvents(
            RecordCustomerEventsRequest(
                customer_events=customer_events, source=f"sources/{plan_id}"
            )
        )

    return record_from


async def test_every_version_is_kept_as_it_was(plans, publish):
    first = (await publish(content_of(FLAG))).tracking_plan
    await plans.DraftTrackingPlan(
        DraftTrackingPlanRequest(name=first.name, content=content_of(REFUSE), etag=first.etag)
    )
    second = (
        await plans.PublishTrackingPlan(PublishTrackingPlanRequest(name=first.name))
    ).tracking_plan

    async def get(name):
        return (await plans.GetTrackingPlan(GetTrackingPlanRequest(name=name))).tracking_plan

    assert (1, 2) == (first.version, second.version)
    now, old = await get("trackingPlans/shop"), await get("trackingPlans/shop@1")
    assert (content_of(REFUSE), content_of(REFUSE), 2) == (now.draft, now.published, now.version)
    assert (content_of(FLAG), 1, False) == (old.published, old.version, old.HasField("draft"))
    for unknown in ("trackingPlans/shop@3", "trackingPlans/none", "trackingPlans/none@1"):
        with pytest.raises(NotFound):
            await get(unknown)
    for odd in ("plans/shop", "trackingPlans/shop@", "trackingPlans/shop@01"):
        with pytest.raises(InvalidArgument):
            await get(odd)


async def test_a_published_plan_is_in_force_at_once(publish, record_from, events, sent):
    await publish(content_of(unplanned_policy=FLAG))

    response = await record_from(
        "shop",
        sent("good", properties='{"price":1}'),
        sent("bad", properties='{"price":"x"}'),
        sent("other", name="Other"),
    )

    assert [ACCEPTED, QUARANTINED, ACCEPTED] == [each.outcome for each in response.receipts]
    assert "PLAN_VIOLATED" == response.receipts[1].reason
    kept = await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/other"))
    assert ["unplanned"] == [violation.rule for violation in kept.customer_event.violations]


async def test_what_is_wrong_is_left_out_before_it_is_recorded(publish, record_from, events, sent):
    await publish(content_of(OMIT))
    await record_from("shop", sent("m", properties='{"price":"x","sku":"a"}'))

    kept = await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/m"))
    assert '{"sku":"a"}' == kept.customer_event.properties
    assert {"trackingPlans/shop@1"} == {
        violation.tracking_plan for violation in kept.customer_event.violations
    }


async def test_another_version_and_archiving_hold_at_once_too(plans, publish, record_from, sent):
    await publish(content_of(REFUSE))
    bad = '{"price":"x"}'

    assert [REFUSED] == [r.outcome for r in (await record_from("shop", sent("1"))).receipts]
    await plans.DraftTrackingPlan(
        DraftTrackingPlanRequest(name="trackingPlans/shop", content=content_of(FLAG))
    )
    draft_only = await record_from("shop", sent("2", properties=bad))
    await plans.PublishTrackingPlan(PublishTrackingPlanRequest(name="trackingPlans/shop"))
    flagged = await record_from("shop", sent("3", properties=bad))
    await plans.ArchiveTrackingPlan(ArchiveTrackingPlanRequest(name="trackingPlans/shop"))
    free = await record_from("shop", sent("4", properties=bad))

    assert [[REFUSED], [ACCEPTED], [ACCEPTED]] == [
        [receipt.outcome for receipt in response.receipts]
        for response in (draft_only, flagged, free)
    ]


async def test_what_a_plan_refuses_to_be_is_named_by_field(plans):
    with pytest.raises(InvalidArgument) as refused:
        await plans.CreateTrackingPlan(
            CreateTrackingPlanRequest(display_name="S", content=content_of(schema={"type": "x"}))
        )

    assert ["content.rules[0].schema"] == [each.field for each in refused.value.violations]


async def test_commands_meet_the_state_of_the_plan(plans, publish):
    published = await publish(content_of())
    name = published.tracking_plan.name

    with pytest.raises(AlreadyExists):
        await publish(content_of())
    with pytest.raises(Aborted):
        await plans.ArchiveTrackingPlan(ArchiveTrackingPlanRequest(name=name, etag='"1"'))
    await plans.ArchiveTrackingPlan(ArchiveTrackingPlanRequest(name=name))
    with pytest.raises(FailedPrecondition):
        await plans.PublishTrackingPlan(PublishTrackingPlanRequest(name=name))


async def test_a_repeated_request_has_one_effect(plans):
    request = CreateTrackingPlanRequest(display_name="S", request_id=str(uuid.uuid4()))

    assert await plans.CreateTrackingPlan(request) == await plans.CreateTrackingPlan(request)


async def test_a_list_shows_plans_without_their_contents(asked, plans, publish):
    await publish(content_of(), "a")
    await publish(content_of(), "b")
    await plans.ArchiveTrackingPlan(ArchiveTrackingPlanRequest(name="trackingPlans/a"))

    async def names(stub, **said):
        listed = await stub.ListTrackingPlans(ListTrackingPlansRequest(**said))
        return [plan.name for plan in listed.tracking_plans]

    assert ["trackingPlans/a", "trackingPlans/b"] == await names(plans)
    assert ["trackingPlans/a"] == await names(plans, filter="state = ARCHIVED")
    assert [] == await names(asked.stub(TrackingPlansServiceStub, workspace="globex"))
    [first, _] = (await plans.ListTrackingPlans(ListTrackingPlansRequest())).tracking_plans
    assert (1, TrackingPlanState.TRACKING_PLAN_STATE_ARCHIVED) == (first.version, first.state)
    assert not first.HasField("draft")
    assert not first.HasField("published")


async def test_a_draft_and_versions_are_compared(plans, publish):
    await publish(content_of(FLAG))
    await plans.DraftTrackingPlan(
        DraftTrackingPlanRequest(name="trackingPlans/shop", content=content_of(REFUSE, {}))
    )

    async def compared(name, base_version=0):
        return await plans.DiffTrackingPlan(
            DiffTrackingPlanRequest(name=name, base_version=base_version)
        )

    draft = await compared("trackingPlans/shop")
    assert (1, True) == (draft.base_version, draft.is_complete)
    [change] = draft.changes
    assert ChangeKind.CHANGE_KIND_CHANGED == change.kind
    assert {"/properties/price": ChangeKind.CHANGE_KIND_REMOVED} == {
        each.path: each.kind for each in change.properties if each.path.count("/") > 1
    }
    assert not (await compared("trackingPlans/shop@1")).changes
    with pytest.raises(NotFound):
        await compared("trackingPlans/shop", base_version=2)


async def test_a_plan_that_was_never_published_is_all_new(plans):
    await plans.CreateTrackingPlan(
        CreateTrackingPlanRequest(tracking_plan_id="x", display_name="X", content=content_of())
    )

    found = await plans.DiffTrackingPlan(DiffTrackingPlanRequest(name="trackingPlans/x"))
    assert (0, [ChangeKind.CHANGE_KIND_ADDED]) == (
        found.base_version,
        [change.kind for change in found.changes],
    )


async def test_a_plan_is_inferred_from_what_was_recorded_and_can_be_published(
    plans, publish, record, sent
):
    response = await record(
        *[sent(f"o{n}", properties=json.dumps({"price": n, "sku": f"s{n}"})) for n in range(20)],
        sent("v", name="Viewed"),
    )

    inferred = await plans.InferTrackingPlan(
        InferTrackingPlanRequest(read_token=response.write_token)
    )
    assert (21, True, 0) == (inferred.looked_at, inferred.is_complete, inferred.rules_left_out)
    assert ["Order Completed", "Viewed"] == [rule.event_name for rule in inferred.content.rules]
    await publish(inferred.content)
    of_one = await plans.InferTrackingPlan(InferTrackingPlanRequest(event_names=["Viewed"]))
    assert (1, ["Viewed"]) == (of_one.looked_at, [r.event_name for r in of_one.content.rules])


async def test_only_what_came_from_a_source_is_looked_at(plans, publish, record, record_from, sent):
    await publish(content_of(FLAG))
    await record(sent("a"))
    response = await record_from("shop", sent("b"), sent("c"))

    looked = [
        (
            await plans.InferTrackingPlan(
                InferTrackingPlanRequest(source=source, read_token=response.write_token)
            )
        ).looked_at
        for source in ("", "sources/shop", "sources/none")
    ]
    assert [3, 2, 0] == looked


async def test_a_preview_tells_what_would_have_become_of_what_was_recorded(
    plans, publish, record, sent
):
    await publish(content_of())
    response = await record(
        *[sent(f"good{n}", properties='{"price":1}') for n in range(5)],
        *[sent(f"bad{n}", properties='{"price":"x"}') for n in range(3)],
        sent("missing"),
        sent("other", name="Other"),
    )

    async def preview(**said):
        return await plans.PreviewTrackingPlan(
            PreviewTrackingPlanRequest(read_token=response.write_token, **said)
        )

    told = await preview(name="trackingPlans/shop")
    assert (10, True) == (told.looked_at, told.is_complete)
    assert (6, 4) == (told.outcomes.valid, told.outcomes.quarantined)
    assert ["Order Completed", "Other"] == [event.event_name for event in told.events]
    assert [("type", "/properties/price", 3), ("required", "/properties/price", 1)] == [
        (rule.rule, rule.path, rule.count) for rule in told.rules
    ]
    assert {"bad0", "bad1", "bad2"} == set(told.rules[0].example_message_ids)
    assert told == await preview(name="trackingPlans/shop@1")
    inline = await preview(content=content_of(OMIT, unplanned_policy=REFUSE))
    assert (5, 4, 1) == (
        inline.outcomes.valid,
        inline.outcomes.omitted_from + inline.outcomes.flagged,
        inline.outcomes.refused,
    )


async def test_a_preview_needs_one_plan(plans):
    for said in ({}, {"name": "trackingPlans/x", "content": content_of()}):
        with pytest.raises(InvalidArgument):
            await plans.PreviewTrackingPlan(PreviewTrackingPlanRequest(**said))
    with pytest.raises(InvalidArgument):
        await plans.PreviewTrackingPlan(
            PreviewTrackingPlanRequest(content=content_of(schema={"type": "x"}))
        )


async def test_it_is_looked_back_up_to_a_limit_and_said_so(plans, record, sent, asked, monkeypatch):
    monkeypatch.setattr(lookback, "PIECE_SIZE", 3)
    token = (await record(*[sent() for _ in range(7)])).write_token
    await plans.InferTrackingPlan(InferTrackingPlanRequest(read_token=token))

    async def looked(limit):
        look = lookback.Lookback(
            pool=asked.kernel.pool,
            event_types=asked.kernel.event_types,
            workspace="acme",
            since=asked.kernel.clock.now().replace(year=2000),
            limit=limit,
        )
        found = [it.message_id async for it in look.customer_events()]
        assert len(set(found)) == look.looked_at
        return look.looked_at, look.is_complete

    assert (7, True) == await looked(8)
    assert (7, True) == await looked(7)
    assert (6, False) == await looked(6)


async def test_others_are_served_while_it_is_looked_back(plans, record, sent, asked):
    token = (await record(*[sent() for _ in range(20)])).write_token
    await plans.InferTrackingPlan(InferTrackingPlanRequest(read_token=token))
    look = lookback.Lookback(
        pool=asked.kernel.pool,
        event_types=asked.kernel.event_types,
        workspace="acme",
        since=asked.kernel.clock.now().replace(year=2000),
    )
    turns = set()

    def other():
        turns.add(look.looked_at)
        if not look.is_complete:
            asyncio.get_running_loop().call_soon(other)

    other()
    found = [it async for it in look.customer_events()]

    assert set(range(len(found))) <= turns


async def test_it_is_looked_back_no_longer_than_there_is_time(plans, record, sent, asked):
    token = (await record(sent())).write_token
    await plans.InferTrackingPlan(InferTrackingPlanRequest(read_token=token))
    look = lookback.Lookback(
        pool=asked.kernel.pool,
        event_types=asked.kernel.event_types,
        workspace="acme",
        since=asked.kernel.clock.now().replace(year=2000),
        remaining_s=lookback.ANSWER_RESERVE_S,
    )

    assert [] == [it async for it in look.customer_events()]
    assert (0, False) == (look.looked_at, look.is_complete)
