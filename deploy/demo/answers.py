"""What each service says of a person at the end of the story; every answer is checked."""

from __future__ import annotations

from typing import Final

from deploy.demo.door import Door
from deploy.demo.freight import pages
from deploy.demo.story import ACTIVITY, SEGMENT, Story, amount, hold
from deploy.demo.telling import Teller, pieces
from rapport.contacts.v1.service_pb2 import GetContactRequest, ListContactHistoryRequest
from rapport.deals.v1.service_pb2 import DealState, GetDealRequest
from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest
from rapport.gateway.v1.service_pb2 import GetCustomer360Request
from rapport.identity.v1.service_pb2 import GetProfileRequest, ListTimelineRequest
from rapport.segments.v1.service_pb2 import ListSegmentMembersRequest

PAGE_SIZE: Final = 1000
TIMELINE: Final = (
    "Deal Opened",
    "Deal Won",
    "Deal Stage Changed",
    "Deal Opened",
    "Contact Created",
    "Person Identified",
)


async def show_answers(story: Story) -> None:
    """Asks everybody."""
    door, teller = story.door, story.teller
    teller.heading("What each service says now")
    await _contacts(door, teller, story)
    await _deals(door, teller, story)
    await _events(door, teller, story)
    await _identity(door, teller, story)
    await _segments(door, teller, story)
    await _gateway(door, teller, story)


async def _contacts(door: Door, teller: Teller, story: Story) -> None:
    name = story.person.contact
    found = (await door.ask(door.contacts.GetContact, GetContactRequest(name=name))).contact
    request = ListContactHistoryRequest(name=name)
    history = (await door.ask(door.contacts.ListContactHistory, request)).changes
    hold(found.email == story.person.email, "contacts knows the address")
    hold([change.type for change in history] == ["ContactCreated"], "the history is one event")
    teller.step("contacts", f"{found.name}: {found.given_name} {found.family_name}, {found.email}")
    told = [f"{change.version} {change.type} by {change.actor}" for change in history]
    teller.step("", f"history: {', '.join(told)}")


async def _deals(door: Door, teller: Teller, story: Story) -> None:
    request = GetDealRequest(name=story.person.deal)
    found = (await door.ask(door.deals.GetDeal, request)).deal
    hold(found.state == DealState.DEAL_STATE_WON, "deals says that the deal is won")
    hold(found.contact == story.person.contact, "deals knows with whom")
    teller.step("deals", f"{found.name}: won, {amount(found)}, with {found.contact}")


async def _events(door: Door, teller: Teller, story: Story) -> None:
    request = ListCustomerEventsRequest(
        page_size=PAGE_SIZE,
        filter=f'anonymous_id = "{story.person.browser}"',
        order_by="occur_time",
    )
    found = (await door.ask(door.events.ListCustomerEvents, request)).customer_events
    kinds = [
        CustomerEventType.Name(event.type).removeprefix("CUSTOMER_EVENT_TYPE_").lower()
        for event in found
    ]
    hold(sorted(kinds) == ["identify", "page", "page", "page"], f"events has four, not {kinds}")
    teller.step("events", f"{pieces(len(found), 'customer events')}: {', '.join(kinds)}")


async def _identity(door: Door, teller: Teller, story: Story) -> None:
    asked = GetProfileRequest(name=story.profile, read_token=story.read_token)
    found = (await door.ask(door.identity.GetProfile, asked)).profile
    teller.step("identity", f"{found.name}, led to by")
    for one in sorted(found.identifiers, key=lambda it: it.type):
        teller.step("", f"  {one.type}:{one.value}")
    traits = [f"{name}={trait.value}" for name, trait in sorted(found.traits.items())]
    teller.step("", f"traits: {', '.join(traits)}")
    hold(
        {"email", "plan", "given_name", "family_name"} <= found.traits.keys(),
        "the traits come from the website and from the CRM",
    )
    timeline = (await door.ask(door.identity.ListTimeline, _timeline(story))).entries
    teller.step("", "timeline, newest first:")
    for entry in timeline:
        when = entry.occur_time.ToDatetime().strftime("%H:%M:%S")
        teller.step("", f"  {when}  {entry.activity.ljust(19)} {entry.resource}")
    activities = [entry.activity for entry in timeline]
    hold(tuple(activities[: len(TIMELINE)]) == TIMELINE, f"the timeline is in order: {activities}")
    hold(activities[len(TIMELINE) :] == ["Page Viewed"] * 3, "the page views come last")


def _timeline(story: Story) -> ListTimelineRequest:
    return ListTimelineRequest(name=story.profile, page_size=PAGE_SIZE, read_token=story.read_token)


async def _segments(door: Door, teller: Teller, story: Story) -> None:
    count = 0
    entered = ""
    request = ListSegmentMembersRequest(name=SEGMENT, page_size=PAGE_SIZE)
    async for page in pages(door, door.segments.ListSegmentMembers, request):
        for member in page.members:
            count += 1
            if member.profile == story.profile:
                entered = member.enter_time.ToDatetime().strftime("%H:%M:%S")
    hold(bool(entered), f"{story.profile} is a member of {SEGMENT}")
    others = pieces(count - 1, "others")
    teller.step("segments", f"{SEGMENT} has {story.profile} since {entered}, and {others}")


async def _gateway(door: Door, teller: Teller, story: Story) -> None:
    request = GetCustomer360Request(name=story.person.contact, read_token=story.read_token)
    found = await door.ask(door.gateway.GetCustomer360, request)
    missing = [part.part for part in found.unavailable_parts]
    hold(not missing, f"nothing is missing in Customer 360, not {', '.join(missing)}")
    hold(found.contact.name == story.person.contact, "Customer 360 shows the contact")
    hold(found.profile.name == story.profile, "Customer 360 shows the profile")
    open_deals = [deal.name for deal in found.open_deals]
    hold(open_deals == [story.person.next_deal], f"one deal is open, not {open_deals}")
    hold(SEGMENT in {segment.name for segment in found.segments}, "Customer 360 shows the segment")
    activities = [entry.activity for entry in found.last_activities]
    hold(ACTIVITY in activities, "Customer 360 shows what happened last")
    contact = found.contact
    teller.step(
        "gateway", f"Customer 360 of {contact.given_name} {contact.family_name}, in one call:"
    )
    teller.step("", f"{found.profile.name}; open: {', '.join(open_deals)}")
    segments = ", ".join(segment.display_name for segment in found.segments)
    teller.step("", f"segments: {segments}; last: {', '.join(activities[:3])}")
