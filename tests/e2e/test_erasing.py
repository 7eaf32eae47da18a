"""Who is erased is in no byte: of no database, no feed, and no log line of the whole platform."""

import uuid
from pathlib import Path

import asyncpg
import grpc
import pytest

from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.identity.v1.erasure_state_pb2 import ERASURE_STATE_FINISHED
from rapport.identity.v1.erasures_pb2 import CreateErasureRequest, WatchErasureRequest
from rapport.identity.v1.erasures_pb2_grpc import ErasuresServiceStub
from rapport.identity.v1.service_pb2 import GetProfileRequest
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from services.kernel.erasing.proof import find_in_files
from services.kernel.testing import eventually

TIMEOUT_S = 30.0
ERASED_WITHIN_S = 120.0
WITHIN_S = 60.0


@pytest.fixture
async def channel(platform):
    async with grpc.aio.insecure_channel(platform["grpc"]) as channel:
        yield channel


async def test_no_byte_of_an_erased_person_is_left(platform, door, channel):
    marker = f"marker{uuid.uuid4().hex}"
    options = {
        "metadata": (("authorization", f"Bearer {platform['api_key']}"),),
        "timeout": TIMEOUT_S,
    }
    email, friend = f"{marker}@example.org", uuid.uuid4().hex
    contact = CreateContactRequest(
        contact_id=uuid.uuid4().hex, given_name=marker, email=email, request_id=str(uuid.uuid4())
    )
    await ContactsServiceStub(channel).CreateContact(contact, **options)
    await door.track(
        [
            {"type": "identify", "userId": f"u-{marker}", "traits": {"email": email}},
            {"type": "identify", "userId": friend, "traits": {"friend": {"email": email}}},
            {
                "type": "track",
                "event": "Seen",
                "userId": f"u-{marker}",
                "properties": {"a": marker},
            },
        ]
    )
    identity = IdentityServiceStub(channel)

    async def known():
        request = GetProfileRequest(name=f"profiles/user_id:u-{marker}")
        profile = (await identity.GetProfile(request, **options)).profile
        assert {"contact_id", "email", "user_id"} == {known.type for known in profile.identifiers}
        request = GetProfileRequest(name=f"profiles/user_id:{friend}")
        assert "friend" in (await identity.GetProfile(request, **options)).profile.traits

    await eventually(_found(known), within_s=WITHIN_S)
    erasures = ErasuresServiceStub(channel)
    created = await erasures.CreateErasure(
        CreateErasureRequest(identifier=Named(type="email", value=email.upper())), **options
    )
    watched = WatchErasureRequest(name=created.erasure.name)
    answers = erasures.WatchErasure(watched, **{**options, "timeout": ERASED_WITHIN_S})
    [*_, erasure] = [answer.erasure async for answer in answers]
    done = {it.system for it in erasure.systems if it.state == ERASURE_STATE_FINISHED}
    places = [place for name in sorted(done) for place in await _places(platform, name)]
    if done == platform["databases"].keys():
        places = [platform["data_dir"]]
    found = list(find_in_files(marker, places))

    assert {"contacts", "deals", "events"} <= done
    assert [] == found


async def _places(platform, service):
    """Where a service's database and feed lie."""
    connection = await asyncpg.connect(platform["databases"][service])
    try:
        await connection.execute("checkpoint")
        folder = Path(await connection.fetchval("show data_directory"))
        number = await connection.fetchval(
            "select oid from pg_database where datname = current_database()"
        )
    finally:
        await connection.close()
    store = platform["data_dir"] / "nats" / "store" / "jetstream" / "$G" / "streams"
    return [folder / "base" / f"{number}", store / f"{service.upper()}-0"]


def _found(assertion):
    """The assertion, which does not hold either while nobody is found."""

    async def holds():
        try:
            await assertion()
        except grpc.aio.AioRpcError as error:
            raise AssertionError(error.details()) from error

    return holds
