"""Segments on a real PostgreSQL: bare, and as a service with its feed."""

import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg
import pytest

from rapport.identity.v1 import events_pb2 as identity_events_pb2
from rapport.segments.v1.service_pb2 import ListSegmentMembersRequest
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceStub
from services.kernel.clock import FixedClock
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.recorded import EventTypes
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import Service
from services.segments.__main__ import compose
from tests.segments_world import ACME, START, People, SegmentsWorld


@pytest.fixture
async def world(database):
    """Segments whose time is told by the test."""
    async with asyncpg.create_pool(database, min_size=1, max_size=4) as pool:
        world = SegmentsWorld(pool, FixedClock(START))
        await world.prepare()
        yield world


STAND_IN = Service(
    name="identity", event_types=EventTypes(identity_events_pb2), servicers=lambda _: ()
)


@dataclass
class Platform:
    """The segments service behind gRPC, and an identity that says what a test wants."""

    identity: Any
    asked: Any
    clock: FixedClock
    people: People

    def segments(self, workspace=ACME):
        """The service as a workspace sees it."""
        return self.asked.stub(SegmentsServiceStub, workspace=workspace)

    async def tell(self, *facts, workspace=ACME):
        """Identity records facts; answers the token of that write."""
        kernel = self.identity.kernel
        origin = Origin(workspace, "tests", "", "")
        append = Append(origin, "profile-1", [NewEvent(fact) for fact in facts])
        async with transaction(kernel.pool) as tx:
            landed = await kernel.log.append(tx, [append])
        return encode_write_token("identity", landed.heads)

    def set_time(self, now):
        """It is another time now; the service hears of it as of any news."""
        self.clock.set(now)
        self.asked.kernel.bell.ring()

    async def members(self, segment, read_token=""):
        """The ids of a segment's members."""
        request = ListSegmentMembersRequest(name=segment, read_token=read_token)
        listed = await self.segments().ListSegmentMembers(request)
        return [member.profile.removeprefix("profiles/") for member in listed.members]


@pytest.fixture
async def platform(start_service, postgres):
    """Both services run, each on a database of its own, with the feed between them."""
    name = f"test_{uuid.uuid4().hex}"
    clock = FixedClock(START)
    identity = await start_service(
        STAND_IN, database_url=await postgres.create_database(name), clock=clock
    )
    asked = await start_service(compose(clock), clock=clock, identity=identity.address)
    return Platform(identity, asked, clock, People())
