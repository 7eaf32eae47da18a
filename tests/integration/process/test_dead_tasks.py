"""A task that dies is seen from outside, and a process that can record no more says so."""

import asyncio
from dataclasses import replace

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.kernel.command.group_commit import GroupCommit
from services.kernel.testing import eventually
from tests.tallies import THINGS

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(asked):
    """What the health service answers."""
    async with grpc.aio.insecure_channel(asked.address) as channel:
        request = health_pb2.HealthCheckRequest()
        return (await health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)).status


async def test_a_task_that_dies_is_counted_and_the_others_go_on(start_service):
    counted = []

    async def dies():
        raise ZeroDivisionError

    def background(_kernel, registry):
        counted.append(registry)
        return [dies()]

    asked = await start_service(replace(THINGS, background=background))

    def died(kind):
        return counted[0].get_sample_value("rapport_task_died_total", {"kind": kind})

    def one_died():
        assert died("background") == 1

    await eventually(one_died)
    assert [died(kind) for kind in ("group commit", "relay", "listener")] == [0, 0, 0]
    assert await health_of(asked) == SERVING


async def test_a_process_whose_group_commit_died_is_not_ready(start_service, monkeypatch):
    end = asyncio.Event()

    async def until_told(_self):
        await end.wait()
        raise ZeroDivisionError

    monkeypatch.setattr(GroupCommit, "run", until_told)
    asked = await start_service(THINGS)
    assert await health_of(asked) == SERVING
    end.set()

    async def said():
        assert await health_of(asked) == NOT_SERVING
        assert not asked.running.server.serving  # what /readyz tells

    await eventually(said)
