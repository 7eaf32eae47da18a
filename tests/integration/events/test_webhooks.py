"""Webhooks: who may send to them, and what becomes of what comes."""

import base64
import hashlib
import hmac
import uuid

import pytest

from rapport.events.v1 import service_pb2, sources_pb2, webhooks_pb2
from rapport.events.v1.events_pb2 import (
    SourceSettings,
    WebhookMapping,
    WebhookPreset,
    WebhookSignature,
)
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from rapport.events.v1.webhook_deliveries_pb2 import DeliverWebhookRequest
from rapport.events.v1.webhook_deliveries_pb2_grpc import WebhookDeliveriesServiceStub
from rapport.events.v1.webhooks_pb2_grpc import WebhooksServiceStub
from services.kernel.clock import SystemClock
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
)

STANDARD = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_STANDARD_WEBHOOKS)
GITHUB = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_GITHUB)
MAPPING = WebhookMapping(
    type="'track'", name="body.kind", user_id="body.user", when="body.kind != 'ping'"
)
GIVEN = "a secret that GitHub was told"
BODY = b'{"kind": "Form Filled", "user": "u-1"}'
OUTCOMES = webhooks_pb2.WebhookOutcome


@pytest.fixture
def webhooks(asked):
    return asked.stub(WebhooksServiceStub)


@pytest.fixture
def deliveries(asked):
    return asked.stub(WebhookDeliveriesServiceStub, workspace="", scopes=frozenset({"internal"}))


@pytest.fixture
def create(webhooks):
    """Creates a webhook of a source: `await create(signature=GITHUB, secret=GIVEN)`."""

    async def create(**changes):
        fields = {
            "webhook_id": "forms",
            "display_name": "Forms",
            "source": "sources/forms",
            "signature": STANDARD,
            "mapping": MAPPING,
            "request_id": str(uuid.uuid4()),
        }
        return await webhooks.CreateWebhook(webhooks_pb2.CreateWebhookRequest(**fields | changes))

    return create


def standard(secret, body, delivery_id="d-1"):
    """The headers of a sender that keeps to Standard Webhooks."""
    now = str(int(SystemClock().now().timestamp()))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{delivery_id}.{now}.".encode() + body, hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": now,
        "webhook-signature": f"v1,{signature}",
    }


def github(secret, body):
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"x-hub-signature-256": f"sha256={digest}", "x-github-delivery": "d-1"}


@pytest.fixture
def deliver(deliveries):
    """Delivers as the gateway does: `await deliver(webhook, headers)`."""

    async def deliver(webhook, headers, body=BODY):
        return await deliveries.DeliverWebhook(
            DeliverWebhookRequest(address_id=webhook.address_id, body=body, headers=headers)
        )

    return deliver


async def test_a_signed_delivery_is_recorded_for_the_source_of_its_webhook(
    asked, create, deliver, events
):
    created = await create()

    delivered = await deliver(created.webhook, standard(created.secret, BODY))
    name = f"customerEvents/{delivered.receipts[0].message_id}"
    found = await events.GetCustomerEvent(service_pb2.GetCustomerEventRequest(name=name))

    assert OUTCOMES.WEBHOOK_OUTCOME_MAPPED == delivered.outcome
    assert ["RECEIPT_OUTCOME_ACCEPTED"] == [
        service_pb2.ReceiptOutcome.Name(it.outcome) for it in delivered.receipts
    ]
    assert found.customer_event.source == "sources/forms"
    assert found.customer_event.name == "Form Filled"
    assert found.customer_event.user_id == "u-1"
    assert delivered.write_token


async def test_a_delivery_that_is_sent_again_is_a_duplicate(create, deliver):
    created = await create()

    first = await deliver(created.webhook, standard(created.secret, BODY))
    again = await deliver(created.webhook, standard(created.secret, BODY))

    [receipt] = again.receipts
    assert service_pb2.ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE == receipt.outcome
    assert first.receipts[0].position == receipt.position


async def test_a_wrong_signature_an_unknown_address_and_a_disabled_webhook_are_told_apart(
    create, deliver, webhooks
):
    created = await create()
    signed = standard(created.secret, BODY)

    with pytest.raises(Unauthenticated):
        await deliver(created.webhook, signed, body=BODY + b" ")
    with pytest.raises(NotFound):
        await deliver(webhooks_pb2.Webhook(address_id="wh_nobody"), signed)
    await webhooks.DisableWebhook(webhooks_pb2.DisableWebhookRequest(name="webhooks/forms"))
    with pytest.raises(FailedPrecondition):
        await deliver(created.webhook, signed)
    with pytest.raises(Unauthenticated):
        await deliver(created.webhook, {})
    await webhooks.EnableWebhook(webhooks_pb2.EnableWebhookRequest(name="webhooks/forms"))
    delivered = await deliver(created.webhook, signed)

    assert len(delivered.receipts) == 1


