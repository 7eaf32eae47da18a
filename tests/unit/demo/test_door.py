"""The demo asks again where that can help, for a bounded time, and nowhere else."""

import dataclasses

import grpc
import grpc.aio
import pytest

from deploy.demo import door as doors
from deploy.demo.door import Door
from rapport.contacts.v1.service_pb2 import GetContactRequest, GetContactResponse
from services.kernel.errors import NotFound, Unavailable

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
NOT_FOUND = grpc.StatusCode.NOT_FOUND


class Method:
    """Fails with each status in turn, then answers."""

    def __init__(self, *statuses):
        self._statuses = list(statuses)
        self.calls = 0

    async def __call__(self, _, *, timeout, metadata):
        self.calls += 1
        assert ("authorization", "Bearer rk_1") in metadata
        assert timeout > 0
        if self._statuses:
            raise grpc.aio.AioRpcError(
                self._statuses.pop(0), grpc.aio.Metadata(), grpc.aio.Metadata()
            )
        return GetContactResponse()


@pytest.fixture
def door(monkeypatch):
    monkeypatch.setattr(doors, "FIRST_PAUSE_S", 0.0)
    nothing = dict.fromkeys(field.name for field in dataclasses.fields(Door))
    return Door(**nothing | {"_api_key": "rk_1"})


async def test_a_part_that_does_not_answer_is_asked_again(door):
    method = Method(UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

    assert GetContactResponse() == await door.ask(method, GetContactRequest())
    assert 3 == method.calls


async def test_a_refusal_is_final(door):
    method = Method(NOT_FOUND)

    with pytest.raises(NotFound):
        await door.ask(method, GetContactRequest())
    assert 1 == method.calls


async def test_patience_ends(door, monkeypatch):
    monkeypatch.setattr(doors, "REPEAT_FOR_S", 0.0)
    method = Method(UNAVAILABLE, UNAVAILABLE)

    with pytest.raises(Unavailable):
        await door.ask(method, GetContactRequest())
    assert 1 == method.calls
