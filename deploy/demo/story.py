"""One person's way through the platform, told through the gateway, every claim checked.

Each run tells of a new person: somebody can be unknown only once. What a run repeats it repeats
with the same request ids, so a retry inside it has no second effect.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.demo.door import Door, with_request_id
from deploy.demo.telling import Teller, pieces
from rapport.common.v1.money_pb2 import Money
from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.deals.v1.service_pb2 import (
    Deal,
    DealState,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from rapport.identity.v1.service_pb2 import GetProfileRequest, Profile
from rapport.segments.v1.rule_pb2 import ActivityCondition, Condition, Rule
from rapport.segments.v1.service_pb2 import (
    CreateSegmentRequest,
    GetSegmentRequest,
    SegmentDirection,
    WatchSegmentRequest,
)
from services.kernel.errors import NotFound

SEGMENT: Final = "segments/recent-buyers"
ACTIVITY: Final = "Deal Won"
WINDOW_DAYS: Final = 30
ENTER_WITHIN_S: Final = 30.0

_GIVEN: Final = (
    "Ada",
    "Grace",
    "Edsger",
    "Barbara",
    "Alan",
    "Frances",
    "Donald",
    "Radia",
    "Niklaus",
)
_FAMILY: Final = ("Okafor", "Lindqvist", "Marino", "Tanaka", "Reyes", "Novak", "Dubois", "Haddad")
_PAGES: Final = ("/", "/pricing", "/products/harbour-lamp")


class BrokenClaim(Exception):
    """When the platform does not say what the story says."""


@dataclass(frozen=True, slots=True)
class Person:
    """Whom the story is about."""

    run: str
    given_name: str
    family_name: str

    @property
    def email(self) -> str:
        """An address that leads nowhere."""
        return f"{self.given_name}.{self.family_name}.{self.run}@example.com".lower()

    @property
    def browser(self) -> str:
        """What a website knows before it knows more."""
        return f"browser-{self.run}"

    @property
    def user_id(self) -> str:
        """What the shop calls the person."""
        return f"user-{self.run}"

    @property
    def contact(self) -> str:
        """The name of the contact."""
        return f"contacts/demo-{self.run}"

    @property
    def deal(self) -> str:
        """The name of the deal."""
        return f"deals/demo-{self.run}"

    @property
    def next_deal(self) -> str:
        """The name of the deal after it."""
        return f"deals/demo-{self.run}-next"


def new_person(run: str) -> Person:
    """Returns somebody new: the name follows from the run."""
    chance = random.Random(run)
    return Person(run, chance.choice(_GIVEN), chance.choice(_FAMILY))


def hold(claim: bool, sentence: str) -> None:  # noqa: FBT001, the claim is the point
    """Ends the story where a claim does not hold."""
    if not claim:
        raise BrokenClaim(sentence)


class Story:
    """The steps, in their order; each leaves what the next one needs."""

    def __init__(self, door: Door, teller: Teller, person: Person) -> None:
        self.door = door
        self.teller = teller
        self.person = person
        self.profile = ""
        self.read_token = ""

    async def tell(self) -> None:
        """Tells it all."""
        person = self.person
        self.teller.heading(f"The story of {person.given_name} {person.family_name}, new today")
        await self.define_segment()
        await self.browse()
        await self.sign_up()
        await self.become_contact()
        await self.sell()

    async def define_segment(self) -> None:
        """Makes the segment, unless an earlier run did."""
        condition = ActivityCondition(activity=ACTIVITY, count_min=1, window_days=WINDOW_DAYS)
        request = CreateSegmentRequest(
            segment_id=SEGMENT.partition("/")[2],
            display_name="Recent buyers",
            rule=Rule(conditions=[Condition(activity=condition)]),
        )
        door = self.door
        try:
            found = await door.ask(door.segments.GetSegment, GetSegmentRequest(name=SEGMENT))
            segment, age = found.segment, "was there already"
        except NotFound:
            made = await door.ask(door.segments.CreateSegment, with_request_id(request))
            segment, age = made.segment, "new"
        hold(segment.rule == request.rule, f"{SEGMENT} has the rule of this story")
        text = f'"Recent buyers" is who did "{ACTIVITY}" at least once in {WINDOW_DAYS} days'
        self.teller.step("segment", f"{text} ({age})")

    async def browse(self) -> None:
        """Somebody looks around; nobody knows who."""
        views = [{"type": "page", "name": path, "properties": {"path": path}} for path in _PAGES]
        await self._track(views, anonymousId=self.person.browser)
        found = await self._profile(f"anonymous_id:{self.person.browser}")
        self.profile = found.name
        hold(not found.traits, "of an anonymous visitor nothing is known")
        self.teller.step("browses", f"{pieces(len(views), 'page views')} over HTTP, by nobody yet")
        self.teller.step("", f"profiles/anonymous_id:{self.person.browser} is {found.name}")

    async def sign_up(self) -> None:
        """They say who they are."""
        person = self.person
        identify = {
            "type": "identify",
            "userId": person.user_id,
            "traits": {"email": person.email, "plan": "team"},
        }
        await self._track([identify], anonymousId=person.browser)
        found = await self._profile(f"user_id:{person.user_id}")
        await self._is_one(found, f"anonymous_id:{person.browser}", f"email:{person.email}")
        hold(found.traits["plan"].value == '"team"', "the profile has the trait plan")
        self.teller.step("signs up", f"as {person.user_id} with {person.email}")
        self.teller.step("", f"still one person: {self._led_to(found)}")
        self.profile = found.name

    async def become_contact(self) -> None:
        """Sales gets to know them under the same address."""
        person = self.person
        request = CreateContactRequest(
            contact_id=person.contact.partition("/")[2],
            given_name=person.given_name,
            family_name=person.family_name,
            email=person.email,
        )
        door = self.door
        created = await door.ask(door.contacts.CreateContact, with_request_id(request))
        hold(created.contact.email == person.email, "the contact has the address")
        self.read_token = created.write_token
        found = await self._profile(f"contact_id:{person.contact.partition('/')[2]}")
        await self._is_one(found, f"user_id:{person.user_id}", f"email:{person.email}")
        self.teller.step("contact", f"{person.contact} has the same address")
        self.teller.step("", f"read with its write token: {self._led_to(found)}")
        self.profile = found.name

    async def sell(self) -> None:
        """A deal is opened, moved and won, and the person enters the segment."""
        door, person = self.door, self.person
        opening = OpenDealRequest(
            deal_id=person.deal.partition("/")[2],
            display_name="Harbour lamps for the office",
            contact=person.contact,
            amount=Money(amount_minor=1_280_000, currency="EUR"),
        )
        opened = await door.ask(door.deals.OpenDeal, with_request_id(opening))
        move = MoveDealStageRequest(name=person.deal, stage="pipelines/sales/stages/negotiation")
        moved = await door.ask(door.deals.MoveDealStage, with_request_id(move))
        hold(moved.deal.stage == move.stage, "the deal is in negotiation")
        async with asyncio.timeout(ENTER_WITHIN_S):
            won = await self._win_and_watch()
        hold(won.state == DealState.DEAL_STATE_WON, "the deal is won")
        self.teller.step("deal", f"{person.deal} over {amount(opened.deal)}: {last(opened.deal)}")
        self.teller.step("", f"then {last(moved.deal)}, then won")
        self.teller.step("segment", f"{self.profile} entered {SEGMENT}, told by its watch")
        after = OpenDealRequest(
            deal_id=person.next_deal.partition("/")[2],
            display_name="Harbour lamps, second floor",
            contact=person.contact,
            amount=Money(amount_minor=960_000, currency="EUR"),
        )
        following = await door.ask(door.deals.OpenDeal, with_request_id(after))
        self.read_token = following.write_token
        self.teller.step("next deal", f"{person.next_deal} over {amount(following.deal)} is open")

    async def _win_and_watch(self) -> Deal:
        """Watches the segment, wins the deal, and returns when the watch has told of it."""
        door = self.door
        watch = door.segments.WatchSegment(
            WatchSegmentRequest(name=SEGMENT), timeout=ENTER_WITHIN_S, metadata=door.metadata
        )
        try:
            answers = aiter(watch)
            await anext(answers)  # It says where it begins; from there on it misses nobody.
            request = with_request_id(WinDealRequest(name=self.person.deal))
            won = await door.ask(door.deals.WinDeal, request)
            async for answer in answers:
                for transition in answer.transitions:
                    if transition.profile == self.profile:
                        entered = SegmentDirection.SEGMENT_DIRECTION_ENTERED
                        hold(transition.direction == entered, "who bought enters, not exits")
                        return won.deal
        finally:
            watch.cancel()
        raise BrokenClaim(f"{SEGMENT} tells that {self.profile} entered")

    async def _track(self, calls: Sequence[dict[str, Any]], **common: str) -> None:
        kind = calls[0]["type"]
        batch = [
            {**call, **common, "messageId": f"demo-{self.person.run}-{kind}-{place}"}
            for place, call in enumerate(calls)
        ]
        answer = await self.door.track(batch)
        outcomes = {receipt["outcome"] for receipt in answer["receipts"]}
        hold(outcomes <= {"accepted", "duplicate"}, f"every call is taken: {answer}")
        self.read_token = answer["writeToken"]

    async def _profile(self, identifier: str) -> Profile:
        request = GetProfileRequest(name=f"profiles/{identifier}", read_token=self.read_token)
        answer = await self.door.ask(self.door.identity.GetProfile, request)
        return answer.profile

    async def _is_one(self, found: Profile, *identifiers: str) -> None:
        """Every way leads to the same profile, the names it had before, too."""
        for way in (*identifiers, self.profile.partition("/")[2]):
            other = await self._profile(way)
            hold(other.name == found.name, f"profiles/{way} is {found.name}, not {other.name}")
        known = {f"{one.type}:{one.value}" for one in found.identifiers}
        missing = set(identifiers) - known
        hold(not missing, f"{found.name} has the identifiers {', '.join(sorted(missing))}")

    def _led_to(self, found: Profile) -> str:
        if found.name == self.profile:
            return found.name
        return f"{found.name}, to which {self.profile} leads now"


def amount(deal: Deal) -> str:
    """`12 800.00 EUR`."""
    whole, cents = divmod(deal.amount.amount_minor, 100)
    return f"{whole:,}.{cents:02} {deal.amount.currency}".replace(",", " ")


def last(deal: Deal) -> str:
    """The last word of a deal's stage."""
    return deal.stage.rpartition("/")[2]
