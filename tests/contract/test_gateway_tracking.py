"""Existing trackers send to us unchanged: the Segment protocol, with a receipt per event."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json

import pytest

from gateway.tracking import BODY_BYTES_MAX
from rapport.events.v1 import service_pb2 as events
from services.kernel import errors
from tests.contract.gateway_world import key

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITE_KEY = key("web")
TRACK = {"type": "track", "event": "Order Placed", "userId": "u1", "messageId": "m1"}


def basic(text: str) -> dict[str, str]:
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def record(request, _):
    """Accepts all but what has the name `bad`, as the events service would."""
    response = events.RecordCustomerEventsResponse(write_token="t1")
    for place, sent in enumerate(request.customer_events, start=1):
        if sent.name == "bad":
            outcome, reason = events.RECEIPT_OUTCOME_REFUSED, "NO_NAME"
            response.receipts.add(message_id=sent.message_id, outcome=outcome, reason=reason)
        else:
            outcome = events.RECEIPT_OUTCOME_ACCEPTED
            response.receipts.add(message_id=sent.message_id, outcome=outcome, position=place)
    return response


@pytest.fixture
def world(shared_world):
    shared_world.services["events"].says["RecordCustomerEvents"] = record
    return shared_world


async def send(world, body, path="/v1/batch", headers=None, **more):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = basic(f"{WRITE_KEY}:") if headers is None else headers
    return await world.http.post(path, content=content, headers=headers | more)


def recorded(world):
    return [
        sent
        for _, request, *_ in world.services["events"].heard
        for sent in request.customer_events
    ]


async def test_a_batch_is_answered_with_200_and_a_receipt_each(world):
    answer = await send(world, {"batch": [TRACK, TRACK | {"event": "bad", "messageId": "m2"}, 5]})

    assert answer.status_code == 200
    assert answer.json() == {
        "success": True,
        "receipts": [
            {"messageId": "m1", "outcome": "accepted", "position": 1, "partition": 0},
            {"messageId": "m2", "outcome": "refused", "reason": "NO_NAME", "detail": ""},
            {
                "messageId": "",
                "outcome": "refused",
                "reason": "NO_OBJECT",
                "detail": "an event must be a JSON object",
            },
        ],
        "writeToken": "t1",
    }


@pytest.mark.parametrize(
    ("headers", "in_body"),
    [
        (basic(f"{WRITE_KEY}:"), {}),
        (basic(WRITE_KEY), {}),
        (basic(f"{WRITE_KEY}:"), {"writeKey": WRITE_KEY}),
        ({"authorization": f"Bearer {WRITE_KEY}"}, {"writeKey": WRITE_KEY}),
        ({"x-api-key": WRITE_KEY}, {}),
        ({}, {"writeKey": WRITE_KEY}),
        ({"authorization": f"Bearer {key('all')}"}, {}),
    ],
    ids=["basic", "no colon", "basic and body", "bearer", "x-api-key", "body", "api key"],
)
async def test_the_write_key_is_found_wherever_it_is(world, headers, in_body):
    answer = await send(world, {"batch": [TRACK], **in_body}, headers=headers)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "credential_invalid"),
        (basic("wk_web_wrong:"), 401, "credential_invalid"),
        ({"authorization": "Basic &&&"}, 401, "credential_invalid"),
        ({"authorization": b"Basic \xe9"}, 401, "credential_invalid"),
        (basic(f"{key('none')}:"), 403, "scope_missing"),
    ],
    ids=["none", "wrong", "no base64", "no ascii", "no scope"],
)
async def test_without_a_good_key_nothing_is_recorded(world, headers, status, code):
    answer = await send(world, {"batch": [TRACK]}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]
    assert recorded(world) == []


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "text/plain", "application/x-www-form-urlencoded", "application/json; x"],
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
async def test_json_is_json_whatever_it_is_called(world, content_type, packed):
    body = json.dumps({"batch": [TRACK]}).encode()
    more = {"content-type": content_type} | ({"content-encoding": "gzip"} if packed else {})

    answer = await send(world, gzip.compress(body) if packed else body, **more)

    assert answer.status_code == 200
    assert len(recorded(world)) == 1


@pytest.mark.parametrize(
    ("body", "more", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_json"),
        (b'{"batch": 5}', {}, 400, "invalid_batch"),
        (b"{}", {}, 400, "invalid_batch"),
        (b"no gzip", {"content-encoding": "gzip"}, 400, "invalid_gzip"),
        (gzip.compress(b"{}")[:-4], {"content-encoding": "gzip"}, 400, "invalid_gzip"),
        (gzip.compress(b"{}") * 2, {"content-encoding": "gzip"}, 400, "invalid_gzip"),
        (gzip.compress(b"{}") + b"x", {"content-encoding": "gzip"}, 400, "invalid_gzip"),
        (b"{}", {"content-encoding": "br"}, 415, "encoding_unsupported"),
        (b"{}", {"content-encoding": "gzip, gzip"}, 415, "encoding_unsupported"),
        (b" " * (BODY_BYTES_MAX + 1), {}, 413, "payload_too_large"),
        (
            gzip.compress(b" " * 50_000_000),
            {"content-encoding": "gzip"},
            413,
            "payload_too_large",
        ),
    ],
    ids=[
        "no json",
        "array",
        "no array",
        "no batch",
        "no gzip",
        "cut gzip",
        "two gzips",
        "gzip with a tail",
        "unknown encoding",
        "two encodings",
        "too large",
        "bomb",
    ],
)
async def test_what_is_no_batch_is_refused_with_a_code(world, body, more, status, code):
    answer = await send(world, body, **more)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]


@pytest.mark.parametrize("verb", ["GET", "PUT", "PATCH", "DELETE"])
async def test_another_verb_is_told_the_right_one(world, verb):
    answer = await world.http.request(verb, "/v1/batch", headers=basic(f"{WRITE_KEY}:"))

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert answer.json()["code"] == "method_not_allowed"


async def test_a_body_of_exactly_the_largest_size_is_taken(world):
    body = json.dumps({"batch": [TRACK]}).encode()

    assert (await send(world, body.ljust(BODY_BYTES_MAX))).status_code == 200


async def test_what_exceeds_a_batch_is_refused_and_the_rest_recorded(world):
    item = {"type": "track", "event": "e", "userId": "u"}

    answer = await send(world, {"batch": [item] * 2502})

    outcomes = [receipt["outcome"] for receipt in answer.json()["receipts"]]
    assert answer.status_code == 200
    assert outcomes == ["accepted"] * 2500 + ["refused"] * 2
    assert answer.json()["receipts"][-1]["reason"] == "BATCH_TOO_LONG"


async def test_an_empty_batch_is_no_mistake(world):
    answer = await send(world, {"batch": []})

    assert (answer.status_code, answer.json()) == (200, {"success": True, "receipts": []})
    assert world.services["events"].heard == []


async def test_a_missing_message_id_is_made_up_before_the_service_is_asked(world):
    answer = await send(world, {"batch": [TRACK | {"messageId": None}, TRACK | {"messageId": ""}]})

    made = [sent.message_id for sent in recorded(world)]
    assert [len(it) for it in made] == [36, 36]
    assert made == [receipt["messageId"] for receipt in answer.json()["receipts"]]
    assert made[0] != made[1]


async def test_a_dying_service_is_asked_again_with_the_same_message_ids(own_world):
    service = own_world.services["events"]
    service.says["RecordCustomerEvents"] = record
    await send(own_world, {"batch": [TRACK]})
    await service.stop()
    asked = asyncio.create_task(send(own_world, {"batch": [{**TRACK, "messageId": None}]}))
    await service.start()
    answer = await asked

    assert answer.status_code == 200
    assert answer.json()["receipts"][0]["messageId"] == recorded(own_world)[-1].message_id


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (errors.Unavailable("storage"), 503, "service_unavailable"),
        (errors.ResourceExhausted("EVENTS_MAX", 5), 429, "limit_reached"),
        (errors.Bug("oh"), 500, "bug"),
        (errors.FailedPrecondition("it is off"), 403, "source_disabled"),
    ],
    ids=["down", "busy", "bug", "off"],
)
async def test_a_failure_tells_the_tracker_whether_to_come_again(world, error, status, code):
    def refuse(_, __):
        raise error

    world.services["events"].says["RecordCustomerEvents"] = refuse

    answer = await send(world, {"batch": [TRACK]})

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("1" if status in {429, 503} else None)


@pytest.mark.parametrize("call", ["track", "identify", "page", "screen", "group", "alias"])
async def test_each_call_may_be_sent_alone(world, call):
    body = {"userId": "u1", "event": "e", "messageId": "m1", "writeKey": WRITE_KEY}

    answer = await send(world, body, f"/v1/{call}", headers={})

    assert answer.status_code == 200
    assert answer.json()["receipts"][0]["outcome"] == "accepted"
    [sent] = recorded(world)
    assert sent.type == 1 + ["track", "identify", "page", "screen", "group", "alias"].index(call)


async def test_customer_events_are_recorded_in_the_keys_workspace(world):
    await send(world, {"batch": [TRACK]})

    [(*_, caller)] = world.services["events"].heard
    assert (caller.workspace, caller.actor) == ("acme", "sources/web")
