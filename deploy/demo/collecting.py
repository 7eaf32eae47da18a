"""How a shop sends what somebody buys, told through the gateway, every claim checked.

Each run tells of a new shop, and of the tracking plan of all of them. What a run sends has message
ids of its own, and nothing else of it is new when it is said a second time.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from deploy.demo.collecting_import import imported_and_undone
from deploy.demo.door import with_request_id
from deploy.demo.freight import pages
from deploy.demo.story import Story, hold
from deploy.demo.telling import pieces
from rapport.common.v1.money_pb2 import Money
from rapport.events.v1.events_pb2 import SourceSettings, TrackingPlanContent, ViolationPolicy
from rapport.events.v1.orders_pb2 import GetOrderRequest, OrderState
from rapport.events.v1.quarantine_pb2 import (
    ListQuarantinedEventsRequest,
    QuarantineOutcome,
    ResubmitQuarantinedEventsRequest,
)
from rapport.events.v1.service_pb2 import ListCustomerEventCountsRequest, ReceiptOutcome
from rapport.events.v1.sources_pb2 import ConfigureSourceRequest, CreateSourceRequest
from rapport.events.v1.suppressions_pb2 import SuppressIdentifierRequest
from rapport.events.v1.tracking_plans_pb2 import (
    CreateTrackingPlanRequest,
    DraftTrackingPlanRequest,
    InferTrackingPlanRequest,
    PreviewTrackingPlanRequest,
    PublishTrackingPlanRequest,
)
from rapport.identity.v1.service_pb2 import ListTimelineRequest
from services.kernel.clock import SystemClock
from services.kernel.errors import AlreadyExists

PLAN: Final = "trackingPlans/demo-shop"
BOUGHT: Final = "Order Completed"
CURRENCY: Final = "EUR"
LEFT_ALONE: Final = "leave.me.alone@example.com"
KEY_SHOWN: Final = 24
PAGE_SIZE: Final = 1000
SHOWN: Final = 3

# The orders by their numbers: good ones, one before the plan and one after it that break it, one of
# somebody who is suppressed, and one to end with.
GOOD: Final = (1, 2, 3)
CARELESS: Final = 4
MENDED: Final = 5
SUPPRESSED: Final = 6
LAST: Final = 7
RECORDED: Final = (*GOOD, CARELESS, MENDED, LAST)

# Three lamps of 19.99 and three wicks of 0.10, whose floats do not add up to it.
_TOTAL_MINOR: Final = 6_027


async def show_collection(story: Story) -> None:
    """Tells it all."""
    story.teller.heading("How a shop sends what they buy")
    await Collection(story).tell()


class Collection:
    """The steps, in their order; each leaves what the next one needs."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.door = story.door
        self.teller = story.teller
        self.person = story.person
        self.source = f"sources/demo-{story.person.run}"
        self.write_key = ""
        self.read_token = ""
        self.now = SystemClock().now()

    async def tell(self) -> None:
        """Tells it all."""
        await self.register()
        await self.send()
        await self.plan()
        await self.mend()
        await self.read_order()
        await imported_and_undone(self.door, self.teller, self.source, self.person)
        await self.leave_alone()
        await self.timeline()
        await self.counts()

    async def register(self) -> None:
        """The shop becomes a source, with a write key of its own."""
        request = CreateSourceRequest(
            source_id=self.source.partition("/")[2], display_name="The shop of the demo"
        )
        made = await self.door.ask(self.door.sources.CreateSource, with_request_id(request))
        self.write_key = made.write_key
        hold(self.write_key.startswith("wk_"), "a new source has a write key")
        hold(made.write_key not in str(made.source), "a source does not show its key")
        self.teller.step("source", f"{self.source}, with a write key that is shown this once:")
        self.teller.step("", f"{self.write_key[:KEY_SHOWN]}…")

    async def send(self) -> None:
        """What is sent over HTTP is answered one by one; sent again it is known."""
        orders = [self._order(number) for number in GOOD]
        nobody = {**self._order(0), "userId": ""}
        first = await self._track([*orders, nobody])
        again = await self._track(orders)
        taken = [receipt["outcome"] for receipt in first[: len(GOOD)]]
        hold(set(taken) <= {"accepted", "duplicate"}, f"orders are taken: {first}")
        hold(first[-1]["outcome"] == "refused", f"an order of nobody is refused: {first[-1]}")
        hold({it["outcome"] for it in again} == {"duplicate"}, f"known is known: {again}")
        self.teller.step("sends", f"over HTTP: {_told(first)}")
        self.teller.step("", f"the same again: {_told(again)}")

    async def plan(self) -> None:
        """What was seen becomes a tracking plan, which is tried before it is in force."""
        door, teller = self.door, self.teller
        infer = InferTrackingPlanRequest(source=self.source, read_token=self.read_token)
        seen = await door.ask(door.tracking_plans.InferTrackingPlan, infer)
        content = seen.content
        for rule in content.rules:
            rule.policy = ViolationPolicy.VIOLATION_POLICY_QUARANTINE
        required = json.loads(content.rules[0].schema)["properties"]["properties"]["required"]
        hold("currency" in required, f"every order said its currency: {required}")
        teller.step("plan", f"made of {pieces(seen.looked_at, 'customer events')}: {BOUGHT} needs")
        teller.step("", ", ".join(required))

        careless = await self._track([self._order(CARELESS, currency="")])
        hold(careless[0]["outcome"] in {"accepted", "duplicate"}, "nothing is in force yet")
        preview = PreviewTrackingPlanRequest(
            content=content, source=self.source, read_token=self.read_token
        )
        would = await door.ask(door.tracking_plans.PreviewTrackingPlan, preview)
        hold(
            (would.looked_at, would.outcomes.quarantined) == (len(GOOD) + 1, 1),
            f"it would have quarantined one of four: {would.outcomes}",
        )
        broken = would.rules[0]
        numbers = f"{would.outcomes.quarantined} of {would.looked_at}"
        teller.step("preview", f"would have quarantined {numbers} ({broken.rule} {broken.path})")
        version = await self._publish(content)
        settings = SourceSettings(tracking_plan=PLAN)
        configure = ConfigureSourceRequest(
            name=self.source, display_name="The shop of the demo", settings=settings
        )
        set_ = await door.ask(door.sources.ConfigureSource, with_request_id(configure))
        hold(set_.source.settings.tracking_plan == PLAN, "the source has the plan")
        teller.step("publish", f"{PLAN}@{version} is in force for {self.source}")

    async def _publish(self, content: TrackingPlanContent) -> int:
        """Makes the content the newest version, unless it is."""
        door = self.door
        create = CreateTrackingPlanRequest(
            tracking_plan_id=PLAN.partition("/")[2], display_name="Shops", content=content
        )
        run = self.person.run
        try:
            request = with_request_id(create, story=run)
            await door.ask(door.tracking_plans.CreateTrackingPlan, request)
        except AlreadyExists:
            draft = DraftTrackingPlanRequest(name=PLAN, content=content)
            request_again = with_request_id(draft, story=run)
            await door.ask(door.tracking_plans.DraftTrackingPlan, request_again)
        publish = with_request_id(PublishTrackingPlanRequest(name=PLAN), story=run)
        published = await door.ask(door.tracking_plans.PublishTrackingPlan, publish)
        hold(published.tracking_plan.published == content, f"{PLAN} says what was inferred")
        return published.tracking_plan.version

    async def mend(self) -> None:
        """What breaks the plan waits, and is recorded once it is mended."""
        door, teller = self.door, self.teller
        order = self._order(MENDED, currency="")
        receipt = (await self._track([order]))[0]
        hold(receipt["outcome"] in {"quarantined", "duplicate"}, f"it is kept: {receipt}")
        waiting = ListQuarantinedEventsRequest(
            filter=f'source = "{self.source}" AND rules:required', read_token=self.read_token
        )
        listed = await door.ask(door.quarantine.ListQuarantinedEvents, waiting)
        hold(len(listed.quarantined_events) == 1, f"one waits: {listed}")
        found = listed.quarantined_events[0]
        teller.step("quarantine", f"{found.name}: {found.customer_event.violations[0].detail}")
        resubmit = ResubmitQuarantinedEventsRequest(
            names=[found.name], merge_patch=json.dumps({"properties": {"currency": CURRENCY}})
        )
        mended = await door.ask(
            door.quarantine.ResubmitQuarantinedEvents, with_request_id(resubmit)
        )
        outcome = mended.receipts[0].outcome
        hold(outcome == QuarantineOutcome.QUARANTINE_OUTCOME_RECORDED, f"recorded: {mended}")
        hold(mended.left_count == 0, "nothing is left")
        self.read_token = mended.write_token
        text = f"mended, and recorded under its own id as of {order['timestamp'][11:19]}"
        teller.step("", f"{text}, when it happened")

    async def read_order(self) -> None:
        """An order has amounts to the cent."""
        name = f"orders/{self._order_id(MENDED)}"
        request = GetOrderRequest(name=name, read_token=self.read_token)
        order = (await self.door.ask(self.door.orders.GetOrder, request)).order
        total = Money(amount_minor=_TOTAL_MINOR, currency=CURRENCY)
        hold(order.state == OrderState.ORDER_STATE_COMPLETED, "the order is completed")
        hold((order.total, order.lines_total) == (total, total), f"it is exact: {order}")
        hold(not order.problem_count, "nothing is wrong with it")
        lines = " + ".join(f"{line.quantity} x {_amount(line.price)}" for line in order.lines)
        self.teller.step("order", f"{order.name}: {lines} = {_amount(order.total)} {CURRENCY}")

    async def leave_alone(self) -> None:
        """Whoever wants to be left alone is, whatever a source sends."""
        suppress = SuppressIdentifierRequest(type="email", value=LEFT_ALONE)
        method = self.door.suppressions.SuppressIdentifier
        await self.door.ask(method, with_request_id(suppress, story=self.person.run))
        order = self._order(SUPPRESSED)
        order["properties"]["email"] = LEFT_ALONE.upper()
        last = self._order(LAST)
        refused, taken = await self._track([order, last])
        told = (refused["outcome"], refused.get("reason"))
        hold(told == ("refused", "SUPPRESSED"), f"who is suppressed is refused: {refused}")
        hold(taken["outcome"] in {"accepted", "duplicate"}, f"others are not: {taken}")
        self.teller.step("suppressed", f"an order with {LEFT_ALONE}: {_told([refused])}")

    async def timeline(self) -> None:
        """The timeline has every order once, when it happened, and no row that was undone."""
        request = ListTimelineRequest(
            name=f"profiles/user_id:{self.person.user_id}",
            page_size=PAGE_SIZE,
            read_token=self.read_token,
        )
        timeline = await self.door.ask(self.door.identity.ListTimeline, request)
        prefix = f"customerEvents/{self._message_id('')}"
        shown = [entry for entry in timeline.entries if entry.resource.startswith(prefix)]
        found = [int(entry.resource.removeprefix(prefix)) for entry in shown]
        hold(found == [*reversed(RECORDED)], f"the timeline has the orders in order: {found}")
        imported = [
            it for it in timeline.entries if it.resource.startswith("customerEvents/imports/")
        ]
        hold(not imported, f"what was undone has left the timeline: {imported}")
        self.teller.step("timeline", f"of {self.person.user_id}, newest first:")
        for entry in shown[:SHOWN]:
            when = entry.occur_time.ToDatetime().strftime("%H:%M:%S")
            self.teller.step("", f"  {when}  {entry.activity}  {entry.resource}")

    async def counts(self) -> None:
        """What came from the source, and what became of it."""
        request = ListCustomerEventCountsRequest(
            page_size=PAGE_SIZE, filter=f'source = "{self.source}"', read_token=self.read_token
        )
        became: Counter[tuple[str, str, str]] = Counter()
        method = self.door.events.ListCustomerEventCounts
        async for page in pages(self.door, method, request):
            for count in page.counts:
                outcome = ReceiptOutcome.Name(count.outcome).removeprefix("RECEIPT_OUTCOME_")
                became[count.name, outcome.lower(), count.reason] += count.count
        hold(became[BOUGHT, "accepted", ""] == len(RECORDED), f"every order counts once: {became}")
        hold(became[BOUGHT, "quarantined", ""] == 1, f"one was in quarantine: {became}")
        self.teller.step("counts", f"of {self.source}:")
        for (name, outcome, reason), count in sorted(became.items()):
            self.teller.step("", f"  {count:2}  {name.ljust(15)}  {outcome.ljust(11)} {reason}")

    async def _track(self, batch: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        answer = await self.door.track(batch, write_key=self.write_key)
        self.read_token = answer["writeToken"]
        receipts: list[dict[str, Any]] = answer["receipts"]
        return receipts

    def _order(self, number: int, *, currency: str = CURRENCY) -> dict[str, Any]:
        """An order as shops send it; without a currency it says nothing of one."""
        properties = {
            "order_id": self._order_id(number),
            "total": 60.27,
            "products": [
                {"product_id": "harbour-lamp", "price": 19.99, "quantity": 3},
                {"product_id": "wick", "price": 0.10, "quantity": 3},
            ],
        }
        when = self.now - timedelta(minutes=60 - number)
        return {
            "type": "track",
            "event": BOUGHT,
            "userId": self.person.user_id,
            "messageId": self._message_id(str(number)),
            "timestamp": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "properties": properties | ({"currency": currency} if currency else {}),
        }

    def _order_id(self, number: int) -> str:
        return f"demo-{self.person.run}-{number}"

    def _message_id(self, number: str) -> str:
        return f"demo-{self.person.run}-order-{number}"


def _told(receipts: Sequence[dict[str, Any]]) -> str:
    """`3 accepted, 1 refused (NO_IDENTIFIER)`."""
    became = Counter((it["outcome"], it.get("reason", "")) for it in receipts)
    return ", ".join(
        f"{count} {outcome}" + (f" ({reason})" if reason else "")
        for (outcome, reason), count in became.items()
    )


def _amount(money: Money) -> str:
    whole, cents = divmod(money.amount_minor, 100)
    return f"{whole}.{cents:02}"
