"""Products are what the catalogue and customer events say; a read token waits for the view."""

import json
import uuid

import pytest

from rapport.events.v1.events_pb2 import CatalogueEntry
from rapport.events.v1.products_pb2 import (
    GetProductRequest,
    ListProductsRequest,
    ProductEntry,
    RecordProductsRequest,
)
from rapport.events.v1.products_pb2_grpc import ProductsServiceStub
from services.kernel.errors import InvalidArgument, NotFound

LAMP = {"product_id": "lamp", "name": "Lamp", "brand": "A", "price": 2.5, "currency": "EUR"}


@pytest.fixture
def products(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(ProductsServiceStub)


@pytest.fixture
def catalogue(products):
    """Records entries: `await catalogue(lamp={"display_name": "Lamp"})`."""

    async def catalogue(request_id="", **entries):
        return await products.RecordProducts(
            RecordProductsRequest(
                products=[
                    ProductEntry(product_id=product_id, entry=CatalogueEntry(**entry))
                    for product_id, entry in entries.items()
                ],
                request_id=request_id,
            )
        )

    return catalogue


@pytest.fixture
def track(record, sent):
    """Records a track call and returns the write token."""

    async def track(event, /, **properties):
        customer_event = sent(name=event, properties=json.dumps(properties))
        return (await record(customer_event)).write_token

    return track


async def get(products, product_id, token):
    request = GetProductRequest(name=f"products/{product_id}", read_token=token)
    return (await products.GetProduct(request)).product


async def test_a_product_is_what_customer_events_say_of_it(products, track):
    await track("Product Viewed", **LAMP)
    await track("product_added", **LAMP, quantity=3)
    order = {"order_id": "1", "products": [LAMP | {"quantity": 3, "name": "Lamp II"}]}
    await track("Order Completed", **order)
    token = await track("Order Refunded", order_id="1", products=[LAMP | {"quantity": 1}])

    product = await get(products, "lamp", token)

    assert ("Lamp", "A") == (product.display_name, product.brand)
    assert (250, "EUR") == (product.price.amount_minor, product.price.currency)
    assert (1, 1) == (product.view_count, product.add_count)
    assert (3, 1) == (product.ordered_units, product.refunded_units)
    assert not product.in_catalogue
    assert product.first_seen_time.ToDatetime() < product.last_seen_time.ToDatetime()


async def test_the_catalogue_counts_before_customer_events_field_by_field(
    products, catalogue, track
):
    await track("Product Viewed", **LAMP)
    entry = {"display_name": "The Lamp", "price": {"amount_minor": 300, "currency": "USD"}}
    response = await catalogue(lamp=entry)
    token = await track("Product Viewed", **LAMP | {"name": "lampe", "price": 9})

    product = await get(products, "lamp", token)

    assert (1, 0) == (response.recorded_count, response.unchanged_count)
    assert product.in_catalogue
    assert ("The Lamp", "A", 2) == (product.display_name, product.brand, product.view_count)
    assert (300, "USD") == (product.price.amount_minor, product.price.currency)


async def test_a_new_entry_replaces_the_old_one_whole(products, catalogue):
    await catalogue(lamp={"display_name": "Lamp", "brand": "A"})
    response = await catalogue(lamp={"display_name": "Lamp"}, desk={"brand": "B"})

    assert ("Lamp", "") == (
        (lamp := await get(products, "lamp", response.write_token)).display_name,
        lamp.brand,
    )
    assert not lamp.HasField("first_seen_time")
    assert "B" == (await get(products, "desk", response.write_token)).brand


async def test_an_entry_that_says_the_same_is_no_news(catalogue):
    await catalogue(lamp={"brand": "A"}, desk={"brand": "B"})

    again = await catalogue(lamp={"brand": "A"}, desk={"brand": "C"})

    assert (1, 1) == (again.recorded_count, again.unchanged_count)


async def test_a_repeated_request_has_one_effect(products, catalogue):
    request_id = str(uuid.uuid4())
    first = await catalogue(request_id, lamp={"brand": "A"})
    other = await catalogue(lamp={"brand": "B"})

    assert first == await catalogue(request_id, lamp={"brand": "A"})
    assert "B" == (await get(products, "lamp", other.write_token)).brand


@pytest.mark.parametrize(
    ("entries", "field"),
    [
        ([("p", {}), ("p", {})], "products[1].product_id"),
        ([(" p", {})], "products[0].product_id"),
        ([("p\0", {})], "products[0].product_id"),
        ([("p", {"price": {"currency": "XYZ"}})], "products[0].entry.price.currency"),
        (
            [("p", {"price": {"currency": "EUR", "amount_minor": -1}})],
            "products[0].entry.price.amount_minor",
        ),
        ([("p", {"price": {"currency": "euro"}})], "products[0].entry.price.currency"),
        ([("", {})], "products[0].product_id"),
    ],
)
async def test_a_batch_with_a_bad_entry_is_refused_as_a_whole(products, entries, field):
    batch = [ProductEntry(product_id=each, entry=CatalogueEntry(**said)) for each, said in entries]
    good = ProductEntry(product_id="good", entry=CatalogueEntry(brand="A"))

    with pytest.raises(InvalidArgument) as refused:
        await products.RecordProducts(RecordProductsRequest(products=[*batch, good]))

    assert field in {violation.field for violation in refused.value.violations}
    with pytest.raises(NotFound):
        await products.GetProduct(GetProductRequest(name="products/good"))


async def test_a_batch_has_at_most_a_thousand_products(products):
    entry = CatalogueEntry(brand="A")
    batch = [ProductEntry(product_id=str(number), entry=entry) for number in range(1_001)]

    response = await products.RecordProducts(RecordProductsRequest(products=batch[:1_000]))

    assert 1_000 == response.recorded_count
    with pytest.raises(InvalidArgument):
        await products.RecordProducts(RecordProductsRequest(products=batch))


@pytest.mark.parametrize("product_id", ["a/b/c", "é ü", "products/x", "%2F", "a:b"])
async def test_an_id_may_hold_any_character(products, catalogue, product_id):
    token = (await catalogue(**{product_id: {"brand": "A"}})).write_token

    assert f"products/{product_id}" == (await get(products, product_id, token)).name


@pytest.mark.parametrize("name", ["lamp", "products/", "orders/lamp", "products/\0"])
async def test_a_name_that_is_none_is_refused(products, name):
    with pytest.raises(InvalidArgument):
        await products.GetProduct(GetProductRequest(name=name))


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ('brand = "A"', ["a", "b"]),
        ("price_minor > 100", ["b"]),
        ("view_count >= 1", ["v"]),
        ("problem_counts.CURRENCY_MISSING = 1", ["v"]),
        ("NOT first_seen_time:*", ["a", "b", "c"]),
        ("desk", ["c"]),
        ('product_id = "a"', ["a"]),
    ],
)
async def test_a_filter_asks_the_fields(products, catalogue, track, filter_text, expected):
    await catalogue(
        c={"display_name": "A desk"},
        b={"brand": "A", "price": {"amount_minor": 101, "currency": "EUR"}},
        a={"brand": "A"},
    )
    token = await track("Product Viewed", product_id="v", price=1)

    listed = await products.ListProducts(ListProductsRequest(read_token=token, filter=filter_text))

    assert [f"products/{each}" for each in expected] == [each.name for each in listed.products]


async def test_a_walk_gives_each_product_once(asked, products, catalogue):
    numbers = [f"{number:02}" for number in range(25)]
    token = (await catalogue(**{number: {"brand": "A"} for number in numbers})).write_token
    await asked.stub(ProductsServiceStub, workspace="globex").RecordProducts(
        RecordProductsRequest(
            products=[ProductEntry(product_id="theirs", entry=CatalogueEntry(brand="A"))]
        )
    )
    walked, page_token = [], ""
    while True:
        page = await products.ListProducts(
            ListProductsRequest(page_size=10, page_token=page_token, read_token=token)
        )
        walked += [each.name for each in page.products]
        page_token = page.next_page_token
        if not page_token:
            break

    assert [f"products/{number}" for number in numbers] == walked
