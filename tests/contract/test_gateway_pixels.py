"""Beacons, pixels and the settings of browser libraries: what a page asks for besides posting."""

from __future__ import annotations

import base64
import json

import pytest

from gateway.pixels import GIF
from tests.contract.gateway_world import accept, key

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITE_KEY = key("web")
OPENED = {"userId": "u1", "event": "E-Mail Opened", "messageId": "m1", "properties": {"n": 1}}


@pytest.fixture
def world(shared_world):
    shared_world.services["events"].says["RecordCustomerEvents"] = accept
    return shared_world


def recorded(world):
    heard = world.services["events"].heard
    [sent] = [it for _, request, *_ in heard for it in request.customer_events]
    return sent


def packed(document):
    return base64.urlsafe_b64encode(json.dumps(document).encode()).decode().rstrip("=")


@pytest.mark.parametrize("path", ["/v1/pixel/track", "/pixel/v1/track", "/pixel/track/"])
async def test_a_pixel_is_a_picture_and_a_customer_event(world, path):
    query = {"data": packed(OPENED | {"writeKey": WRITE_KEY})}
    seen = {"user-agent": "Mail/1.0", "referer": "https://shop.example/cart"}

    answer = await world.http.get(path, params=query, headers=seen)

    assert (answer.status_code, answer.content) == (200, GIF)
    assert answer.headers["content-type"] == "image/gif"
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(answer.headers["rapport-receipt"])["outcome"] == "accepted"
    sent = recorded(world)
    assert (sent.type, sent.name, sent.user_id) == (1, "E-Mail Opened", "u1")
    assert json.loads(sent.context) == {
        "ip": "127.0.0.1",
        "userAgent": "Mail/1.0",
        "page": {"url": "https://shop.example/cart"},
    }


async def test_a_pixel_may_have_plain_parameters(world):
    query = {"writeKey": WRITE_KEY, "anonymousId": "a1", "name": "Home", "properties.sku": "X1"}

    answer = await world.http.get("/pixel/v1/page", params=query)

    sent = recorded(world)
    assert answer.content == GIF
    assert (sent.type, sent.name, sent.anonymous_id) == (3, "Home", "a1")
    assert json.loads(sent.properties) == {"sku": "X1"}


async def test_a_receipt_in_a_header_holds_any_character(world):
    query = {"writeKey": WRITE_KEY, "messageId": "ä\r\n😀", "event": "e", "userId": "u1"}

    answer = await world.http.get("/v1/pixel/track", params=query)

    assert json.loads(answer.headers["rapport-receipt"])["messageId"] == "ä\r\n😀"


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({}, 401, "credential_invalid"),
        ({"writeKey": "wk_web_wrong"}, 401, "credential_invalid"),
        ({"writeKey": WRITE_KEY, "data": "&&&"}, 400, "invalid_data"),
        ({"writeKey": WRITE_KEY, "data": "bm8"}, 400, "invalid_json"),
    ],
)
async def test_a_pixel_that_is_not_taken_says_why(world, query, status, code):
    answer = await world.http.get("/v1/pixel/track", params=query)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["message"]
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/beacon/v1/batch", "/v1/beacon", "/beacon", "/v1/b"])
@pytest.mark.parametrize("in_query", [True, False])
async def test_a_beacon_is_plain_text_with_its_key_in_query_or_body(world, path, in_query):
    body = {"batch": [OPENED | {"type": "track"}]} | ({} if in_query else {"writeKey": WRITE_KEY})
    query = {"writeKey": WRITE_KEY} if in_query else {}

    answer = await world.http.post(
        path, content=json.dumps(body), params=query, headers={"content-type": "text/plain"}
    )

    assert answer.json()["receipts"][0]["outcome"] == "accepted"
    assert recorded(world).user_id == "u1"


async def test_a_beacon_may_be_a_single_call(world):
    body = OPENED | {"type": "identify", "writeKey": WRITE_KEY}

    await world.http.post("/v1/beacon", json=body)

    assert recorded(world).type == 2


@pytest.mark.parametrize("path", ["/v1/projects/{}/settings", "/projects/{}/settings"])
async def test_segments_library_is_told_to_send_to_us(world, path):
    answer = await world.http.get(path.format(WRITE_KEY), headers={"origin": "https://a.example"})

    told = answer.json()["integrations"]["Segment.io"]
    address = world.url.removeprefix("http://")
    assert (told["apiKey"], told["apiHost"], told["protocol"]) == (
        WRITE_KEY,
        f"{address}/v1",
        "http",
    )
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert answer.json()["metrics"] == {"sampleRate": 0}


async def test_behind_a_proxy_it_is_told_the_proxys_protocol(world):
    headers = {"x-forwarded-proto": "https"}
    answer = await world.http.get(f"/v1/projects/{WRITE_KEY}/settings", headers=headers)

    assert answer.json()["integrations"]["Segment.io"]["protocol"] == "https"


async def test_rudderstacks_library_is_told_that_the_source_is_on(world):
    answer = await world.http.get("/sourceConfig/", auth=(WRITE_KEY, ""))

    source = answer.json()["source"]
    assert (source["enabled"], source["destinations"]) == (True, [])


@pytest.mark.parametrize("path", ["/v1/projects/wk_web_wrong/settings", "/sourceConfig"])
async def test_nobody_without_a_key_is_told_anything(world, path):
    answer = await world.http.get(path)

    assert (answer.status_code, answer.json()["code"]) == (401, "credential_invalid")
    assert (await world.http.options(path)).status_code == 204
