"""The gateway as a process: ready when both doors are open, drained before it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from deploy.stack.ports import free_port
from gateway.catalog import FORWARDED, PUBLIC
from rapport.contacts.v1 import service_pb2 as contacts
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.kernel.rpc.client import open_channel
from services.kernel.testing import eventually
from tests.contract.gateway_world import KEYS, PEPPER, SECRET, StandIn, bearer, key

ROOT = Path(__file__).parents[3]
BUF = Path(sys.executable).parent / "buf"


class Process:
    """A running gateway, before stand-in services."""

    def __init__(self, directory: Path, services: dict[str, StandIn]) -> None:
        self.services = services
        self.grpc, self.http, self.metrics = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.keys_file = directory / "keys.json"
        self.keys_file.write_text(json.dumps(KEYS))
        self.environment = {
            "PATH": os.defpath,
            "RAPPORT_GRPC_ADDRESS": self.grpc,
            "RAPPORT_HTTP_ADDRESS": self.http,
            "RAPPORT_METRICS_ADDRESS": self.metrics,
            "RAPPORT_INTERNAL_SECRET": SECRET.decode(),
            "RAPPORT_API_KEYS_FILE": str(self.keys_file),
            "RAPPORT_KEY_PEPPER": PEPPER.decode(),
            **{
                f"RAPPORT_{name.upper()}_ADDRESS": f"127.0.0.1:{service.port}"
                for name, service in services.items()
            },
        }
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway",
            cwd=ROOT,
            env=self.environment,
            stderr=asyncio.subprocess.PIPE,
        )

    async def stop(self) -> tuple[int, str]:
        """Asks it to end; returns its exit status and its log."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        return await self.ended()

    async def ended(self) -> tuple[int, str]:
        """Waits for its end; returns its exit status and its log."""
        async with asyncio.timeout(30):
            _, log = await self.process.communicate()
        return self.process.returncode or 0, log.decode()

    async def status(self) -> int:
        async with open_channel(self.grpc, []) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest()
            try:
                return (await stub.Check(request, timeout=2)).status
            except grpc.aio.AioRpcError:
                return health_pb2.HealthCheckResponse.UNKNOWN

    async def get(self, address: str, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://{address}{path}")


@pytest.fixture
async def process(tmp_path):
    async with AsyncExitStack() as stack:
        services = {name: StandIn(name) for name in FORWARDED}
        for service in services.values():
            await service.start()
            stack.push_async_callback(service.stop)
        made = Process(tmp_path, services)
        await made.start()
        yield made
        if made.process.returncode is None:
            await made.stop()


async def serving(process: Process) -> None:
    async def is_serving():
        assert process.process.returncode is None
        assert await process.status() == health_pb2.HealthCheckResponse.SERVING

    await eventually(is_serving, within_s=30)


async def test_who_is_told_it_serves_finds_both_doors_open(process):
    await serving(process)

    assert (await process.get(process.http, "/healthz")).text == "ok\n"


async def test_the_machines_that_watch_find_its_pages(process):
    await serving(process)

    async def is_ready():
        try:
            assert (await process.get(process.metrics, "/readyz")).status_code == 200
        except httpx.ConnectError as error:
            raise AssertionError from error

    await eventually(is_ready)
    assert (await process.get(process.metrics, "/healthz")).status_code == 200
    page = await process.get(process.metrics, "/metrics")
    assert "rapport_rpc_in_flight" in page.text


async def test_it_finishes_what_it_began_and_takes_nothing_new(process):
    await serving(process)
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_, __):
        begun.set()
        await may_end.wait()
        return contacts.GetContactResponse(contact=contacts.Contact(name="contacts/a"))

    process.services["contacts"].says["GetContact"] = wait
    async with open_channel(process.grpc, []) as channel, httpx.AsyncClient(trust_env=False) as web:
        request = contacts.GetContactRequest(name="contacts/a")
        by_grpc = asyncio.ensure_future(
            ContactsServiceStub(channel).GetContact(request, metadata=bearer("all"), timeout=20)
        )
        await asyncio.wait_for(begun.wait(), 10)
        begun.clear()
        by_http = asyncio.create_task(
            web.get(f"http://{process.http}/v1/contacts/a", headers={"x-api-key": key("all")})
        )
        await asyncio.wait_for(begun.wait(), 10)
        process.process.send_signal(signal.SIGTERM)

        async def refuses():
            assert await process.status() != health_pb2.HealthCheckResponse.SERVING
            # uvicorn looks every 100 ms whether it is to stop listening.
            try:
                await process.get(process.http, "/healthz")
            except httpx.TransportError:
                return
            raise AssertionError("the HTTP port is still open")

        await eventually(refuses, within_s=10)
        may_end.set()
        answers = (await by_grpc).contact.name, (await by_http).json()["contact"]["name"]

    assert answers == ("contacts/a", "contacts/a")
    code, log = await process.ended()
    assert code == 0
    assert "gateway.stopped" in log


async def test_no_key_and_no_personal_word_is_in_its_log(process):
    await serving(process)
    async with httpx.AsyncClient(trust_env=False, base_url=f"http://{process.http}") as web:
        headers = {"authorization": f"Bearer {key('all')}"}
        await web.get("/v1/profiles/email:ada@example.com", headers=headers)
        await web.get("/v1/nowhere/ada@example.com?token=ada@example.com", headers=headers)
        await web.post("/v1/contacts", headers=headers, json={"email": 5, "x": "ada@example.com"})
        await web.post("/v1/batch", json={"batch": [], "writeKey": key("web")})

    _, log = await process.stop()

    assert log.count('"event":"rpc"') >= 4
    assert "5ec7e7" not in log
    assert "ada@example.com" not in log


@pytest.mark.skipif(not BUF.exists(), reason="buf is not installed")
async def test_a_tool_that_only_knows_reflection_can_call_it(process):
    await serving(process)
    url = f"http://{process.grpc}"
    plain = ("--http2-prior-knowledge", "--protocol", "grpc")

    listed = await _run(BUF, "curl", *plain, "--list-services", url)
    contact = contacts.Contact(name="contacts/a")
    process.services["contacts"].says["GetContact"] = lambda _, __: contacts.GetContactResponse(
        contact=contact
    )
    answer = await _run(
        BUF,
        "curl",
        *plain,
        "--header",
        f"authorization: Bearer {key('all')}",
        "--data",
        '{"name": "contacts/a"}',
        f"{url}/rapport.contacts.v1.ContactsService/GetContact",
    )

    assert {service.full_name for service in PUBLIC} <= set(listed.split())
    assert json.loads(answer) == {"contact": {"name": "contacts/a"}}


async def _run(*command: object) -> str:
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"RAPPORT_KEY_PEPPER": ""}, "RAPPORT_KEY_PEPPER is missing"),
        ({"RAPPORT_API_KEYS_FILE": "/nowhere/keys.json"}, "API keys file cannot be read"),
    ],
    ids=["environment", "keys"],
)
async def test_it_says_why_it_cannot_start(process, change, told):
    await process.stop()
    process.environment |= change
    await process.start()
    async with asyncio.timeout(30):
        _, log = await process.process.communicate()

    assert process.process.returncode == 1
    assert told in log.decode()
    assert "Traceback" not in log.decode()
