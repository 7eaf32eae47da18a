"""A made-up world for who has no data at hand: the same one for the same seed, in every run. Pure.

Some people only look, some sign up, some become contacts with deals; none of them exists.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from deploy.demo.cargo import Cargo, DealToTell, Item, checksum, most_active
from deploy.demo.cargo import Step as DealStep
from rapport.common.v1.money_pb2 import Money
from rapport.contacts.v1.service_pb2 import Contact, CreateContactRequest
from rapport.deals.v1.service_pb2 import (
    Deal,
    DealState,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType

SEED: Final = "harbour"
PEOPLE: Final = 300
BEGIN: Final = datetime(2025, 6, 1, tzinfo=UTC)
DAYS: Final = 90
SIGNS_UP: Final = 0.6
BECOMES_CONTACT: Final = 0.7
HAS_DEAL: Final = 0.6

_GIVEN: Final = (
    "Ada",
    "Bea",
    "Cem",
    "Dora",
    "Eli",
    "Finn",
    "Gil",
    "Hana",
    "Ivo",
    "Jun",
    "Kaya",
    "Lia",
)
_FAMILY: Final = (
    "Abel",
    "Bauer",
    "Costa",
    "Demir",
    "Ek",
    "Fischer",
    "Gomes",
    "Haas",
    "Ito",
    "Jansen",
)
_PAGES: Final = ("/", "/pricing", "/docs", "/blog/why", "/cases", "/contact", "/product/lamp")
_STAGES: Final = ("qualification", "proposal", "negotiation")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who does not exist."""

    number: int
    given_name: str
    family_name: str
    is_user: bool
    is_contact: bool

    @property
    def email(self) -> str:
        """An address that leads nowhere."""
        return f"{self.given_name}.{self.family_name}.{self.number}@example.com".lower()


def world(seed: str = SEED) -> tuple[Cargo[Any], ...]:
    """Returns the customer events, contacts and deals of a world."""
    chance = random.Random(f"rapport/{seed}")
    people = [_person(chance, number) for number in range(1, PEOPLE + 1)]
    customer_events = [item for person in people for item in _customer_events(chance, seed, person)]
    contacts = [_contact(seed, person) for person in people if person.is_contact]
    deals = [
        _deal(chance, seed, person)
        for person in people
        if person.is_contact and chance.random() < HAS_DEAL
    ]
    return (
        Cargo(
            file="generated customer events",
            rows=len(customer_events),
            items=customer_events,
            refused=(),
            filter=f'message_id = "generated-{seed}-*"',
            measure=measure_customer_event,
            followed=most_active(
                (f"user_id:{item.message.user_id}", item.key)
                for item in customer_events
                if item.message.user_id
            ),
        ),
        Cargo(
            file="generated contacts",
            rows=len(contacts),
            items=contacts,
            refused=(),
            filter=f'custom_fields.generated = "{seed}"',
            measure=measure_contact,
        ),
        Cargo(
            file="generated deals",
            rows=len(deals),
            items=deals,
            refused=(),
            filter=f'custom_fields.generated = "{seed}"',
            measure=measure_deal,
        ),
    )


def measure_customer_event(found: CustomerEvent) -> Mapping[str, int]:
    """Counts a customer event as the platform gave it back."""
    properties = orjson.loads(found.properties or "{}")
    kind = CustomerEventType.Name(found.type).removeprefix("CUSTOMER_EVENT_TYPE_").lower()
    return {
        f"{kind} calls": 1,
        "EUR minor": properties.get("total_minor", 0),
        "checksum": checksum([f"{found.message_id}/{found.properties}/{found.traits}"]),
    }


def measure_contact(found: Contact) -> Mapping[str, int]:
    """Counts a contact as the platform gave it back."""
    return {"checksum": checksum([f"{found.given_name}/{found.family_name}/{found.email}"])}


def measure_deal(found: Deal) -> Mapping[str, int]:
    """Counts a deal as the platform gave it back."""
    state = DealState.Name(found.state).removeprefix("DEAL_STATE_")
    return {
        state: 1,
        f"{found.amount.currency} minor": found.amount.amount_minor,
        "checksum": checksum([f"{found.name}/{found.contact}/{found.stage}"]),
    }


