"""Everything about one person, asked of four services at once and put together.

A part whose service is down, too slow, or not for the caller's eyes is named and the others are
there: a slow service makes the page poorer, not slower. Each question is asked in the caller's own
name, so nobody learns here what they could not ask for directly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from rapport.contacts.v1.service_pb2 import Contact, GetContactRequest
from rapport.deals.v1.service_pb2 import Deal, ListDealsRequest
from rapport.gateway.v1.service_pb2 import (
    GetCustomer360Request,
    GetCustomer360Response,
    UnavailablePart,
)
from rapport.identity.v1.service_pb2 import (
    GetProfileRequest,
    ListTimelineRequest,
    Profile,
    TimelineEntry,
)
from rapport.segments.v1.service_pb2 import ListProfileSegmentsRequest, Segment
from services.kernel.errors import InvalidArgument, NotFound, RapportError, Unavailable
from services.kernel.rpc.wire_errors import to_rapport_error

OPEN_DEALS_MAX: Final = 20
SEGMENTS_MAX: Final = 50
LAST_ACTIVITIES_MAX: Final = 10
# All parts together take this share of the caller's time, and never longer than the maximum.
TIME_SHARE: Final = 0.8
TIME_MAX_S: Final = 5.0
# A profile that others wait for leaves them the rest of the time.
PROFILE_TIME_SHARE: Final = 0.6

CONTACTS: Final = "contacts/"
PROFILES: Final = "profiles/"
_CONTACT_ID: Final = "contact_id"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stubs:
    """The services that are asked."""

    contacts: Any
    deals: Any
    identity: Any
    segments: Any


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """One part of the answer: there, known to be absent, or missing because of an error."""

    found: T | None = None
    error: RapportError | None = None
    # The service that is to blame; that of the part itself unless another had to answer first.
    service: str = ""

    @property
    def is_unavailable(self) -> bool:
        """Whether we do not know, which is not the same as that there is none."""
        return self.error is not None


@dataclass(frozen=True, slots=True)
class _Parts:
    contact: Part[Contact]
    profile: Part[Profile]
    open_deals: Part[list[Deal]]
    segments: Part[list[Segment]]
    last_activities: Part[list[TimelineEntry]]


async def compose(
    request: GetCustomer360Request, stubs: Stubs, *, within_s: float | None
) -> GetCustomer360Response:
    """Answers within a share of `within_s`, with what can be had until then."""
    budget_s = TIME_MAX_S if within_s is None else min(within_s * TIME_SHARE, TIME_MAX_S)
    asking = _Asking(stubs, request.read_token, asyncio.get_running_loop().time() + budget_s)
    contact = _contact_of(request.name)
    if contact is not None:
        parts = await _from_contact(asking, contact)
    elif request.name.startswith(PROFILES):
        parts = await _from_profile(asking, request.name)
    else:
        raise InvalidArgument.of("name", "must look like contacts/{id} or profiles/{id}")
    return _put_together(request.name, parts)


async def _from_contact(asking: _Asking, name: str) -> _Parts:
    profile_name = f"{PROFILES}{_CONTACT_ID}:{name.removeprefix(CONTACTS)}"
    contact, open_deals, last_activities, (profile, segments) = await asyncio.gather(
        asking.contact(name),
        asking.open_deals(name),
        asking.last_activities(profile_name),
        _with_segments(asking, profile_name),
    )
    return _Parts(contact, profile, open_deals, segments, last_activities)


async def _from_profile(asking: _Asking, name: str) -> _Parts:
    async def with_contact() -> tuple[
        Part[Profile], Part[list[Segment]], Part[Contact], Part[list[Deal]]
    ]:
        profile = await asking.profile(name)
        contact_name = _contact_named_in(profile.found)
        if contact_name is None:
            segments = await _segments_of(asking, profile)
            # Without a profile nobody knows which contact it would be.
            unknown = (_blamed(profile, "identity"), _blamed(profile, "identity"))
            return profile, segments, *unknown
        segments, contact, open_deals = await asyncio.gather(
            _segments_of(asking, profile),
            asking.contact(contact_name),
            asking.open_deals(contact_name),
        )
        return profile, segments, contact, open_deals

    (profile, segments, contact, open_deals), last_activities = await asyncio.gather(
        with_contact(), asking.last_activities(name)
    )
    return _Parts(contact, profile, open_deals, segments, last_activities)


async def _with_segments(asking: _Asking, name: str) -> tuple[Part[Profile], Part[list[Segment]]]:
    profile = await asking.profile(name)
    return profile, await _segments_of(asking, profile)


async def _segments_of(asking: _Asking, profile: Part[Profile]) -> Part[list[Segment]]:
    if profile.found is None:
        return _blamed(profile, "identity")
    return await asking.segments(profile.found.name)


class _Asking:
    """The questions, each with what is left of the time."""

    def __init__(self, stubs: Stubs, read_token: str, ends_at: float) -> None:
        self._stubs = stubs
        self._read_token = read_token
        self._ends_at = ends_at

    async def contact(self, name: str) -> Part[Contact]:
        request = GetContactRequest(name=name, read_token=self._read_token)
        return await self._ask(self._stubs.contacts.GetContact, request, lambda it: it.contact)

    async def profile(self, name: str) -> Part[Profile]:
        request = GetProfileRequest(name=name, read_token=self._read_token)
        return await self._ask(
            self._stubs.identity.GetProfile,
            request,
            lambda it: it.profile,
            time_share=PROFILE_TIME_SHARE,
        )

    async def open_deals(self, contact: str) -> Part[list[Deal]]:
        request = ListDealsRequest(
            page_size=OPEN_DEALS_MAX,
            filter=f'contact = "{contact}" AND state = DEAL_STATE_OPEN',
            order_by="create_time desc",
            read_token=self._read_token,
        )
        return await self._ask(self._stubs.deals.ListDeals, request, lambda it: list(it.deals))

    async def segments(self, profile: str) -> Part[list[Segment]]:
        request = ListProfileSegmentsRequest(
            profile=profile, page_size=SEGMENTS_MAX, read_token=self._read_token
        )
        return await self._ask(
            self._stubs.segments.ListProfileSegments, request, lambda it: list(it.segments)
        )

    async def last_activities(self, profile: str) -> Part[list[TimelineEntry]]:
        request = ListTimelineRequest(
            name=profile, page_size=LAST_ACTIVITIES_MAX, read_token=self._read_token
        )
        return await self._ask(
            self._stubs.identity.ListTimeline, request, lambda it: list(it.entries)
        )

    async def _ask(
        self,
        question: Callable[..., Awaitable[Any]],
        request: Any,
        read: Callable[[Any], T],
        *,
        time_share: float = 1.0,
    ) -> Part[T]:
        left_s = (self._ends_at - asyncio.get_running_loop().time()) * time_share
        try:
            async with asyncio.timeout(left_s):
                return Part(read(await question(request, timeout=max(left_s, 0.001))))
        except NotFound:
            return Part()
        except (RapportError, TimeoutError) as error:
            return Part(error=to_rapport_error(error))


def _put_together(name: str, parts: _Parts) -> GetCustomer360Response:
    for part in (parts.contact, parts.profile):
        # The caller's own mistake, in the name or the token, is no trouble of a service.
        if isinstance(part.error, InvalidArgument):
            raise part.error
    contact, profile = parts.contact, parts.profile
    nobody = contact.found is None and profile.found is None
    if nobody and not (contact.is_unavailable or profile.is_unavailable):
        raise NotFound(name)
    return GetCustomer360Response(
        contact=contact.found,
        profile=profile.found,
        open_deals=parts.open_deals.found,
        segments=parts.segments.found,
        last_activities=parts.last_activities.found,
        unavailable_parts=[
            UnavailablePart(
                part=part, service=answer.service or service, reason=answer.error.reason
            )
            for part, service, answer in (
                ("contact", "contacts", contact),
                ("profile", "identity", profile),
                ("open_deals", "deals", parts.open_deals),
                ("segments", "segments", parts.segments),
                ("last_activities", "identity", parts.last_activities),
            )
            if answer.error is not None
        ],
    )


def _contact_of(name: str) -> str | None:
    """Returns the contact that a name names, also by a profile's identifier."""
    if name.startswith(CONTACTS):
        contact_id = name.removeprefix(CONTACTS)
    elif name.startswith(f"{PROFILES}{_CONTACT_ID}:"):
        contact_id = name.removeprefix(f"{PROFILES}{_CONTACT_ID}:")
    else:
        return None
    if not contact_id or "/" in contact_id or '"' in contact_id or "\\" in contact_id:
        raise InvalidArgument.of("name", "must look like contacts/{id}")
    return f"{CONTACTS}{contact_id}"


def _contact_named_in(profile: Profile | None) -> str | None:
    if profile is None:
        return None
    found = [each.value for each in profile.identifiers if each.type == _CONTACT_ID]
    return f"{CONTACTS}{min(found)}" if found else None


def _blamed(part: Part[Any], service: str) -> Part[Any]:
    """Returns a part that is missing because another one is, or absent as that one is."""
    if part.error is None:
        return Part()
    error = part.error if not isinstance(part.error, InvalidArgument) else Unavailable(service)
    return Part(error=error, service=service)
