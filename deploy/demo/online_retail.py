"""Orders of a gift retailer: one customer event per invoice, in parts where it is too large. Pure.

An invoice is `Order Completed`, a cancelled one (`C...`) `Order Refunded`; quantities and sums keep
their sign. Parts after the first are `Order Continued` and `Refund Continued`, so that who counts
orders counts each once. Lines stay as they are, repeated ones, too: they are what was sold.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, DecimalException
from itertools import groupby
from typing import Final
from zoneinfo import ZoneInfo

import orjson

from deploy.demo.cargo import Cargo, Item, Refused, Source, checksum, most_active
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType

COLUMNS: Final = (
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
)
CURRENCY: Final = "GBP"
ZONE: Final = ZoneInfo("Europe/London")
PREFIX: Final = "online-retail-"
# A customer event may have 32 KiB; this leaves room for what is around the products.
PRODUCTS_BYTES_MAX: Final = 30 * 1024


@dataclass(frozen=True, slots=True)
class OrderLine:
    """One line of the file, read."""

    number: int
    invoice: str
    sku: str
    name: str
    quantity: int
    time: datetime
    price_minor: int
    customer: str
    country: str

    @property
    def minor(self) -> int:
        """What the line adds to the order."""
        return self.quantity * self.price_minor


def read(source: Source) -> Cargo[CustomerEvent]:
    """Reads the file into orders."""
    lines: list[OrderLine] = []
    refused: list[Refused] = []
    rows = csv.reader(source.lines())
    if tuple(next(rows, ())) != COLUMNS:
        raise ValueError(f"{source.name}: the first line does not name the columns we know")
    count = 0
    for row in rows:
        count += 1
        try:
            lines.append(read_line(rows.line_num, row))
        except (ValueError, DecimalException) as error:
            refused.append(Refused(source.name, rows.line_num, str(error), ",".join(row)))
    items = [item for order in orders_of(lines) for item in items_of(order)]
    return Cargo(
        file=source.name,
        rows=count,
        items=items,
        refused=refused,
        filter=f'message_id = "{PREFIX}*"',
        measure=measure,
        followed=most_active(
            (f"user_id:{item.message.user_id}", item.key) for item in items if item.message.user_id
        ),
    )


def read_line(number: int, row: Sequence[str]) -> OrderLine:
    """Reads one line; raises ValueError when it is not what the columns say."""
    if len(row) != len(COLUMNS):
        raise ValueError(f"{len(row)} fields instead of {len(COLUMNS)}")
    invoice, sku, name, quantity, time, price, customer, country = row
    if not invoice.strip():
        raise ValueError("no InvoiceNo")
    return OrderLine(
        number=number,
        invoice=invoice.strip(),
        sku=sku,
        name=name,
        quantity=_whole("Quantity", quantity),
        time=_utc(time),
        price_minor=_minor(price),
        customer=customer.strip().removesuffix(".0"),
        country=country,
    )


def orders_of(lines: Sequence[OrderLine]) -> Iterator[list[OrderLine]]:
    """Yields the lines of each invoice in the order of the file."""
    places: dict[str, int] = {}
    for line in lines:
        places.setdefault(line.invoice, len(places))
    together = sorted(lines, key=lambda line: places[line.invoice])
    for _, order in groupby(together, key=lambda line: line.invoice):
        yield list(order)


def items_of(order: Sequence[OrderLine]) -> Iterator[Item[CustomerEvent]]:
    """Yields an order as one customer event, or as the parts that together are it."""
    first = order[0]
    begun = min(line.time for line in order)
    products = [_product(line, begun) for line in order]
    parts = list(_parts(products))
    is_refund = first.invoice.startswith("C")
    taken = 0
    for number, part in enumerate(parts, start=1):
        lines = order[taken : taken + len(part)]
        taken += len(part)
        name = "Order Refunded" if is_refund else "Order Completed"
        if number > 1:
            name = "Refund Continued" if is_refund else "Order Continued"
        properties = {
            "order_id": first.invoice,
            "currency": CURRENCY,
            "total_minor": sum(line.minor for line in lines),
            "country": first.country,
            "products": part,
        }
        if len(parts) > 1:
            properties |= {"part": number, "parts": len(parts)}
        message = CustomerEvent(
            message_id=f"{PREFIX}{first.invoice}-{number}",
            type=CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
            name=name,
            user_id=first.customer,
            anonymous_id="" if first.customer else f"invoice-{first.invoice}",
            properties=orjson.dumps(properties).decode(),
        )
        message.original_time.FromDatetime(begun)
        yield Item(lines[0].number, message.message_id, message, _counted(name, lines))


def measure(found: CustomerEvent) -> Mapping[str, int]:
    """Counts a customer event that the platform gave back."""
    properties = orjson.loads(found.properties)
    products = properties["products"]
    return {
        found.name: 1,
        "order lines": len(products),
        "units": sum(product["quantity"] for product in products),
        f"{properties['currency']} minor": properties["total_minor"],
        "with a customer id": 1 if found.user_id else 0,
        "checksum": checksum(
            f"{properties['order_id']}/{product['sku']}/{product['name']}" for product in products
        ),
    }


def _counted(name: str, lines: Sequence[OrderLine]) -> Mapping[str, int]:
    return {
        name: 1,
        "order lines": len(lines),
        "units": sum(line.quantity for line in lines),
        f"{CURRENCY} minor": sum(line.minor for line in lines),
        "with a customer id": 1 if lines[0].customer else 0,
        "checksum": checksum(f"{line.invoice}/{line.sku}/{line.name}" for line in lines),
    }


def _product(line: OrderLine, begun: datetime) -> dict[str, str | int]:
    product: dict[str, str | int] = {
        "sku": line.sku,
        "name": line.name,
        "quantity": line.quantity,
        "price_minor": line.price_minor,
    }
    if line.time != begun:
        product["time"] = line.time.isoformat().replace("+00:00", "Z")
    return product


def _parts(products: Sequence[dict[str, str | int]]) -> Iterator[list[dict[str, str | int]]]:
    part: list[dict[str, str | int]] = []
    size = 0
    for product in products:
        bytes_more = len(orjson.dumps(product)) + 1
        if part and size + bytes_more > PRODUCTS_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(product)
        size += bytes_more
    yield part


def _whole(column: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"{column} is no whole number: {text!r}") from error


def _minor(text: str) -> int:
    """Pounds to pence, exactly or not at all."""
    try:
        minor = Decimal(text) * 100
        if minor == minor.to_integral_value():
            return int(minor)
    except DecimalException as error:
        raise ValueError(f"UnitPrice is no number: {text!r}") from error
    raise ValueError(f"UnitPrice is not a whole number of pence: {text!r}")


def _utc(text: str) -> datetime:
    """A time on the shop's wall to UTC."""
    try:
        local = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=ZONE)
    except ValueError as error:
        raise ValueError(f"InvoiceDate is no time: {text!r}") from error
    return local.astimezone(UTC)
