"""A gateway before services that answer what a test tells them to: one for the tests of a file."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.gateway_world import GatewayWorld, gateway_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayWorld]:
    """The gateway of a file, which must run its tests in one loop: loop_scope="module"."""
    async with gateway_world(tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture
def shared_world(gateway: GatewayWorld) -> GatewayWorld:
    """The gateway of the file, before services that have heard and say nothing yet."""
    gateway.forget()
    return gateway


@pytest_asyncio.fixture(loop_scope="module")
async def own_world(tmp_path) -> AsyncIterator[GatewayWorld]:
    """A gateway of this test alone, whose services may be stopped and which counts from zero."""
    async with gateway_world(tmp_path) as made:
        yield made
