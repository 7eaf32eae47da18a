"""One profile through gRPC: as it is and as it was, directly and through the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc
from asyncpg import Pool
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.identity.v1.service_pb2 import GetProfileRequest
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from services.kernel.clock import SystemClock
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import open_pool
from tests.bench.consuming import identity_log
from tests.bench.rounds import Bout, Contender, Line, Metric, Section
from tests.bench.section_reads import CALL_TIMEOUT_S, Read, timed_reads
from tests.bench.sizes import READ_CALLERS
from tests.bench.world import World

CATCHES_UP_WITHIN_S = 120.0

_SOME = "select profile from profiles.profiles order by profile limit $1"
_SELECT = "select * from profiles.profiles where workspace = $1 and profile = $2"
_WORKSPACE = "select workspace from profiles.profiles limit 1"


def selecting(pool: Pool, workspace: str) -> Read:
    """The row by which a profile is listed, by SQL from this process."""

    async def read(name: str) -> None:
        found = await pool.fetchrow(_SELECT, workspace, name.removeprefix("profiles/"))
        assert found is not None

    return read


def asking(stub: IdentityServiceStub, moment: Timestamp | None = None, **options: object) -> Read:
    """The RPC: with identifiers, traits and who said them, or as of a moment."""

    async def read(name: str) -> None:
        request = GetProfileRequest(name=name, read_time=moment)
        response = await stub.GetProfile(request, timeout=CALL_TIMEOUT_S, **options)
        assert response.profile.name == name

    return read


@asynccontextmanager
async def _open(world: World) -> AsyncIterator[Bout]:
    sizes = world.sizes
    async with AsyncExitStack() as stack:
        stack.push_async_callback(world.forget_feeds)
        await identity_log(world)
        url = await world.postgres.create_database("profiles_read", "facts_identity")
        await stack.enter_async_context(world.process("identity", url))
        await stack.enter_async_context(world.process("gateway"))
        pool = await stack.enter_async_context(open_pool(url))
        direct = IdentityServiceStub(await stack.enter_async_context(world.peer("identity")))
        door = await stack.enter_async_context(
            grpc.aio.insecure_channel(world.addresses["gateway"])
        )
        key = (("authorization", f"Bearer {world.secrets.api_key}"),)
        names = [f"profiles/{row['profile']}" for row in await pool.fetch(_SOME, sizes.contacts)]
        moment = timestamp_of(SystemClock().now())
        # Once the past is known up to here, nobody waits for it any longer.
        await direct.GetProfile(
            GetProfileRequest(name=names[0], read_time=moment), timeout=CATCHES_UP_WITHIN_S
        )
        ways = {
            "direct": asking(direct),
            "past": asking(direct, moment),
            "gateway": asking(IdentityServiceStub(door), metadata=key),
            "sql": selecting(pool, await pool.fetchval(_WORKSPACE)),
        }
        counts = zip(READ_CALLERS, (sizes.reads_alone, sizes.reads_together), strict=True)
        contenders = [
            Contender(f"{name} x {callers}", partial(timed_reads, read, names, count, callers))
            for callers, count in counts
            for name, read in ways.items()
        ]
        yield Bout(contenders, [*_lines("p50_ms"), *_lines("p99_ms")])


def _lines(metric: Metric) -> list[Line]:
    told = metric.removesuffix("_ms")
    return [
        Line(
            what=f"GetProfile {what}, {callers} caller{'s' if callers > 1 else ''}, {told}",
            ours=f"{way} x {callers}",
            bare=f"{bare} x {callers}",
            metric=metric,
            note=note,
        )
        for way, what, bare, note in (
            ("direct", "direct", "sql", "bare: the row that lists it, by SQL"),
            ("past", "as of a moment", "direct", "bare: here our own answer as of now"),
            ("gateway", "gateway", "sql", "bare: the row that lists it, by SQL"),
        )
        for callers in READ_CALLERS
    ]


SECTION = Section("profiles", "Profiles: GetProfile through gRPC", _open)
