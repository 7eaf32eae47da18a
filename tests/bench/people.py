"""A seeded shop: visitors who browse, tell their name and buy, and the people who sell to them.

Generated, not real; the shapes and sizes are those of a tracker on a web shop, 250 to 300 bytes a
customer event. The same seed makes the same world.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson
from google.protobuf.message import Message

from rapport.common.v1.money_pb2 import Money
from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactRenamed,
)
from rapport.deals.v1.events_pb2 import DealLost, DealOpened, DealStageChanged, DealWon
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType

SEED = 20_260_101
EVENTS_PER_VISITOR = 12
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)

GIVEN = ("Ada", "Bela", "Chen", "Dina", "Emre", "Femi", "Gita", "Hugo", "Ines", "Jonas", "Kira")
FAMILY = ("Abel", "Brandt", "Costa", "Diallo", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito")
GOODS = ("lantern", "teapot", "doorstop", "cake-stand", "lunch-bag", "bunting", "clock", "ribbon")
STAGES = tuple(
    f"pipelines/sales/stages/{stage}" for stage in ("qualification", "proposal", "negotiation")
)


class Shop:
    """Makes customer events without end; each `Shop(purpose)` is another world."""

    def __init__(self, purpose: str, *, visitors: int) -> None:
        self._random = random.Random(f"{SEED}/{purpose}")
        self._visitors = max(1, visitors)
        self._number = 0

    def customer_events(self, count: int) -> list[CustomerEvent]:
        """The next customer events."""
        return [self._next() for _ in range(count)]

    def _next(self) -> CustomerEvent:
        chance = self._random
        self._number += 1
        # Some visitors come back often, most hardly ever.
        visitor = int(self._visitors * chance.random() ** 2)
        sent = CustomerEvent(
            message_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            anonymous_id=f"{visitor:08x}-7f3a-4c1e-9b52-{visitor * 7919 % 2**48:012x}",
        )
        sent.original_time.FromDatetime(BEGAN + timedelta(seconds=self._number))
        if visitor % 3 == 0:
            sent.user_id = f"user-{visitor}"
        kind = chance.random()
        goods = chance.choice(GOODS)
        if kind < 0.10 and sent.user_id:
            self._identify(sent, visitor)
        elif kind < 0.55:
            sent.type = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
            sent.name = "Product"
            url = f"https://shop.example/products/{goods}-{chance.randrange(900):03}"
            sent.properties = _json({"url": url, "title": f"{goods} | shop", "path": "/products"})
        else:
            sent.type = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
            sent.name = chance.choice(("Product Viewed", "Product Added", "Order Completed"))
            price = chance.randrange(100, 20_000)
            sent.properties = _json(
                {"sku": f"{goods}-{price % 900:03}", "price_cents": price, "currency": "EUR"}
            )
        sent.context = _json(
            {
                "ip": f"10.0.{visitor % 250}.{visitor % 199}",
                "locale": "en-GB",
                "library": {"name": "analytics.js", "version": "1.84.3"},
            }
        )
        return sent

    def _identify(self, sent: CustomerEvent, visitor: int) -> None:
        given, family = name_of(visitor)
        sent.type = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY
        sent.traits = _json(
            {
                "email": f"{given}.{family}.{visitor}@people.example".lower(),
                "name": f"{given} {family}",
                "plan": self._random.choice(("free", "plus", "pro")),
            }
        )


def name_of(number: int) -> tuple[str, str]:
    """The given and family name of a person."""
    return GIVEN[number % len(GIVEN)], FAMILY[number // len(GIVEN) % len(FAMILY)]


def contact_events(count: int) -> Iterator[tuple[str, Message]]:
    """Contacts and what happens to them, about four events each: (stream, event)."""
    for number in range(count // 4 + 1):
        stream = f"contact-{uuid.UUID(int=number, version=4)}"
        given, family = name_of(number)
        email = f"{given}.{family}.{number}@people.example".lower()
        yield (
            stream,
            ContactCreated(
                given_name=given,
                family_name=family,
                email=email,
                phone=f"+49 30 {number:07}",
                custom_fields={"source": "fair", "size": str(number % 500)},
            ),
        )
        yield stream, ContactRenamed(given_name=given, family_name=name_of(number + 50)[1])
        yield stream, ContactEmailChanged(email=f"new-{email}", previous_email=email)
        if number % 10 == 0:
            yield stream, ContactArchived()
        else:
            yield stream, ContactRenamed(given_name=given, family_name=family)


def deal_events(count: int) -> Iterator[tuple[str, Message]]:
    """Deals from opened to won or lost, four events each: (stream, event)."""
    for number in range(count // 4 + 1):
        stream = f"deal-{uuid.UUID(int=number, version=4)}"
        contact = f"contacts/{uuid.UUID(int=number, version=4)}"
        amount = Money(currency="EUR", amount_minor=10_000 + number * 17)
        yield (
            stream,
            DealOpened(
                display_name=f"{GOODS[number % len(GOODS)]} x {number}",
                contact=contact,
                amount=amount,
                stage=STAGES[0],
                custom_fields={"channel": "partner"},
            ),
        )
        yield stream, DealStageChanged(stage=STAGES[1], previous_stage=STAGES[0])
        yield stream, DealStageChanged(stage=STAGES[2], previous_stage=STAGES[1])
        if number % 3 == 0:
            yield stream, DealWon(stage=STAGES[2], amount=amount, contact=contact)
        else:
            yield stream, DealLost(stage=STAGES[2], reason="price", amount=amount, contact=contact)


def _json(value: dict[str, object]) -> str:
    return orjson.dumps(value).decode()
