"""What every RPC promises, asked of the real platform through the gateway, by reflection.

A new RPC is picked up by itself; a new mutation fails here until an example of it is given.
"""

import asyncio
import json
import uuid
from contextlib import suppress

import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.rpc import error_details_pb2, status_pb2

from gateway.catalog import PUBLIC
from rapport.events.v1.sources_pb2 import CreateSourceResponse
from rapport.identity.v1.match_suggestions_pb2 import SuggestMatchResponse
from services.kernel.errors import Reason
from tests.e2e.rpc_examples import (
    CHANGED,
    CHANGES,
    CODES,
    COLLECTIONS,
    DAYS,
    EXAMPLES,
    IDENTIFY,
    NEXT,
    NOTICE,
    SIGNATURES,
)

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
                stream = self.channel.stream_stream(path)(**options)
                # Refused before it is written, a call is over; its status says why. An iterator
                # would cancel the call instead, now and then before its status has come.
                with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                    await stream.write(request.SerializeToString())
                    await stream.done_writing()
            else:
                stream = self.channel.unary_stream(path)(request.SerializeToString(), **options)
            async for response in stream:
                stream.cancel()
                return response
            return b""
        return await self.channel.unary_unary(path)(request.SerializeToString(), **options)

    async def refused(self, path, fields, **options):
        """The status code and the one ErrorInfo of a call that must fail."""
        code, infos, _ = await self.refusal(path, fields, **options)
        assert len(infos) == 1
        assert infos[0].reason in set(Reason)
        return code, infos[0]

    async def refusal(self, path, fields, **options):
        """The status code of a call that must fail, each ErrorInfo, and the fields it names."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.call(path, fields, **options)
        found = dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
        details = status_pb2.Status.FromString(found).details
        infos = _unpacked(details, error_details_pb2.ErrorInfo)
        requests = _unpacked(details, error_details_pb2.BadRequest)
        named = {each.field for request in requests for each in request.field_violations}
        return caught.value.code(), infos, named


def _unpacked(details, kind):
    return [kind.FromString(each.value) for each in details if each.Is(kind.DESCRIPTOR)]


@pytest.fixture
async def caller(platform):
    async with grpc.aio.insecure_channel(platform["grpc"]) as channel:
        yield Caller(channel, platform["api_key"])


def _filled(fields, **known):
    text = json.dumps(fields)
    for name, value in known.items():
        text = text.replace(f"{{{name}}}", value)
    return json.loads(text)


def _unprepared(path):
    """The mutation's request, with a request_id, where nothing is that it needs."""
    *_, last = EXAMPLES[path.rpartition("/")[2]]
    return _request(last, _known())


async def _prepared(caller, path):
    """What the mutation needs is there; answers its request, with a request_id."""
    *before, last = EXAMPLES[path.rpartition("/")[2]]
    known = _known()
    for suffix, fields in before:
        response = await caller.call(f"/rapport.{suffix}", _filled(fields, **known))
        if suffix.endswith("CreateSource"):
            known["key_id"] = CreateSourceResponse.FromString(response).source.write_keys[0].key_id
        if suffix.endswith("SuggestMatch"):
            suggested = SuggestMatchResponse.FromString(response).match_suggestion
            known["suggestion"] = suggested.name
    return _request(last, known)


def _known():
    return {
        "id": f"rpc-{uuid.uuid4().hex[:12]}",
        "date": f"{next(DAYS)}",
        "currency": next(CODES),
    }


def _request(last, known):
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
    request = _unprepared(path)

    code, [info], named = await caller.refusal(path, {**request, "request_id": "again"})

    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID")
    assert "request_id" in named


@pytest.mark.parametrize("path", NAMED)
async def test_what_is_not_there_is_not_found_and_an_odd_name_is_refused(caller, path):
    field = "profile" if "profile" in METHODS[path].input_type.fields_by_name else "name"
    service, method = path.split("/")[1].split(".")[-1], path.rpartition("/")[2]
    collection = COLLECTIONS.get(method) or COLLECTIONS[service]
    if field == "profile":
        collection = "profiles"
    needed = {
        "MoveDealStage": {"stage": "pipelines/sales/stages/proposal"},
        "LoseDeal": {"reason": "x"},
        "UpdateContract": {"terms": {"owner": "members/ada"}},
        "RejectContract": {"reason": "x"},
        "SignContract": SIGNATURES[0],
        "GiveContractNotice": NOTICE,
        "TerminateContract": {"reason": "x"},
        "RenewContract": {"reference": "x"},
        "RenamePipeline": {"display_name": "x"},
        "UpdateDeal": {"deal": {}},
        "MoveDealToPipeline": {"stage": "pipelines/renewals/stages/proposal"},
        "AddStage": NEXT,
        "UpdateQuote": {"details": {}},
        "RejectQuote": {"reason": "x"},
        "AcceptQuote": {"accepted_by": "x"},
        "DeclineQuote": {"reason": "x"},
        "ChangeStage": CHANGED,
        "ArrangeStages": {"stage_ids": ["x"]},
        "UploadImportChunk": {"chunk": "bmFtZQ=="},
        "MapImport": {"mapping": IDENTIFY},
        "ConfigureSource": {"display_name": "A source"},
        "ConfigureWebhook": EXAMPLES["ConfigureWebhook"][1],
        "RevokeWriteKey": {"key_id": "0"},
        "DraftTrackingPlan": {"content": {}},
        "ConfigureTransformation": {"display_name": "x", "settings": CHANGES},
        "PreviewTransformation": {"customer_events": [{}]},
        "GrantConsent": {"purpose": "purposes/x"},
        "DenyConsent": {"purpose": "purposes/x"},
        "WithdrawConsent": {"purpose": "purposes/x"},
        "CheckConsent": {"purpose": "purposes/x"},
    }
    more = {**needed.get(method, {})}
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