async def test_a_disabled_source_takes_no_deliveries(asked, create, deliver):
    sources = asked.stub(SourcesServiceStub)
    await sources.CreateSource(
        sources_pb2.CreateSourceRequest(
            source_id="forms", display_name="Forms", settings=SourceSettings()
        )
    )
    await sources.DisableSource(sources_pb2.DisableSourceRequest(name="sources/forms"))
    created = await create()

    with pytest.raises(FailedPrecondition):
        await deliver(created.webhook, standard(created.secret, BODY))


@pytest.mark.parametrize(
    ("body", "outcome", "reason"),
    [
        (b'{"kind": "ping"}', OUTCOMES.WEBHOOK_OUTCOME_SKIPPED, "WEBHOOK_SKIPPED"),
        (b'{"kind": "Form Filled"}', OUTCOMES.WEBHOOK_OUTCOME_UNMAPPED, "WEBHOOK_UNMAPPED"),
        (b"kind=ping", OUTCOMES.WEBHOOK_OUTCOME_UNMAPPED, "WEBHOOK_UNMAPPED"),
    ],
)
async def test_what_is_no_customer_event_says_why_and_is_counted(
    asked, create, deliver, events, body, outcome, reason
):
    created = await create()

    delivered = await deliver(created.webhook, standard(created.secret, body), body=body)
    counts = await events.ListCustomerEventCounts(service_pb2.ListCustomerEventCountsRequest())

    assert (outcome, 0) == (delivered.outcome, len(delivered.receipts))
    assert delivered.detail
    assert [("sources/forms", reason, 1)] == [
        (it.source, it.reason, it.count) for it in counts.counts
    ]


async def test_our_secret_is_shown_once_and_again_to_who_repeats_the_request(create, webhooks):
    request_id = str(uuid.uuid4())

    first = await create(request_id=request_id)
    again = await create(request_id=request_id)
    got = await webhooks.GetWebhook(webhooks_pb2.GetWebhookRequest(name="webhooks/forms"))
    with pytest.raises(AlreadyExists):
        await create()

    assert first.secret.startswith("whsec_")
    assert (first.secret, first.webhook.address_id) == (again.secret, again.webhook.address_id)
    assert first.secret not in str(got)


async def test_a_webhook_without_an_id_is_created_once_whatever_its_secret(create, webhooks):
    asked = {"webhook_id": "", "signature": GITHUB, "secret": GIVEN}
    request_id = str(uuid.uuid4())

    first = await create(request_id=request_id, **asked)
    again = await create(request_id=request_id, **asked)
    with pytest.raises(InvalidArgument):
        await create(request_id=request_id, **asked | {"secret": f"{GIVEN}, newly"})

    assert first == again


async def test_a_senders_secret_is_never_shown_nor_kept_in_the_clear(
    asked, create, deliver, webhooks
):
    created = await create(signature=GITHUB, secret=GIVEN)
    rotated = await webhooks.RotateWebhookSecret(
        webhooks_pb2.RotateWebhookSecretRequest(
            name="webhooks/forms",
            secret=f"{GIVEN}, newly",
            grace_s=60,
            request_id=str(uuid.uuid4()),
        )
    )
    await deliver(created.webhook, github(GIVEN, BODY))
    await deliver(created.webhook, github(f"{GIVEN}, newly", BODY))
    ours = await webhooks.RotateWebhookSecret(
        webhooks_pb2.RotateWebhookSecretRequest(name="webhooks/forms", request_id=str(uuid.uuid4()))
    )

    assert (created.secret, rotated.secret) == ("", "")
    assert [] == await _rows_with(asked.kernel.pool, GIVEN)
    assert [] == await _rows_with(asked.kernel.pool, ours.secret)
    # The same search does find what is there in the clear.
    assert await _rows_with(asked.kernel.pool, created.webhook.address_id)


async def _rows_with(pool, text):
    """The tables of all schemas in a row of which a text stands, as text or in bytes."""
    tables = await pool.fetch(
        "select schemaname, tablename from pg_tables where schemaname not in "
        "('pg_catalog', 'information_schema')"
    )
    found = []
    for schema, table in tables:
        rows = await pool.fetch(f'select to_jsonb(t)::text from "{schema}"."{table}" t')
        if any(text in row[0] or text.encode().hex() in row[0] for row in rows):
            found.append(f"{schema}.{table}")
    return found


async def test_a_secret_that_was_rotated_is_believed_for_its_grace_period_only(
    create, deliver, webhooks
):
    created = await create()
    rotate = webhooks_pb2.RotateWebhookSecretRequest(name="webhooks/forms", grace_s=3600)

    second = await webhooks.RotateWebhookSecret(rotate)
    await deliver(created.webhook, standard(created.secret, BODY))
    rotate.grace_s = 0
    third = await webhooks.RotateWebhookSecret(rotate)

    for secret in (created.secret, second.secret):
        with pytest.raises(Unauthenticated):
            await deliver(created.webhook, standard(secret, BODY))
    assert len((await deliver(created.webhook, standard(third.secret, BODY))).receipts) == 1


