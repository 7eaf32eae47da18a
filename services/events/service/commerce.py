"""What the events service answers about products and orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rapport.events.v1 import orders_pb2, products_pb2
from rapport.events.v1.orders_pb2_grpc import OrdersServiceServicer
from rapport.events.v1.products_pb2_grpc import ProductsServiceServicer
from services.events.deciders.product import DECIDER, State, entries_of
from services.events.projections.commerce import CommerceView
from services.events.projections.order_answers import get_order, list_orders
from services.events.projections.product_answers import get_product, list_products
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel


class ProductsService(ProductsServiceServicer):
    """Products of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def RecordProducts(
        self, request: products_pb2.RecordProductsRequest, _: Any
    ) -> products_pb2.RecordProductsResponse:
        entries = entries_of(request)

        def respond(decided: Sequence[Decided[State]]) -> products_pb2.RecordProductsResponse:
            recorded = sum(bool(each.events) for each in decided)
            return products_pb2.RecordProductsResponse(
                recorded_count=recorded,
                unchanged_count=len(decided) - recorded,
                write_token=decided[0].write_token,
            )

        return await self._kernel.commands.execute_all(DECIDER, entries, request, respond)

    async def GetProduct(
        self, request: products_pb2.GetProductRequest, _: Any
    ) -> products_pb2.GetProductResponse:
        await self._kernel.freshness.wait(CommerceView.name, request.read_token)
        product = await get_product(self._kernel.pool, current_caller().workspace, request.name)
        return products_pb2.GetProductResponse(product=product)

    async def ListProducts(
        self, request: products_pb2.ListProductsRequest, _: Any
    ) -> products_pb2.ListProductsResponse:
        await self._kernel.freshness.wait(CommerceView.name, request.read_token)
        return await list_products(self._kernel.pool, current_caller().workspace, request)


class OrdersService(OrdersServiceServicer):
    """Orders of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def GetOrder(
        self, request: orders_pb2.GetOrderRequest, _: Any
    ) -> orders_pb2.GetOrderResponse:
        await self._kernel.freshness.wait(CommerceView.name, request.read_token)
        order = await get_order(self._kernel.pool, current_caller().workspace, request.name)
        return orders_pb2.GetOrderResponse(order=order)

    async def ListOrders(
        self, request: orders_pb2.ListOrdersRequest, _: Any
    ) -> orders_pb2.ListOrdersResponse:
        await self._kernel.freshness.wait(CommerceView.name, request.read_token)
        return await list_orders(self._kernel.pool, current_caller().workspace, request)
