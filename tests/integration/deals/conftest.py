"""The deals service, and who asks it."""

import pytest

from rapport.deals.v1.service_pb2 import OpenDealRequest
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from services.deals.__main__ import SERVICE


@pytest.fixture
async def asked(start_service):
    """The running service."""
    return await start_service(SERVICE)


@pytest.fixture
def deals(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(DealsServiceStub)


@pytest.fixture
def open_deal(deals):
    """Opens a deal and returns it: `await open_deal("looms", stage=STAGES[1])`."""

    async def open_deal(deal_id, **said):
        request = OpenDealRequest(deal_id=deal_id, **{"display_name": deal_id} | said)
        return (await deals.OpenDeal(request)).deal

    return open_deal