def _person(chance: random.Random, number: int) -> Person:
    is_user = chance.random() < SIGNS_UP
    return Person(
        number=number,
        given_name=chance.choice(_GIVEN),
        family_name=chance.choice(_FAMILY),
        is_user=is_user,
        is_contact=is_user and chance.random() < BECOMES_CONTACT,
    )


def _customer_events(
    chance: random.Random, seed: str, person: Person
) -> Iterator[Item[CustomerEvent]]:
    browser = f"{seed}-browser-{person.number}"
    user = f"{seed}-user-{person.number}"
    time = BEGIN + timedelta(minutes=chance.randrange(DAYS * 24 * 60))
    place = 0

    def item(kind: str, name: str, **content: Any) -> Item[CustomerEvent]:
        nonlocal place, time
        place += 1
        time += timedelta(seconds=chance.randrange(5, 4000))
        message = CustomerEvent(
            message_id=f"generated-{seed}-{person.number}-{place}",
            type=CustomerEventType.Value(f"CUSTOMER_EVENT_TYPE_{kind.upper()}"),
            name=name,
            anonymous_id=browser,
            user_id=content.pop("user_id", ""),
            properties=_json(content.get("properties")),
            traits=_json(content.get("traits")),
        )
        message.original_time.FromDatetime(time)
        return Item(place, message.message_id, message, measure_customer_event(message))

    for _ in range(chance.randrange(3, 15)):
        path = chance.choice(_PAGES)
        yield item("page", path, properties={"path": path})
    if not person.is_user:
        return
    traits = {"email": person.email, "plan": chance.choice(("free", "team", "gold"))}
    yield item("identify", "", user_id=user, traits=traits)
    for order in range(chance.randrange(4)):
        bought = {
            "order_id": f"{seed}-{person.number}-{order}",
            "currency": "EUR",
            "total_minor": chance.randrange(500, 50_000),
        }
        yield item("track", "Order Completed", user_id=user, properties=bought)


def _contact(seed: str, person: Person) -> Item[CreateContactRequest]:
    message = CreateContactRequest(
        contact_id=_contact_id(seed, person),
        given_name=person.given_name,
        family_name=person.family_name,
        email=person.email,
        custom_fields={"generated": seed},
    )
    tally = measure_contact(
        Contact(given_name=message.given_name, family_name=message.family_name, email=message.email)
    )
    return Item(person.number, message.contact_id, message, tally)


def _deal(chance: random.Random, seed: str, person: Person) -> Item[DealToTell]:
    name = f"deals/generated-{seed}-{person.number}"
    opening = OpenDealRequest(
        deal_id=name.partition("/")[2],
        display_name=f"{person.family_name}: {chance.choice(('lamps', 'desks', 'licences'))}",
        contact=f"contacts/{_contact_id(seed, person)}",
        amount=Money(amount_minor=chance.randrange(50_000, 5_000_000), currency="EUR"),
        custom_fields={"generated": seed},
    )
    reached = chance.randrange(len(_STAGES))
    stages = [f"pipelines/sales/stages/{stage}" for stage in _STAGES[: reached + 1]]
    steps: list[DealStep] = [MoveDealStageRequest(name=name, stage=stage) for stage in stages[1:]]
    ending = chance.choice(("OPEN", "WON", "LOST"))
    if ending == "WON":
        steps.append(WinDealRequest(name=name))
    if ending == "LOST":
        steps.append(LoseDealRequest(name=name, reason="made up: they chose another"))
    closing = {"WON": "pipelines/sales/stages/won", "LOST": "pipelines/sales/stages/lost"}
    expected = Deal(
        name=name,
        contact=opening.contact,
        amount=opening.amount,
        stage=closing.get(ending, stages[-1]),
        state=DealState.Value(f"DEAL_STATE_{ending}"),
    )
    told = DealToTell(opening, tuple(steps))
    return Item(person.number, opening.deal_id, told, measure_deal(expected))


def _contact_id(seed: str, person: Person) -> str:
    return f"generated-{seed}-{person.number}"


def _json(content: Any) -> str:
    return orjson.dumps(content).decode() if content else ""
