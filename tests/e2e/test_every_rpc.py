"""What every RPC promises, asked of the real platform through the gateway, by reflection.

A new RPC is picked up by itself; a new mutation fails here until an example of it is given.
"""

import base64
import json
import uuid

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from gateway.catalog import PUBLIC
from rapport.events.v1.sources_pb2 import CreateSourceResponse
from services.kernel.errors import Reason

TIMEOUT_S = 20.0

METHODS = {
    f"/{service.full_name}/{method.name}": method
    for service in PUBLIC
    for method in service.methods
}
MUTATIONS = {
    path: method
    for path, method in METHODS.items()
    if "request_id" in method.input_type.fields_by_name
}
NAMED = {
    path: method
    for path, method in METHODS.items()
    if {"name", "profile"} & set(method.input_type.fields_by_name)
}

# What there must be before each mutation, and the mutation; `{id}` is new for each test.
CONTACT = (
    "contacts.v1.ContactsService/CreateContact",
    {"contact_id": "{id}", "email": "{id}@x.org"},
)
DEAL = ("deals.v1.DealsService/OpenDeal", {"deal_id": "{id}", "display_name": "A deal"})
SOURCE = (
    "events.v1.SourcesService/CreateSource",
    {"source_id": "{id}", "display_name": "A source"},
)
SOURCE_OFF = ("events.v1.SourcesService/DisableSource", {"name": "sources/{id}"})
SUPPRESSED = {"type": "user_id", "value": "{id}"}
SUPPRESSION = ("events.v1.SuppressionsService/SuppressIdentifier", SUPPRESSED)
UNSUPPRESSION = ("events.v1.SuppressionsService/UnsuppressIdentifier", SUPPRESSED)
SENT = (
    "events.v1.EventsService/RecordCustomerEvents",
    {"customer_events": [{"message_id": "{id}", "type": 3, "user_id": "{id}"}]},
)
QUARANTINED = {"names": ["quarantinedEvents/{id}"]}
RULE = {"conditions": [{"trait": {"trait": "plan", "operator": "TRAIT_OPERATOR_EXISTS"}}]}
SEGMENT = (
    "segments.v1.SegmentsService/CreateSegment",
    {"segment_id": "{id}", "display_name": "A segment", "rule": RULE},
)
PRODUCTS = (
    "events.v1.ProductsService/RecordProducts",
    {"products": [{"product_id": "{id}", "entry": {"display_name": "A product"}}]},
)
PLAN_RULE = {
    "type": "CUSTOMER_EVENT_TYPE_TRACK",
    "event_name": "Order Completed",
    "schema": "{}",
    "policy": "VIOLATION_POLICY_ALLOW_AND_FLAG",
}
PLAN = (
    "events.v1.TrackingPlansService/CreateTrackingPlan",
    {"tracking_plan_id": "{id}", "display_name": "A plan", "content": {"rules": [PLAN_RULE]}},
)
# Of a source that nobody has: what others do meanwhile is not changed.
CHANGES = {"sources": ["sources/none"], "steps": [{"drop": {"path": "properties.card"}}]}
TRANSFORMATION = (
    "events.v1.TransformationsService/CreateTransformation",
    {"transformation_id": "{id}", "display_name": "A transformation", "settings": CHANGES},
)
IMPORT = (
    "events.v1.ImportsService/CreateImport",
    {
        "import_id": "{id}",
        "display_name": "A file",
        "format": {"type": "IMPORT_FILE_TYPE_CSV"},
        "mapping": {"fields": [{"target": "type", "constant": "track"}]},
    },
)
IDENTIFY = {"fields": [{"target": "type", "constant": "identify"}]}
# Rows without a person are refused, so nothing is brought; so many that there is time to pause.
CHUNK = (
    "events.v1.ImportsService/UploadImportChunk",
    {"name": "imports/{id}", "chunk": base64.b64encode(b"name\n" + b"Row\n" * 20_000).decode()},
)
UPLOADED = [
    IMPORT,
    CHUNK,
    ("events.v1.ImportsService/FinishImportUpload", {"name": "imports/{id}"}),
]
STARTED = [*UPLOADED, ("events.v1.ImportsService/StartImport", {"name": "imports/{id}"})]
PAUSED = [*STARTED, ("events.v1.ImportsService/PauseImport", {"name": "imports/{id}"})]
CANCELLED = ("events.v1.ImportsService/CancelImport", {"name": "imports/{id}"})
WEBHOOK = (
    "events.v1.WebhooksService/CreateWebhook",
    {
        "webhook_id": "{id}",
        "display_name": "A webhook",
        "source": "sources/forms",
        "signature": {"preset": "WEBHOOK_PRESET_GITHUB"},
        "mapping": {"type": "'identify'", "user_id": "body.id"},
    },
)
EXAMPLES = {
    "CreateContact": [CONTACT],
    "RenameContact": [CONTACT, {"name": "contacts/{id}", "given_name": "Ada"}],
    "ChangeContactEmail": [CONTACT, {"name": "contacts/{id}", "email": "{id}@y.org"}],
    "ArchiveContact": [CONTACT, {"name": "contacts/{id}"}],
    "OpenDeal": [DEAL],
    "MoveDealStage": [DEAL, {"name": "deals/{id}", "stage": "pipelines/sales/stages/proposal"}],
    "WinDeal": [DEAL, {"name": "deals/{id}"}],
    "LoseDeal": [DEAL, {"name": "deals/{id}", "reason": "price"}],
    "CreateSource": [SOURCE],
    "ConfigureSource": [SOURCE, {"name": "sources/{id}", "display_name": "Another"}],
    "DisableSource": [SOURCE, {"name": "sources/{id}"}],
    "EnableSource": [SOURCE, SOURCE_OFF, {"name": "sources/{id}"}],
    "RotateWriteKey": [SOURCE, {"name": "sources/{id}"}],
    "RevokeWriteKey": [SOURCE, {"name": "sources/{id}", "key_id": "{key_id}"}],
    "SuppressIdentifier": [SUPPRESSION, UNSUPPRESSION, SUPPRESSED],
    "UnsuppressIdentifier": [SUPPRESSION, SUPPRESSED],
    "ResubmitQuarantinedEvents": [SENT, QUARANTINED],
    "DiscardQuarantinedEvents": [SENT, {**QUARANTINED, "comment": "A test"}],
    "CreateImport": [IMPORT],
    "FinishImportUpload": [IMPORT, CHUNK, {"name": "imports/{id}"}],
    "MapImport": [IMPORT, {"name": "imports/{id}", "mapping": IDENTIFY}],
    "CheckImport": [*UPLOADED, {"name": "imports/{id}"}],
    "StartImport": [*UPLOADED, {"name": "imports/{id}"}],
    "PauseImport": [*STARTED, {"name": "imports/{id}"}],
    "ResumeImport": [*PAUSED, {"name": "imports/{id}"}],
    "CancelImport": [IMPORT, {"name": "imports/{id}"}],
    "UndoImport": [IMPORT, CANCELLED, {"name": "imports/{id}"}],
    "CreateSegment": [SEGMENT],
    "RecordProducts": [PRODUCTS],
    "ArchiveSegment": [SEGMENT, {"name": "segments/{id}"}],
    "CreateTrackingPlan": [PLAN],
    "DraftTrackingPlan": [PLAN, {"name": "trackingPlans/{id}", "content": {}}],
    "PublishTrackingPlan": [PLAN, {"name": "trackingPlans/{id}"}],
    "ArchiveTrackingPlan": [PLAN, {"name": "trackingPlans/{id}"}],
    "CreateTransformation": [TRANSFORMATION],
    "ConfigureTransformation": [
        TRANSFORMATION,
        {"name": "transformations/{id}", "display_name": "Another", "settings": CHANGES},
    ],
    "EnableTransformation": [TRANSFORMATION, {"name": "transformations/{id}"}],
    "DisableTransformation": [
        TRANSFORMATION,
        ("events.v1.TransformationsService/EnableTransformation", {"name": "transformations/{id}"}),
        {"name": "transformations/{id}"},
    ],
    "CreateWebhook": [WEBHOOK],
    "ConfigureWebhook": [
        WEBHOOK,
        {
            "name": "webhooks/{id}",
            "display_name": "Another name",
            "signature": {"token": {"header": "x-token"}},
            "mapping": {"type": "'identify'", "anonymous_id": "body.id"},
        },
    ],
    "DisableWebhook": [WEBHOOK, {"name": "webhooks/{id}"}],
    "EnableWebhook": [
        WEBHOOK,
        ("events.v1.WebhooksService/DisableWebhook", {"name": "webhooks/{id}"}),
        {"name": "webhooks/{id}"},
    ],
    "RotateWebhookSecret": [WEBHOOK, {"name": "webhooks/{id}", "secret": "a secret of the sender"}],
}