async def test_a_retried_rotation_has_one_effect(create, webhooks):
    await create()
    rotate = webhooks_pb2.RotateWebhookSecretRequest(
        name="webhooks/forms",
        secret="whsec_" + base64.b64encode(b"0" * 24).decode(),
        request_id=str(uuid.uuid4()),
    )

    first = await webhooks.RotateWebhookSecret(rotate)
    again = await webhooks.RotateWebhookSecret(rotate)
    rotate.secret = "whsec_" + base64.b64encode(b"1" * 24).decode()
    with pytest.raises(InvalidArgument):
        await webhooks.RotateWebhookSecret(rotate)

    assert first == again


async def test_what_could_not_work_is_refused_by_its_field(create, webhooks):
    await create()
    configure = webhooks_pb2.ConfigureWebhookRequest(
        name="webhooks/forms", display_name="Forms", signature=STANDARD, mapping=MAPPING
    )
    configure.mapping.user_id = "body.lines.map(a, body.lines.map(b, a))"

    refused = {}
    for wanted in ({"source": "forms"}, {"secret": "short"}, {"display_name": " "}):
        with pytest.raises(InvalidArgument) as caught:
            await create(webhook_id="other", **wanted)
        [refused[next(iter(wanted))]] = [it.field for it in caught.value.violations]
    with pytest.raises(InvalidArgument) as caught:
        await webhooks.ConfigureWebhook(configure)

    assert {name: name for name in refused} == refused
    assert ["mapping.user_id"] == [it.field for it in caught.value.violations]


async def test_another_mapping_holds_at_once(create, deliver, webhooks):
    created = await create()
    mapping = WebhookMapping(type="'identify'", user_id="body.user")
    await webhooks.ConfigureWebhook(
        webhooks_pb2.ConfigureWebhookRequest(
            name="webhooks/forms", display_name="Forms", signature=STANDARD, mapping=mapping
        )
    )

    body = b'{"user": "u-2"}'
    delivered = await deliver(created.webhook, standard(created.secret, body), body=body)

    assert len(delivered.receipts) == 1


async def test_a_preview_says_what_would_become_of_a_delivery_and_records_nothing(
    asked, create, webhooks, events
):
    created = await create()
    ask = webhooks_pb2.PreviewWebhookRequest(
        name="webhooks/forms", body=BODY, headers=standard(created.secret, BODY)
    )

    right = await webhooks.PreviewWebhook(ask)
    ask.headers["webhook-signature"] = "v1,"
    ask.mapping.CopyFrom(WebhookMapping(type="'identify'"))
    tried = await webhooks.PreviewWebhook(ask)
    ask.mapping.type = "body.nothing"
    unmapped = await webhooks.PreviewWebhook(ask)
    recorded = await events.ListCustomerEvents(service_pb2.ListCustomerEventsRequest())

    assert ("", "Form Filled", "sources/forms") == (
        right.signature_problem,
        right.customer_events[0].customer_event.name,
        right.customer_events[0].customer_event.source,
    )
    assert tried.signature_problem
    assert tried.customer_events[0].reason == "NO_IDENTIFIER"
    assert OUTCOMES.WEBHOOK_OUTCOME_UNMAPPED == unmapped.outcome
    assert "nothing" in unmapped.detail
    assert len(recorded.customer_events) == 0


async def test_webhooks_are_listed_and_belong_to_their_workspace(asked, create, webhooks):
    await create()
    await create(webhook_id="orders", display_name="Orders", source="sources/shop")
    others = asked.stub(WebhooksServiceStub, workspace="globex")

    listed = await webhooks.ListWebhooks(
        webhooks_pb2.ListWebhooksRequest(filter='source = "sources/shop"')
    )
    with pytest.raises(NotFound):
        await others.GetWebhook(webhooks_pb2.GetWebhookRequest(name="webhooks/forms"))
    none = await others.ListWebhooks(webhooks_pb2.ListWebhooksRequest())

    assert ["webhooks/orders"] == [it.name for it in listed.webhooks]
    assert [False] == [it.is_given for it in listed.webhooks[0].secrets]
    assert len(none.webhooks) == 0


async def test_only_the_platform_itself_delivers(asked, create):
    created = await create()
    outside = asked.stub(WebhookDeliveriesServiceStub, scopes=frozenset({"*"}))

    with pytest.raises(PermissionDenied):
        await outside.DeliverWebhook(
            DeliverWebhookRequest(address_id=created.webhook.address_id, body=BODY)
        )
