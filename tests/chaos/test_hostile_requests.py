"""Hostile requests get an answer each, from one process that neither dies nor grows.

The services behind are the real ones. A failure tells its seed, and `--seed` repeats it.
`--hostile 100000` sends so many instead of those that every run has the time for.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections import Counter
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import httpx
import pytest

from deploy.stack.child import Child, log_tail
from deploy.stack.health import wait_serving
from deploy.stack.keys import development_secrets
from deploy.stack.ports import free_port
from tests.chaos.hostile_requests import Hostility

pytestmark = pytest.mark.asyncio(loop_scope="session")

ROOT = Path(__file__).parents[2]
# What a process learns in its first requests (caches, pools, arenas) is no growth.
WARM_UP = 10_000
GROWTH_BYTES_MAX = 16 * 1024 * 1024
CONNECTIONS = 12
PIPELINE = 8
ANSWER_WITHIN_S = 30.0
ANSWERED = {200, 204, 400, 401, 403, 404, 405, 413, 415}
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@asynccontextmanager
async def own_gateway(chaos):
    """A gateway of this test alone before the services that all chaos tests share."""
    platform = chaos.platform
    known = development_secrets(platform.data_dir)
    grpc, http, metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
    environment = {
        **platform._environment("gateway", known),
        "RAPPORT_GRPC_ADDRESS": grpc,
        "RAPPORT_HTTP_ADDRESS": http,
        "RAPPORT_METRICS_ADDRESS": metrics,
        # All come from one source; who is refused for that alone would be judged by nothing else.
        "RAPPORT_REQUESTS_PER_S": "1000000",
        "RAPPORT_REQUESTS_BURST": "1000000",
    }
    log = platform.logs / "hostile.log"
    child = Child(
        [sys.executable, "-m", "gateway"], log=log, environment=environment, directory=ROOT
    )
    try:
        await wait_serving(grpc, child, within_s=30)
        yield child, http, known.write_key
        assert child.runs, log_tail(log)
    finally:
        child.kill()


async def test_every_hostile_request_is_answered_and_the_gateway_neither_dies_nor_grows(
    chaos, chance, hostile_requests
):
    async with own_gateway(chaos) as (child, address, write_key):
        hostility = Hostility(chance, write_key)
        warmed = await answers(address, hostility, WARM_UP)
        before = resident_bytes(child.pid)
        counted = await answers(address, hostility, hostile_requests - WARM_UP)
        grown = resident_bytes(child.pid) - before

        assert warmed.total() + counted.total() == hostile_requests
        assert all(counted[kind, 200] for kind in ("sound", "duplicate keys", "wrong types"))
        assert grown <= GROWTH_BYTES_MAX, f"it grew by {grown / 2**20:.1f} MiB"
        assert await is_recorded(address, write_key)


async def answers(address, hostility, count):
    """Sends so many over a few connections, and counts the answers by kind and status."""
    left = iter(range(count))
    counted = Counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(converse(address, hostility, left, counted))
    return counted


async def converse(address, hostility, left, counted):
    """Sends some requests at once and reads their answers; who is hung up on connects again."""
    writer = None
    while some := [hostility.one() for _ in islice(left, PIPELINE)]:
        # Who speaks no HTTP is hung up on, whatever was asked before: such a one comes alone.
        pipelines = [[it for it in some if not it.ends], *([it] for it in some if it.ends)]
        for pipeline in filter(None, pipelines):
            if writer is None:
                reader, writer = await connect(address)
            writer.write(b"".join(hostile.raw for hostile in pipeline))
            hangs_up = False
            async with asyncio.timeout(ANSWER_WITHIN_S):
                for hostile in pipeline:
                    assert not hangs_up, f"it hung up before {hostile}"
                    status, hangs_up, body = await read_answer(reader, hostile)
                    counted[hostile.kind, status] += 1
                    check(hostile, status, body)
            if hangs_up:
                writer.close()
                writer = None
    if writer is not None:
        writer.close()


async def connect(address):
    host, _, port = address.partition(":")
    return await asyncio.open_connection(host, int(port))


async def read_answer(reader, hostile):
    head = await reader.readuntil(b"\r\n\r\n")
    found = LENGTH.search(head)
    length = int(found[1]) if found and not hostile.is_head else 0
    body = await reader.readexactly(length)
    return int(head[9:12]), b"connection: close" in head.lower(), body


def check(hostile, status, body):
    """An answer says what became of each event, or why there was none."""
    assert status in ANSWERED, (hostile, status, body)
    if hostile.is_head or status == 204 or not body.startswith(b"{"):
        assert status in {200, 204, 404, 405}, (hostile, status, body)
        return
    told = json.loads(body)
    if status == 200 and "success" in told:
        assert all(it["outcome"] != "refused" or it["reason"] for it in told["receipts"]), told
    elif status != 200:
        told = told.get("error", told) if "code" not in told else told
        assert told["code"], (hostile, told)
        assert told["message"], (hostile, told)


def resident_bytes(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


async def is_recorded(address, write_key):
    """Tells whether somebody who means well is still served."""
    event = {"type": "track", "event": "Order Completed", "userId": "u1"}
    async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_WITHIN_S) as http:
        answer = await http.post(
            f"http://{address}/v1/batch", json={"batch": [event]}, auth=(write_key, "")
        )
    return answer.json()["receipts"][0]["outcome"] == "accepted"
