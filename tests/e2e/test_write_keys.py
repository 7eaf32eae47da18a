"""A source is registered, and sends with the key it was given, until the key is taken away."""

from __future__ import annotations

import uuid

import httpx
import pytest

from services.kernel.testing import eventually

SOON_S = 5


@pytest.fixture
async def http(platform):
    headers = {"x-api-key": platform["api_key"]}
    async with httpx.AsyncClient(
        base_url=platform["http"], headers=headers, trust_env=False, timeout=15
    ) as opened:
        yield opened


@pytest.fixture
async def source(http):
    """A new source and its first write key."""
    source_id = f"shop-{uuid.uuid4().hex[:8]}"
    answer = await http.post("/v1/sources", json={"sourceId": source_id, "displayName": "Shop"})
    assert answer.status_code == 200, answer.text
    return answer.json()["source"]["name"], answer.json()["writeKey"]


async def send(platform, write_key):
    message_id = str(uuid.uuid4())
    item = {"type": "track", "event": "Tried", "userId": "u1", "messageId": message_id}
    async with httpx.AsyncClient(base_url=platform["http"], trust_env=False, timeout=15) as anyone:
        answer = await anyone.post("/v1/batch", json={"batch": [item]}, auth=(write_key, ""))
    return message_id, answer


async def test_a_registered_source_sends_with_its_key(platform, http, source):
    name, write_key = source
    message_id, answer = await send(platform, write_key)

    event = await http.get(f"/v1/customerEvents/{message_id}")
    assert answer.json()["receipts"][0]["outcome"] == "accepted"
    assert event.json()["customerEvent"]["source"] == name


async def test_a_rotated_key_works_at_once_and_a_revoked_one_soon_no_more(platform, http, source):
    name, old = source
    await send(platform, old)
    rotated = await http.post(f"/v1/{name}:rotateWriteKey", json={"graceS": 3600})
    new = rotated.json()["writeKey"]
    statuses = [(await send(platform, key))[1].status_code for key in (old, new)]
    await http.post(f"/v1/{name}:revokeWriteKey", json={"keyId": old.split("_")[1]})

    async def refused():
        assert (await send(platform, old))[1].status_code == 401

    await eventually(refused, within_s=SOON_S)
    assert statuses == [200, 200]
    assert (await send(platform, new))[1].status_code == 200


async def test_what_a_disabled_source_sends_is_refused_until_it_is_enabled(platform, http, source):
    name, write_key = source
    await http.post(f"/v1/{name}:disable", json={})

    async def refused():
        answer = (await send(platform, write_key))[1]
        assert (answer.status_code, answer.json().get("code")) == (403, "source_disabled")

    await eventually(refused, within_s=SOON_S)
    await http.post(f"/v1/{name}:enable", json={})

    async def taken():
        assert (await send(platform, write_key))[1].status_code == 200

    await eventually(taken, within_s=SOON_S)
