"""One service in this process, on a real PostgreSQL and a real NATS, asked through gRPC."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from deploy.stack.postgres import Postgres
from services.kernel.clock import Clock, SystemClock
from services.kernel.process.config import ServiceConfig
from services.kernel.process.metrics import new_registry
from services.kernel.process.runtime import (
    Running,
    Service,
    open_pool,
    prepare_database,
    running,
)
from services.kernel.rpc.caller import CallerSigner, own_caller
from services.kernel.rpc.client import PeerChannel

SECRET = "a secret that the processes of these tests share"


@dataclass(frozen=True)
class Asked:
    """A running service and how to ask it."""

    running: Running
    open_channel: Callable[..., PeerChannel]

    @property
    def address(self) -> str:
        """Where the service answers."""
        return f"127.0.0.1:{self.running.server.port}"

    @property
    def kernel(self):
        """What the service's RPCs are built on."""
        return self.running.kernel

    def stub(self, stub_class, *, workspace="acme", scopes=frozenset({"*", "internal"})) -> Any:
        """A typed stub that speaks for a caller of a workspace."""
        return stub_class(self.open_channel(self, workspace, scopes))


@pytest.fixture(scope="session")
def templates() -> set[str]:
    """The databases that there are to copy."""
    return set()


@pytest.fixture
async def database_of(postgres: Postgres, templates: set[str]) -> AsyncIterator[Callable[..., Any]]:
    """The URL of this test's database of a service: `await database_of(SERVICE)`.

    It has the service's tables already, as a copy: to make them takes longer than most tests.
    """
    made: dict[str, str] = {}

    async def database_of(service: Service, partitions: int = 1) -> str:
        template = f"{service.name}_{partitions}"
        if template not in templates:
            async with open_pool(await postgres.create_database(template)) as pool:
                await prepare_database(pool, service, partitions, SystemClock())
            templates.add(template)
        if service.name not in made:
            made[service.name] = f"test_{uuid.uuid4().hex}"
            await postgres.create_database(made[service.name], template)
        return postgres.url(made[service.name])

    yield database_of
    for name in made.values():
        await postgres.drop_database(name)


@pytest.fixture
async def start_service(
    database_of: Callable[..., Any], nats_url: str
) -> AsyncIterator[Callable[..., Any]]:
    """Starts services: `asked = await start_service(SERVICE, contacts=other.address)`."""
    async with AsyncExitStack() as stack:

        def open_channel(asked: Asked, workspace: str, scopes: frozenset[str]) -> PeerChannel:
            channel = PeerChannel(
                "tests",
                asked.address,
                services=[],
                signer=CallerSigner(SECRET.encode(), SystemClock()),
                speak_as=lambda: own_caller(
                    "api_keys/tests", clock=SystemClock(), scopes=scopes, workspace=workspace
                ),
            )
            stack.push_async_callback(channel.close)
            return channel

        async def start(
            service: Service,
            *,
            database_url: str | None = None,
            clock: Clock | None = None,
            partitions: int = 1,
            **peers: str,
        ) -> Asked:
            config = ServiceConfig.from_env(
                service.name,
                peers=service.peers,
                may_ask=service.may_ask,
                environ={
                    "RAPPORT_DATABASE_URL": database_url or await database_of(service, partitions),
                    "RAPPORT_NATS_URL": nats_url,
                    "RAPPORT_GRPC_ADDRESS": "127.0.0.1:0",
                    "RAPPORT_METRICS_ADDRESS": "127.0.0.1:0",
                    "RAPPORT_INTERNAL_SECRET": SECRET,
                    "RAPPORT_DRAIN_TIMEOUT_S": "2",
                    "RAPPORT_PARTITIONS": str(partitions),
                    **{f"RAPPORT_{name.upper()}_ADDRESS": at for name, at in peers.items()},
                },
            )
            process = await stack.enter_async_context(
                running(service, config, new_registry(), clock=clock)
            )
            return Asked(process, open_channel)

        yield start
