"""An invoice becomes customer events from which every one of its lines can be had again."""

import csv
import gzip
import io
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from deploy.demo.cargo import Source, total
from deploy.demo.online_retail import COLUMNS, measure, read
from services.events.schema import EVENT_BYTES_MAX, refusal_of

LAMP = ["536365", "85123A", "LAMP ", "6", "2010-12-01 08:26:00", "2.55", "17850.0", "France"]


def line(**changed):
    return [changed.get(name, value) for name, value in zip(COLUMNS, LAMP, strict=True)]


@pytest.fixture
def load(tmp_path):
    def loaded(*rows, name="orders.csv"):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        path: Path = tmp_path / name
        content = text.getvalue().encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return read(Source(f"online_retail/{name}", path))

    return loaded


def properties(item):
    return orjson.loads(item.message.properties)


def test_an_invoice_is_one_customer_event_with_its_lines(load):
    cargo = load(line(), line(StockCode="71053", Quantity="2", UnitPrice="3.4"))

    (order,) = cargo.items
    assert "online-retail-536365-1" == order.key
    assert ("Order Completed", "17850", "") == (
        order.message.name,
        order.message.user_id,
        order.message.anonymous_id,
    )
    assert {
        "order_id": "536365",
        "currency": "GBP",
        "total_minor": 6 * 255 + 2 * 340,
        "country": "France",
        "products": [
            {"sku": "85123A", "name": "LAMP ", "quantity": 6, "price_minor": 255},
            {"sku": "71053", "name": "LAMP ", "quantity": 2, "price_minor": 340},
        ],
    } == properties(order)


def test_a_cancelled_invoice_is_a_refund_that_keeps_its_sign(load):
    (refund,) = load(line(InvoiceNo="C536379", Quantity="-1", UnitPrice="27.5")).items

    assert "Order Refunded" == refund.message.name
    assert -2750 == properties(refund)["total_minor"]


def test_an_invoice_without_a_customer_is_an_anonymous_purchase(load):
    (order,) = load(line(CustomerID="")).items

    assert ("", "invoice-536365") == (order.message.user_id, order.message.anonymous_id)


@pytest.mark.parametrize(
    ("wall", "utc"),
    [
        ("2010-12-01 08:26:00", datetime(2010, 12, 1, 8, 26, tzinfo=UTC)),
        ("2011-07-01 08:26:00", datetime(2011, 7, 1, 7, 26, tzinfo=UTC)),
    ],
)
def test_a_time_on_the_shops_wall_is_told_in_utc(load, wall, utc):
    (order,) = load(line(InvoiceDate=wall)).items

    assert utc == order.message.original_time.ToDatetime(tzinfo=UTC)


def test_an_invoice_over_two_minutes_begins_with_the_earliest(load):
    (order,) = load(
        line(InvoiceDate="2010-12-01 16:58:00"), line(InvoiceDate="2010-12-01 16:57:00")
    ).items

    assert datetime(2010, 12, 1, 16, 57, tzinfo=UTC) == order.message.original_time.ToDatetime(UTC)
    times = [product.get("time") for product in properties(order)["products"]]
    assert ["2010-12-01T16:58:00Z", None] == times


def test_a_line_that_is_there_twice_stays_there_twice(load):
    (order,) = load(line(), line()).items

    assert 2 == len(properties(order)["products"])


def test_prices_are_exact(load):
    (order,) = load(line(UnitPrice="1.1", Quantity="3"), line(UnitPrice="0.1", Quantity="7")).items

    assert 3 * 110 + 7 * 10 == properties(order)["total_minor"]


def test_an_order_that_is_too_large_comes_in_parts_and_counts_once(load):
    rows = [line(StockCode=str(number), Description="x" * 10) for number in range(700)]

    parts = load(*rows).items

    assert ["Order Completed", "Order Continued"] == [part.message.name for part in parts]
    assert ["online-retail-536365-1", "online-retail-536365-2"] == [part.key for part in parts]
    assert [(1, 2), (2, 2)] == [
        (properties(part)["part"], properties(part)["parts"]) for part in parts
    ]
    skus = [product["sku"] for part in parts for product in properties(part)["products"]]
    assert [str(number) for number in range(700)] == skus
    assert 700 * 6 * 255 == sum(properties(part)["total_minor"] for part in parts)


def test_no_part_is_larger_than_the_platform_takes(load):
    rows = [line(StockCode=f"{number:05}", Description="é" * 35) for number in range(2_000)]

    parts = load(*rows).items

    assert 2 < len(parts)
    assert EVENT_BYTES_MAX > max(part.message.ByteSize() for part in parts)
    assert {None} == {refusal_of(part.message) for part in parts}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (line(Quantity="six"), "Quantity is no whole number: 'six'"),
        (line(UnitPrice="free"), "UnitPrice is no number: 'free'"),
        (line(UnitPrice="NaN"), "UnitPrice is not a whole number of pence: 'NaN'"),
        (line(UnitPrice="0.005"), "UnitPrice is not a whole number of pence: '0.005'"),
        (line(InvoiceDate="yesterday"), "InvoiceDate is no time: 'yesterday'"),
        (line(InvoiceNo=" "), "no InvoiceNo"),
        (LAMP[:7], "7 fields instead of 8"),
    ],
)
def test_a_line_that_cannot_be_read_is_refused_by_its_number_and_reason(load, row, reason):
    cargo = load(line(), row, line())

    (refused,) = cargo.refused
    assert ("online_retail/orders.csv", 3, reason) == (refused.file, refused.line, refused.reason)
    assert (3, 1) == (cargo.rows, len(cargo.items))


def test_a_file_of_something_else_is_not_read(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")

    with pytest.raises(ValueError, match="does not name the columns"):
        read(Source("other.csv", path))


def test_what_is_counted_in_the_file_is_what_is_counted_of_the_customer_events(load):
    cargo = load(line(), line(InvoiceNo="C1", Quantity="-2"), line(CustomerID=""), name="o.csv.gz")

    assert total(item.tally for item in cargo.items) == total(
        measure(item.message) for item in cargo.items
    )
