"""The questions about products, answered from the view `commerce`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rapport.common.v1.money_pb2 import Money
from rapport.events.v1.products_pb2 import ListProductsResponse, Product
from services.events.deciders.product import DECIDER
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from asyncpg import Pool

    from rapport.events.v1.products_pb2 import ListProductsRequest

_COLUMNS = """product_id, display_name, sku, brand, category, variant, currency, price_minor, url,
    image_url, entry is not null as in_catalogue, view_count, add_count, ordered_units,
    refunded_units, first_seen_time, last_seen_time, problem_counts"""

_ONE = f"select {_COLUMNS} from commerce.products where workspace = $1 and product_id = $2"

PRODUCTS = Listing(
    method="ListProducts",
    # No positions: partitions of the log meet in one row, so the walk is along the id.
    table=Table("commerce.products", key="product_id", positions=None),
    columns=_COLUMNS,
    fields=Fields(
        {
            "product_id": Field("product_id", Kind.TEXT, nullable=False),
            "display_name": Field("display_name", Kind.TEXT),
            "sku": Field("sku", Kind.TEXT),
            "brand": Field("brand", Kind.TEXT),
            "category": Field("category", Kind.TEXT),
            "variant": Field("variant", Kind.TEXT),
            "currency": Field("currency", Kind.TEXT),
            "price_minor": Field("price_minor", Kind.INTEGER),
            "view_count": Field("view_count", Kind.INTEGER, nullable=False),
            "add_count": Field("add_count", Kind.INTEGER, nullable=False),
            "ordered_units": Field("ordered_units", Kind.INTEGER, nullable=False),
            "refunded_units": Field("refunded_units", Kind.INTEGER, nullable=False),
            "first_seen_time": Field("first_seen_time", Kind.TIMESTAMP),
            "last_seen_time": Field("last_seen_time", Kind.TIMESTAMP),
            "problem_counts": Field("problem_counts", Kind.STRUCT),
        },
        searched=("display_name",),
    ),
)


async def get_product(pool: Pool, workspace: str, name: str) -> Product:
    """Returns a product, else NotFound."""
    row = await pool.fetchrow(_ONE, workspace, id_in(name, DECIDER.collection))
    if row is None:
        raise NotFound(name)
    return _product_of(row)


async def list_products(
    pool: Pool, workspace: str, request: ListProductsRequest
) -> ListProductsResponse:
    """Returns a page of products, by id."""
    query = PRODUCTS.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    page = query.page(await pool.fetch(query.sql, *query.args))
    return ListProductsResponse(
        products=[_product_of(row) for row in page.rows], next_page_token=page.next_page_token
    )


def id_in(name: str, collection: str) -> str:
    """The id inside a name; ids of sources hold any character, slashes too."""
    found = name.removeprefix(f"{collection}/")
    if found in ("", name) or "\0" in found:
        raise InvalidArgument.of("name", f"must look like {collection}/{{id}}")
    return found


def _product_of(row: Any) -> Product:
    product = Product(
        name=DECIDER.name(row["product_id"]),
        display_name=row["display_name"] or "",
        sku=row["sku"] or "",
        brand=row["brand"] or "",
        category=row["category"] or "",
        variant=row["variant"] or "",
        url=row["url"] or "",
        image_url=row["image_url"] or "",
        in_catalogue=row["in_catalogue"],
        view_count=row["view_count"],
        add_count=row["add_count"],
        ordered_units=row["ordered_units"],
        refunded_units=row["refunded_units"],
        problem_counts=json.loads(row["problem_counts"]),
    )
    if row["currency"] is not None:
        product.price.CopyFrom(Money(amount_minor=row["price_minor"], currency=row["currency"]))
    if row["first_seen_time"] is not None:
        product.first_seen_time.CopyFrom(timestamp_of(row["first_seen_time"]))
        product.last_seen_time.CopyFrom(timestamp_of(row["last_seen_time"]))
    return product
