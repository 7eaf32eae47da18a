"""A transformation is previewed, enabled, and then changes what is recorded."""

import uuid

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.events_pb2 import TransformationSettings, TransformationStep
from rapport.events.v1.service_pb2 import GetCustomerEventRequest, ReceiptOutcome
from rapport.events.v1.transformations_pb2 import (
    ConfigureTransformationRequest,
    CreateTransformationRequest,
    DisableTransformationRequest,
    EnableTransformationRequest,
    GetTransformationRequest,
    ListTransformationsRequest,
    PreviewTransformationRequest,
    TransformationState,
)
from rapport.events.v1.transformations_pb2_grpc import TransformationsServiceStub
from services.kernel.errors import Aborted, AlreadyExists, InvalidArgument, NotFound

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
ENABLED = TransformationState.TRANSFORMATION_STATE_ENABLED
DISABLED = TransformationState.TRANSFORMATION_STATE_DISABLED
NAME = "transformations/t"


def settings(*steps, **more):
    return TransformationSettings(
        steps=steps or [TransformationStep(hash={"path": "properties.email"})], **more
    )


@pytest.fixture
def transformations(asked):
    return asked.stub(TransformationsServiceStub)


@pytest.fixture
def create(transformations):
    """Creates a transformation: `await create(settings())`."""

    async def create(made, own_id="t", **said):
        request = CreateTransformationRequest(
            transformation_id=own_id, display_name="T", settings=made, **said
        )
        return (await transformations.CreateTransformation(request)).transformation

    return create


@pytest.fixture
def recorded(record, events):
    """What becomes of a customer event in the log: `await recorded(sent("m"))`."""

    async def recorded(customer_event):
        receipt = (await record(customer_event)).receipts[0]
        assert ACCEPTED == receipt.outcome
        name = f"customerEvents/{receipt.message_id}"
        found = await events.GetCustomerEvent(GetCustomerEventRequest(name=name))
        return found.customer_event

    return recorded


async def test_only_while_it_is_enabled_it_changes_what_is_recorded(
    transformations, create, recorded, sent
):
    mail = '{"email":"a@example.com"}'
    await create(settings())

    before = await recorded(sent(properties=mail))
    await transformations.EnableTransformation(EnableTransformationRequest(name=NAME))
    one = await recorded(sent(properties=mail))
    two = await recorded(sent(properties=mail))
    await transformations.DisableTransformation(DisableTransformationRequest(name=NAME))
    after = await recorded(sent(properties=mail))

    assert mail == before.properties == after.properties
    assert "example.com" not in one.properties
    assert one.properties == two.properties


async def test_a_mistake_in_an_expression_loses_nothing(transformations, create, recorded, sent):
    await create(
        settings(TransformationStep(set={"path": "properties.x", "expression": "properties.y + 1"}))
    )
    await transformations.EnableTransformation(EnableTransformationRequest(name=NAME))

    found = await recorded(sent(properties='{"a":1}'))

    assert '{"a":1}' == found.properties
    assert ["transformation"] == [violation.rule for violation in found.violations]


async def test_a_customer_event_can_be_refused(transformations, create, record, sent):
    await create(settings(TransformationStep(refuse={"detail": "no tests"}), when="name == 'Test'"))
    await transformations.EnableTransformation(EnableTransformationRequest(name=NAME))

    receipts = (await record(sent(name="Test"), sent())).receipts

    assert [REFUSED, ACCEPTED] == [receipt.outcome for receipt in receipts]
    assert ("DROPPED", "no tests") == (receipts[0].reason, receipts[0].detail)


async def test_commands_meet_the_state(transformations, create):
    created = await create(settings())
    enabled = await transformations.EnableTransformation(EnableTransformationRequest(name=NAME))

    assert (DISABLED, ENABLED) == (created.state, enabled.transformation.state)
    with pytest.raises(AlreadyExists):
        await create(settings())
    with pytest.raises(Aborted):
        await transformations.ConfigureTransformation(
            ConfigureTransformationRequest(
                name=NAME, display_name="T", settings=settings(rank=1), etag=created.etag
            )
        )
    with pytest.raises(InvalidArgument) as refused:
        await transformations.ConfigureTransformation(
            ConfigureTransformationRequest(
                name=NAME, display_name="T", settings=settings(when="secret == 1")
            )
        )
    assert ["settings.when"] == [each.field for each in refused.value.violations]
    got = await transformations.GetTransformation(GetTransformationRequest(name=NAME))
    assert enabled.transformation == got.transformation
    with pytest.raises(NotFound):
        await transformations.GetTransformation(
            GetTransformationRequest(name="transformations/none")
        )


async def test_a_repeated_request_has_one_effect(transformations):
    request = CreateTransformationRequest(
        display_name="T", settings=settings(), request_id=str(uuid.uuid4())
    )

    first = await transformations.CreateTransformation(request)
    assert first == await transformations.CreateTransformation(request)


async def test_a_list_is_filtered_sorted_and_the_workspace_s_own(asked, transformations, create):
    for own_id, rank in (("a", 2), ("b", 1), ("c", 3)):
        await create(settings(rank=rank), own_id)
    await transformations.EnableTransformation(
        EnableTransformationRequest(name="transformations/a")
    )

    async def names(stub, **said):
        listed = await stub.ListTransformations(ListTransformationsRequest(**said))
        return "".join(each.name[-1] for each in listed.transformations)

    assert "abc" == await names(transformations)
    assert "bac" == await names(transformations, order_by="rank")
    assert "a" == await names(transformations, filter="state = ENABLED")
    assert "" == await names(asked.stub(TransformationsServiceStub, workspace="globex"))


async def test_a_preview_shows_before_and_after_and_records_nothing(
    asked, transformations, create, events, sent
):
    await create(settings(TransformationStep(mask={"path": "user_id", "kept_characters": 1})))
    samples = [sent("m-1"), sent("m-2", user_id=""), CustomerEvent(name="no type")]

    async def preview(stub=transformations, **said):
        request = PreviewTransformationRequest(customer_events=samples, **said)
        return (await stub.PreviewTransformation(request)).customer_events

    told = await preview(name=NAME)
    assert ("u-1", "**1", True) == (
        told[0].before.user_id,
        told[0].after.user_id,
        told[0].applies,
    )
    assert ["", "NO_IDENTIFIER", "TYPE_UNKNOWN"] == [each.reason for each in told]
    assert [True, False, False] == [each.HasField("after") for each in told]
    hashed = settings(TransformationStep(hash={"path": "user_id"}))
    ours = (await preview(settings=hashed))[0].after.user_id
    others = asked.stub(TransformationsServiceStub, workspace="globex")
    theirs = (await preview(others, settings=hashed))[0].after.user_id
    assert (64, True) == (len(ours), ours != theirs)
    with pytest.raises(NotFound):
        await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/m-1"))


async def test_a_preview_says_what_does_not_apply(transformations, sent):
    samples = [sent(), sent(source="sources/web"), sent(source="sources/app")]
    request = PreviewTransformationRequest(
        settings=settings(sources=["sources/web"]), customer_events=samples
    )

    told = (await transformations.PreviewTransformation(request)).customer_events
    assert [True, True, False] == [each.applies for each in told]


async def test_a_preview_needs_one_transformation(transformations, sent):
    for said in ({}, {"name": NAME, "settings": settings()}):
        with pytest.raises(InvalidArgument):
            await transformations.PreviewTransformation(
                PreviewTransformationRequest(customer_events=[sent()], **said)
            )
