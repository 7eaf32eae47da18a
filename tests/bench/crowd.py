"""A seeded crowd: many people, few of them busy, and all that makes telling them apart hard.

How often somebody comes is log-normal. People have up to three devices, most log in at times, some
say their address and number; there are kiosks, role mailboxes, phones of whole families, mistyped
addresses, values that everybody has, and facts that arrive up to two days late.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventRecorded
from services.kernel.log.log import NewEvent

SEED = 20_261_126
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STEP = timedelta(milliseconds=50)
LATE_MAX = timedelta(days=2)
PEOPLE_AT_ONCE = 10_000

KIOSKS = 40
MAILBOXES = 200
SPREAD = 1.2
LATE, AT_KIOSK, LOGGED_IN, IDENTIFIES, WITH_PHONE = 0.03, 0.01, 0.5, 0.15, 0.3
WRONG_ADDRESS, FROM_MAILBOX, JUNK = 0.002, 0.003, 0.004
JUNK_VALUES = ("null", "guest", "undefined", "0")
FAMILY_SIZE = 3
HAS_USER_ID = 0.6


class Crowd:
    """Makes the customer events of a number of people; the same seed makes the same ones."""

    def __init__(self, people: int) -> None:
        self._random = random.Random(f"{SEED}/{people}")
        self._people = people
        weights = (self._random.lognormvariate(0, SPREAD) for _ in range(people))
        self._weights = list(itertools.accumulate(weights))

    def facts(self, count: int) -> Iterator[tuple[str, NewEvent]]:
        """What the log of events holds of them: (stream, event)."""
        number = 0
        while number < count:
            asked = min(PEOPLE_AT_ONCE, count - number)
            chosen = self._random.choices(range(self._people), cum_weights=self._weights, k=asked)
            for person in chosen:
                number += 1
                sent = self._event(number, person)
                fact = CustomerEventRecorded(customer_event=sent)
                yield f"message-{sent.message_id}", NewEvent(fact)

    def _event(self, number: int, person: int) -> CustomerEvent:
        chance = self._random
        sent = CustomerEvent(
            message_id=f"crowd-{number}",
            type=CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
            name="Product Viewed",
            properties='{"sku": "X1"}',
            anonymous_id=self._device(person),
        )
        received = BEGAN + number * STEP
        if chance.random() < LATE:
            received -= chance.random() * LATE_MAX
        sent.receive_time.FromDatetime(received)
        sent.occur_time.FromDatetime(received)
        if chance.random() < JUNK:
            sent.user_id = chance.choice(JUNK_VALUES)
        elif person % 10 < HAS_USER_ID * 10 and chance.random() < LOGGED_IN:
            sent.user_id = f"user-{person}"
        if chance.random() < IDENTIFIES:
            sent.type = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY
            sent.traits = json.dumps(self._traits(person))
        return sent

    def _device(self, person: int) -> str:
        chance = self._random
        if chance.random() < AT_KIOSK:
            return f"kiosk-{chance.randrange(KIOSKS)}"
        return f"device-{person}-{chance.randrange(1 + person % 3)}"

    def _traits(self, person: int) -> dict[str, str]:
        chance = self._random
        met = chance.random()
        who = chance.randrange(self._people) if met < WRONG_ADDRESS else person
        email = f"person-{who}@example.org"
        if WRONG_ADDRESS <= met < WRONG_ADDRESS + FROM_MAILBOX:
            email = f"info@company-{chance.randrange(MAILBOXES)}.example"
        traits = {"email": email, "plan": chance.choice(("free", "gold"))}
        if chance.random() < WITH_PHONE:
            traits["phone"] = f"+4420{7_000_000 + person // FAMILY_SIZE:08d}"
        return traits
