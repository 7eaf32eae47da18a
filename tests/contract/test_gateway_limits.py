"""What a source may send, how often, and where it is seen to send from."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager

import pytest

from tests.contract.gateway_world import accept, gateway_world, key

WRITE_KEY = key("web")
DIRECT = {"type": "track", "event": "e", "userId": "u1", "context": {"direct": True}}


@asynccontextmanager
async def accepting(directory, **chosen):
    async with gateway_world(directory, **chosen) as world:
        world.services["events"].says["RecordCustomerEvents"] = accept
        yield world


async def send(world, *items, write_key=WRITE_KEY, **headers):
    body = {"batch": list(items)}
    return await world.http.post("/v1/batch", json=body, auth=(write_key, ""), headers=headers)


def context(world):
    [(_, request, *_)] = world.services["events"].heard
    return json.loads(request.customer_events[0].context)


async def test_who_sends_too_often_is_told_when_to_come_again(tmp_path):
    chosen = {"RAPPORT_REQUESTS_PER_S": "0.1", "RAPPORT_REQUESTS_BURST": "3"}
    async with accepting(tmp_path, **chosen) as world:
        taken = [await send(world) for _ in range(4)]
        other = await send(world, write_key=key("all"))

    refused = taken.pop()
    assert {200} == {answer.status_code for answer in taken}
    assert (refused.status_code, refused.json()["code"]) == (429, "limit_reached")
    assert "REQUESTS_PER_S" in refused.json()["message"]
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert refused.headers["x-ratelimit-reset"] == refused.headers["retry-after"]
    assert other.status_code == 200


async def test_a_device_that_does_not_know_its_address_is_told_from_its_connection(tmp_path):
    async with accepting(tmp_path) as world:
        await send(world, DIRECT, **{"x-forwarded-for": "1.1.1.1"})

        assert context(world) == {"direct": True, "ip": "127.0.0.1"}


async def test_who_is_behind_a_proxy_is_told_from_what_the_proxy_wrote(tmp_path):
    async with accepting(tmp_path, RAPPORT_PROXY_HOPS="1") as world:
        await send(world, DIRECT, **{"x-forwarded-for": "6.6.6.6, 1.1.1.1"})

        assert context(world)["ip"] == "1.1.1.1"


@pytest.mark.parametrize(
    "own", [{"ip": "9.9.9.9", "direct": True}, {"ip": "9.9.9.9"}, {"direct": False}]
)
async def test_an_address_that_is_told_or_not_to_be_told_stays_so(tmp_path, own):
    async with accepting(tmp_path) as world:
        await send(world, DIRECT | {"context": own})

        assert context(world) == own