# What is named by the methods of a service.
COLLECTIONS = {
    "ContactsService": "contacts",
    "DealsService": "deals",
    "EventsService": "customerEvents",
    "QuarantineService": "quarantinedEvents",
    "ImportsService": "imports",
    "SourcesService": "sources",
    "SuppressionsService": "suppressions",
    "ProductsService": "products",
    "OrdersService": "orders",
    "TrackingPlansService": "trackingPlans",
    "TransformationsService": "transformations",
    "WebhooksService": "webhooks",
    "IdentityService": "profiles",
    "SegmentsService": "segments",
    "GatewayService": "contacts",
}


class Caller:
    """Calls any method of the gateway with messages given as JSON."""

    def __init__(self, channel, key):
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {key}"),)

    async def call(self, path, fields, **options):
        """The response's bytes."""
        method = METHODS[path]
        request = json_format.ParseDict(
            fields, message_factory.GetMessageClass(method.input_type)()
        )
        options = {"timeout": TIMEOUT_S, "metadata": self.metadata, **options}
        if method.server_streaming:
            if method.client_streaming:
                sent = iter([request.SerializeToString()])
                stream = self.channel.stream_stream(path)(sent, **options)
            else:
                stream = self.channel.unary_stream(path)(request.SerializeToString(), **options)
            async for response in stream:
                stream.cancel()
                return response
            return b""
        return await self.channel.unary_unary(path)(request.SerializeToString(), **options)

    async def refused(self, path, fields, **options):
        """The status code and the one ErrorInfo of a call that must fail."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(path, fields, **options)
        found = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(found)
        infos = [
            detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)
        ]
        assert len(infos) == 1
        info = error_details_pb2.ErrorInfo()
        infos[0].Unpack(info)
        assert info.reason in set(Reason)
        return caught.value.code(), info


@pytest.fixture
async def caller(platform):
    async with grpc.aio.insecure_channel(platform["grpc"]) as channel:
        yield Caller(channel, platform["api_key"])


def _filled(fields, **known):
    text = json.dumps(fields)
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


async def _prepared(caller, path):
    """What the mutation needs is there; answers its request, with a request_id."""
    *before, last = EXAMPLES[path.rpartition("/")[2]]
    known = {"id": f"rpc-{uuid.uuid4().hex[:12]}"}
    for suffix, fields in before:
        response = await caller.call(f"/rapport.{suffix}", _filled(fields, **known))
        if suffix.endswith("CreateSource"):
            known["key_id"] = CreateSourceResponse.FromString(response).source.write_keys[0].key_id
    fields = last[1] if isinstance(last, tuple) else last
    return {**_filled(fields, **known), "request_id": str(uuid.uuid4())}


def test_there_is_an_example_of_every_mutation():
    assert {path.rpartition("/")[2] for path in MUTATIONS} == set(EXAMPLES)


@pytest.mark.parametrize("path", MUTATIONS)
async def test_a_retried_mutation_answers_its_first_response_and_has_one_effect(caller, path):
    request = await _prepared(caller, path)

    first = await caller.call(path, request)
    again = await caller.call(path, request)

    assert again == first
    response = message_factory.GetMessageClass(METHODS[path].output_type).FromString(first)
    assert response.write_token


@pytest.mark.parametrize("path", MUTATIONS)
async def test_a_request_id_used_for_another_request_is_refused(caller, path):
    request = await _prepared(caller, path)
    await caller.call(path, request)
    other = await _prepared(caller, path)

    code, info = await caller.refused(path, {**other, "request_id": request["request_id"]})

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


@pytest.mark.parametrize(
    "path", [p for p in MUTATIONS if "etag" in METHODS[p].input_type.fields_by_name]
)
async def test_an_old_etag_is_refused_and_changes_nothing(caller, path):
    request = await _prepared(caller, path)

    code, info = await caller.refused(path, {**request, "etag": '"99"'})

    assert (code, info.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    await caller.call(path, {**request, "etag": info.metadata["etag"]})


@pytest.mark.parametrize("path", MUTATIONS)
async def test_a_request_id_that_is_no_uuid_is_refused_by_name(caller, path):
    request = await _prepared(caller, path)

    code, info = await caller.refused(path, {**request, "request_id": "again"})

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")


@pytest.mark.parametrize("path", NAMED)
async def test_what_is_not_there_is_not_found_and_an_odd_name_is_refused(caller, path):
    field = "profile" if "profile" in METHODS[path].input_type.fields_by_name else "name"
    collection = (
        "profiles" if field == "profile" else COLLECTIONS[path.split("/")[1].split(".")[-1]]
    )
    needed = {
        "MoveDealStage": {"stage": "pipelines/sales/stages/proposal"},
        "LoseDeal": {"reason": "x"},
        "UploadImportChunk": {"chunk": "bmFtZQ=="},
        "MapImport": {"mapping": IDENTIFY},
        "ConfigureSource": {"display_name": "A source"},
        "ConfigureWebhook": EXAMPLES["ConfigureWebhook"][1],
        "RevokeWriteKey": {"key_id": "0"},
        "DraftTrackingPlan": {"content": {}},
        "ConfigureTransformation": {"display_name": "x", "settings": CHANGES},
        "PreviewTransformation": {"customer_events": [{}]},
    }
    more = {**needed.get(path.rpartition("/")[2], {})}
    more.pop("name", None)

    code, _ = await caller.refused(path, {field: "nonsense", **more})
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    if field == "name":
        code, info = await caller.refused(path, {field: f"{collection}/{'0' * 32}", **more})
        assert (code, info.reason) == (grpc.StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")


@pytest.mark.parametrize("path", METHODS)
async def test_a_call_without_a_key_is_nobodys(platform, caller, path):
    code, info = await caller.refused(path, {}, metadata=())

    assert (code, info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")


@pytest.mark.parametrize(
    "path",
    [p for p in METHODS if not p.endswith(("RecordCustomerEvents", "StreamCustomerEvents"))],
)
async def test_a_source_key_may_only_send_customer_events(platform, caller, path):
    as_source = (("authorization", f"Bearer {platform['write_key']}"),)

    code, info = await caller.refused(path, {}, metadata=as_source)

    assert (code, info.reason) == (grpc.StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")


@pytest.mark.parametrize(
    "path", [p for p in METHODS if "page_size" in METHODS[p].input_type.fields_by_name]
)
async def test_no_list_takes_a_negative_size_or_a_strange_token(caller, path):
    fields = METHODS[path].input_type.fields_by_name
    named = (
        {"name": "x/1"}
        if "name" in fields
        else {"profile": "profiles/1"}
        if "profile" in fields
        else {}
    )

    code, _ = await caller.refused(path, {**named, "page_size": -1})
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    code, _ = await caller.refused(path, {**named, "page_token": "strange"})
    assert code in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
