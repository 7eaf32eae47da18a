"""A write key issued at run time opens both doors, as long as the events service says so."""

from __future__ import annotations

import hashlib

import grpc
import pytest

from rapport.events.v1 import service_pb2 as events
from rapport.events.v1 import write_keys_pb2 as pb
from services.kernel.errors import NotFound, Unavailable
from services.kernel.testing import eventually
from tests.contract.gateway_world import accept, bearer, error_infos, gateway_world, key

WRITE_KEY = "wk_0a1b2c_s3cret_with_more"
RECORD = "/rapport.events.v1.EventsService/RecordCustomerEvents"
TRACK = {"type": "track", "event": "Order Placed", "userId": "u1", "messageId": "m1"}


class Issued:
    """The write keys that the events service of a test believes."""

    def __init__(self):
        self.hashes = {"0a1b2c": hashlib.sha256(b"s3cret_with_more").digest()}
        self.is_down = False

    def resolve(self, request, _):
        if self.is_down:
            raise Unavailable("storage")
        if self.hashes.get(request.key_id) != request.secret_hash:
            raise NotFound("the write key")
        return pb.ResolveWriteKeyResponse(workspace="acme", source="sources/shop")


@pytest.fixture
async def world(tmp_path):
    async with gateway_world(tmp_path) as made:
        made.issued = Issued()
        made.services["events"].says["ResolveWriteKey"] = made.issued.resolve
        made.services["events"].says["RecordCustomerEvents"] = accept
        yield made


async def send(world, write_key=WRITE_KEY):
    return await world.http.post("/v1/batch", json={"batch": [TRACK]}, auth=(write_key, ""))


async def record(world, write_key=WRITE_KEY):
    request = events.RecordCustomerEventsRequest(customer_events=[{"user_id": "u1"}])
    metadata = [("authorization", f"Bearer {write_key}")]
    send_by_grpc = world.channel.unary_unary(RECORD)
    return await send_by_grpc(request.SerializeToString(), metadata=metadata, timeout=15)


def heard(world, method):
    return [call for call in world.services["events"].heard if call[0] == method]


async def test_it_stands_for_its_source_at_both_doors(world):
    answer = await send(world)
    await record(world)

    callers = [caller for *_, caller in heard(world, "RecordCustomerEvents")]
    assert answer.status_code == 200
    assert {(it.workspace, it.actor, it.scopes) for it in callers} == {
        ("acme", "sources/shop", frozenset({"events.write"}))
    }


async def test_the_gateway_asks_in_its_own_name_and_for_no_workspace(world):
    await send(world)

    [(_, request, _, caller)] = heard(world, "ResolveWriteKey")
    assert (caller.workspace, caller.actor, caller.scopes) == ("", "services/gateway", {"internal"})
    assert b"s3cret" not in request.SerializeToString()


@pytest.mark.parametrize("write_key", ["wk_0a1b2c_wrong", "wk_none_s3cret", "wk__x", "wk_0a1b2c_"])
async def test_a_key_that_nobody_issued_is_refused_at_both_doors(world, write_key):
    answer = await send(world, write_key)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await record(world, write_key)

    assert (answer.status_code, answer.json()["code"]) == (401, "credential_invalid")
    assert raised.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert heard(world, "RecordCustomerEvents") == []


async def test_a_key_of_the_file_is_nobody_elses_to_judge(world):
    await send(world, key("web"))
    await send(world, "wk_web_wrong")

    assert heard(world, "ResolveWriteKey") == []


async def test_it_opens_nothing_but_sending(world):
    for path in ("/v1/customerEvents", "/v1/contacts"):
        answer = await world.http.get(path, headers={"x-api-key": WRITE_KEY})
        assert answer.status_code == 403


async def test_a_revoked_key_is_refused_soon(world):
    await send(world)
    world.issued.hashes.clear()

    async def refused():
        assert (await send(world)).status_code == 401

    await eventually(refused, within_s=2)


async def test_who_cannot_be_told_is_asked_to_come_again(world):
    world.issued.is_down = True
    answer = await send(world)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await record(world)
    world.issued.is_down = False

    assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE
    assert len(error_infos(raised.value)) == 1
    assert (await send(world)).status_code == 200


async def test_a_key_of_the_file_works_while_nobody_can_be_told(world):
    world.issued.is_down = True

    assert (await send(world, key("web"))).status_code == 200


async def test_nobody_outside_may_ask_whose_a_key_is(world):
    path = "/rapport.events.v1.WriteKeysService/ResolveWriteKey"
    request = pb.ResolveWriteKeyRequest(key_id="0a1b2c", secret_hash=bytes(32))
    ask = world.channel.unary_unary(path)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(request.SerializeToString(), metadata=bearer("all"), timeout=5)

    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED
