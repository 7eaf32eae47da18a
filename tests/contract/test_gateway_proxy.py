"""The proxy adds nothing and loses nothing: streams, metadata, cancellation, sizes, deadlines."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import pytest
from prometheus_client import CollectorRegistry

from gateway.proxy import Proxy
from rapport.common.v1.log_service_pb2 import ReadLogRequest, ReadLogResponse
from services.kernel import errors
from services.kernel.process.metrics import RpcMetrics
from services.kernel.rpc.caller import current_caller
from services.kernel.rpc.client import open_channel
from services.kernel.rpc.server import REQUEST_BYTES_MAX, Server
from tests.contract.echo import ECHO, EchoStub, response, world


@pytest.fixture
async def behind():
    """The echo service."""
    async with world() as made:
        yield made


@pytest.fixture
async def stub(behind):
    """A client of the echo service who only knows the proxy before it."""
    async with proxied(behind, lambda: behind.caller("*")) as stub:
        yield stub


@asynccontextmanager
async def proxied(behind, who):
    """A client of the echo service behind a proxy that asks `who` calls."""

    async def authenticate(_):
        return who()

    proxy = Proxy(
        "echo",
        f"127.0.0.1:{behind.server.port}",
        ECHO,
        signer=behind.signer,
        authenticate=authenticate,
        recheck_s=0.05,
    )

    server = Server(
        "127.0.0.1:0",
        [proxy.served],
        authenticate=authenticate,
        metrics=RpcMetrics(CollectorRegistry()),
    )
    await server.start()
    async with open_channel(f"127.0.0.1:{server.port}", []) as channel:
        yield EchoStub(channel)
    await server.stop(grace_s=0)
    await proxy.close()


async def requests(*limits: int):
    for limit in limits:
        yield ReadLogRequest(limit=limit)


async def read_to_the_end(call):
    return [answer async for answer in call]


def positions(*answers: ReadLogResponse) -> list[int]:
    return [event.position for answer in answers for event in answer.events]


async def test_a_stream_of_answers_arrives_whole_and_in_order(behind, stub):
    async def watch(request):
        for position in range(request.limit):
            yield response(position)

    behind.echo.watch = watch

    answers = [answer async for answer in stub.watch(ReadLogRequest(limit=500))]

    assert list(range(500)) == positions(*answers)


async def test_a_stream_of_requests_is_answered_once(stub):
    assert positions(await stub.collect(requests(1, 2, 3))) == [6]


async def test_both_sides_may_stream_in_turn(stub):
    call = stub.chat()
    heard = []
    for limit in (1, 2, 3):
        await call.write(ReadLogRequest(limit=limit))
        heard += positions(await call.read())
    await call.done_writing()

    assert [1, 2, 3] == heard
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_an_error_in_the_middle_of_a_stream_keeps_its_details(behind, stub):
    async def watch(_):
        yield response(1)
        raise errors.Aborted.conflict()

    behind.echo.watch = watch
    answers = stub.watch(ReadLogRequest())

    assert positions(await answers.read()) == [1]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await answers.read()
    assert grpc.StatusCode.ABORTED is raised.value.code()
    assert b"CONFLICT" in dict(raised.value.trailing_metadata())["grpc-status-details-bin"]


@pytest.mark.parametrize("method", ["watch", "chat", "collect"])
@pytest.mark.parametrize(
    ("becomes", "code"),
    [
        (errors.Unauthenticated("nobody issued this API key"), grpc.StatusCode.UNAUTHENTICATED),
        ("other.read", grpc.StatusCode.PERMISSION_DENIED),
    ],
    ids=["revoked", "restricted"],
)
async def test_a_stream_ends_when_its_caller_is_let_in_no_longer(behind, method, becomes, code):
    now = {"becomes": "*"}
    begun, ended = asyncio.Event(), asyncio.Event()

    def who():
        if isinstance(now["becomes"], Exception):
            raise now["becomes"]
        return behind.caller(now["becomes"])

    async def wait(_):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def stream(request):
        yield response(1)
        await wait(request)

    behind.echo.watch, behind.echo.chat, behind.echo.collect = stream, stream, wait
    async with proxied(behind, who) as stub:
        call = stub.watch(ReadLogRequest()) if method == "watch" else getattr(stub, method)()
        await asyncio.wait_for(begun.wait(), 5)
        now["becomes"] = becomes

        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await asyncio.wait_for(call if method == "collect" else read_to_the_end(call), 5)
        assert raised.value.code() is code
        await asyncio.wait_for(ended.wait(), 5)


async def test_a_stream_outlives_many_questions_who_reads_it(behind):
    asked = asyncio.Event()
    count = 0

    def who():
        nonlocal count
        count += 1
        if count == 4:
            asked.set()
        return behind.caller("*")

    async def watch(_):
        yield response(1)
        await asked.wait()
        yield response(2)

    behind.echo.watch = watch
    async with proxied(behind, who) as stub:
        answers = [answer async for answer in stub.watch(ReadLogRequest())]

    assert [1, 2] == positions(*answers)


@pytest.mark.parametrize("method", ["get", "watch"])
async def test_a_client_that_gives_up_ends_the_call_at_the_service(behind, stub, method):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait():
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def get(_):
        await wait()

    async def watch(_):
        await wait()
        yield ReadLogResponse()

    behind.echo.get, behind.echo.watch = get, watch
    call = getattr(stub, method)(ReadLogRequest(), timeout=30)
    reading = asyncio.ensure_future(call.read() if method == "watch" else call)
    await asyncio.wait_for(begun.wait(), 5)
    call.cancel()
    await asyncio.wait_for(ended.wait(), 5)

    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_the_correlation_id_goes_to_the_service_and_comes_back(behind, stub):
    heard = []

    async def get(_):
        heard.append(current_caller().correlation_id)
        return ReadLogResponse()

    behind.echo.get = get
    call = stub.get(ReadLogRequest(), metadata=[("rapport-correlation-id", "abc-1")])
    await call

    assert ["abc-1"] == heard
    assert {"rapport-correlation-id": "abc-1"} == dict(await call.trailing_metadata())


async def test_a_correlation_id_that_is_not_fit_to_be_logged_is_replaced(stub):
    call = stub.get(ReadLogRequest(), metadata=[("rapport-correlation-id", "a b " * 50)])
    await call

    made = dict(await call.trailing_metadata())["rapport-correlation-id"]
    assert len(made) == 36


async def test_metadata_goes_on_to_the_service_but_no_key_does(behind, stub):
    heard = []
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    pipeline = behind.server._pipeline
    pipeline.intercept_service = _hearing(pipeline, heard)
    own = [("x-hint", "blue"), ("x-proof-bin", b"\0"), ("x-api-key", "k"), ("authorization", "k")]
    await stub.get(ReadLogRequest(), metadata=[*own, ("traceparent", trace)])

    [metadata] = heard
    assert metadata["traceparent"].split("-")[1] == trace.split("-")[1]
    assert (metadata["x-hint"], metadata["x-proof-bin"]) == ("blue", b"\0")
    assert not {"x-api-key", "authorization"} & set(metadata)


def _hearing(pipeline, heard):
    serve = type(pipeline).intercept_service.__get__(pipeline)

    async def intercept(continuation, details):
        heard.append(dict(details.invocation_metadata))
        return await serve(continuation, details)

    return intercept


async def test_a_message_as_large_as_a_service_takes_goes_through(behind, stub):
    async def get(request):
        return ReadLogResponse(events=[{"data": b"x" * request.limit}])

    behind.echo.get = get
    size = REQUEST_BYTES_MAX - 1000

    answer = await stub.get(ReadLogRequest(limit=size), timeout=20)

    assert len(answer.events[0].data) == size


async def test_a_message_that_is_too_large_is_refused(stub):
    unknown_field = b"\xfa\x3f" + b"\x80\x80\xc0\x02" + bytes(5 * 1024 * 1024)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.get(ReadLogRequest.FromString(unknown_field), timeout=20)

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is raised.value.code()


async def test_a_call_without_a_deadline_gets_the_platforms(behind, stub):
    remaining = []

    async def get(_):
        remaining.append(current_caller().remaining_s)
        return ReadLogResponse()

    behind.echo.get = get
    await stub.get(ReadLogRequest())

    assert 9 < remaining[0] < 10.5  # gRPC rounds a deadline up
