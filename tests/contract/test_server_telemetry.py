"""Each call leaves one line and its numbers behind; what the caller is not told is in the line."""

from __future__ import annotations

import asyncio
import io
import logging

import httpx
import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from rapport.common.v1.log_service_pb2 import ReadLogRequest
from services.kernel import errors
from services.kernel.process import telemetry
from services.kernel.process.metrics import new_registry, probes
from services.kernel.process.web import HEAD_BYTES_MAX, WebServer
from tests.contract.echo import ECHO, response, world

GET = f"{ECHO.full_name}/Get"


@pytest.fixture
async def echo_world():
    async with world() as made:
        yield made


@pytest.fixture
def restore_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


async def test_a_call_leaves_one_line_with_the_words_of_whoever_served_it(echo_world):
    async def serve(_):
        telemetry.annotate(stream="contact-1", version=3)
        return response(1)

    echo_world.echo.get = serve
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    with capture_logs() as lines:
        await peer.get(ReadLogRequest())

    (line,) = lines
    assert line.pop("duration_ms") > 0
    assert line == {
        "event": "rpc",
        "log_level": "info",
        "method": GET,
        "code": "OK",
        "workspace": "acme",
        "actor": "api_keys/k1",
        "stream": "contact-1",
        "version": 3,
    }


async def test_a_bug_is_found_by_its_correlation_id(echo_world, restore_logging):
    async def fail(_):
        raise ZeroDivisionError("the secret state")

    out = io.StringIO()
    telemetry.start_logging("echo", log_format="json", stream=out)
    echo_world.echo.get = fail
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))

    with pytest.raises(errors.Bug) as raised:
        await peer.get(ReadLogRequest())

    line = orjson.loads(out.getvalue())
    assert line["correlation_id"] == raised.value.metadata["correlation_id"]
    assert (line["service"], line["level"], line["code"]) == ("echo", "error", "INTERNAL")
    assert "ZeroDivisionError: the secret state" in line["exception"]


async def test_lines_of_libraries_have_the_same_form(restore_logging):
    out = io.StringIO()
    telemetry.start_logging("echo", log_format="json", stream=out)

    logging.getLogger("some.library").warning("it is %s", "late")

    line = orjson.loads(out.getvalue())
    assert (line["event"], line["service"], line["level"]) == ("it is late", "echo", "warning")


async def test_calls_are_counted_by_method_and_code(echo_world):
    async def fail(_):
        raise errors.NotFound("contacts/1")

    echo_world.echo.set = fail
    peer = await echo_world.peer(lambda: echo_world.caller("echo.*"))
    await peer.get(ReadLogRequest())
    await peer.get(ReadLogRequest())
    with pytest.raises(errors.NotFound):
        await peer.set(ReadLogRequest())
    channel = await echo_world.bare()
    for path in ("/a.b/C", "/d.e/F"):
        await channel.unary_unary(path)(b"", timeout=5).code()

    handled = "rapport_rpc_handled_total"
    assert echo_world.count(handled, method=GET, code="OK") == 2
    assert echo_world.count(handled, method=f"{ECHO.full_name}/Set", code="NOT_FOUND") == 1
    assert echo_world.count(handled, method="unknown", code="UNIMPLEMENTED") == 2
    assert echo_world.count("rapport_rpc_duration_seconds_count", method=GET) == 2
    assert echo_world.count("rapport_rpc_in_flight", method=GET) == 0


async def test_the_numbers_and_the_readiness_are_read_over_http():
    ready = False
    web = WebServer("127.0.0.1:0", probes(new_registry(), ready=lambda: ready))
    await web.start()
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{web.port}", trust_env=False
    ) as client:
        codes = [(await client.get(path)).status_code for path in ("/healthz", "/readyz")]
        ready = True
        codes.append((await client.get("/readyz")).status_code)
        page = await client.get("/metrics")
    await web.stop()

    assert codes == [200, 503, 200]
    assert "python_info" in page.text


@pytest.mark.parametrize(
    "beginning",
    [b"GET /healthz HTTP/1.1\r\nx-a: ", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"],
    ids=["header", "trailer"],
)
async def test_who_sends_endless_headers_is_hung_up_on(beginning):
    web = WebServer("127.0.0.1:0", probes(new_registry(), ready=lambda: True))
    await web.start()
    _, writer = await asyncio.open_connection("127.0.0.1", web.port)
    writer.write(beginning + (b"0\r\nx-a: " if b"POST" in beginning else b""))

    async def go_on():
        for _ in range(1000):
            writer.write(b"a" * HEAD_BYTES_MAX)
            await writer.drain()

    with pytest.raises(ConnectionError):
        await go_on()
    writer.close()
    await web.stop()


async def test_a_long_body_in_tiny_chunks_is_no_endless_header():
    received = 0

    async def count(_scope, receive, send):
        nonlocal received
        more = True
        while more:
            message = await receive()
            received += len(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def tiny():
        for _ in range(HEAD_BYTES_MAX // 2):
            yield b"a"

    web = WebServer("127.0.0.1:0", count)
    await web.start()
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{web.port}/", content=tiny())
    await web.stop()

    assert (answer.status_code, received) == (200, HEAD_BYTES_MAX // 2)


async def test_a_port_that_is_taken_is_an_error_at_the_start(echo_world):
    with pytest.raises(OSError, match="in use"):
        await WebServer(f"127.0.0.1:{echo_world.server.port}", probes).start()
    with pytest.raises(RuntimeError):
        await echo_world.new_server(f"127.0.0.1:{echo_world.server.port}").start()
