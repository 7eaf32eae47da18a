"""Customer 360 shows what can be had in time and names what cannot, in the caller's own name."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from rapport.contacts.v1 import service_pb2 as contacts
from rapport.deals.v1 import service_pb2 as deals
from rapport.gateway.v1 import service_pb2 as gateway
from rapport.identity.v1 import service_pb2 as identity
from rapport.segments.v1 import service_pb2 as segments
from services.kernel import errors
from services.kernel.errors import Reason
from tests.contract.gateway_world import error_infos

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/rapport.gateway.v1.GatewayService/GetCustomer360"
BY_CONTACT = "contacts/ada"
BY_PROFILE = "profiles/email:ada@example.com"

PROFILE = identity.Profile(
    name="profiles/p1",
    identifiers=[
        identity.Identifier(type="email", value="ada@example.com"),
        identity.Identifier(type="contact_id", value="ada"),
    ],
)


@pytest.fixture
def world(shared_world):
    return with_ada(shared_world)


@pytest.fixture
def breakable(own_world):
    return with_ada(own_world)


def with_ada(world):
    """Lets each service say its part of a customer."""
    say(world, "contacts", "GetContact", contact=contacts.Contact(name="contacts/ada"))
    say(world, "deals", "ListDeals", deals=[deals.Deal(name="deals/d1")])
    say(world, "identity", "GetProfile", profile=PROFILE)
    say(world, "identity", "ListTimeline", entries=[{"activity": "Deal Opened"}])
    say(world, "segments", "ListProfileSegments", segments=[{"name": "segments/gold"}])
    return world


TYPES = {
    "GetContact": contacts.GetContactResponse,
    "ListDeals": deals.ListDealsResponse,
    "GetProfile": identity.GetProfileResponse,
    "ListTimeline": identity.ListTimelineResponse,
    "ListProfileSegments": segments.ListProfileSegmentsResponse,
}


def say(world, service, method, **answer):
    world.services[service].says[method] = lambda _, __: TYPES[method](**answer)


def refuse(world, service, method, error):
    def raise_it(_, __):
        raise error

    world.services[service].says[method] = raise_it


def hang(world, service, method):
    async def wait(_, __):
        await asyncio.Event().wait()

    world.services[service].says[method] = wait


async def ask(world, name=BY_CONTACT, **options) -> gateway.GetCustomer360Response:
    token = options.pop("read_token", "")
    request = gateway.GetCustomer360Request(name=name, read_token=token)
    return gateway.GetCustomer360Response.FromString(await world.call(PATH, request, **options))


def heard(world, method):
    return [
        (request, caller)
        for service in world.services.values()
        for name, request, _, caller in service.heard
        if name == method
    ]


def missing(answer) -> dict[str, tuple[str, str]]:
    return {part.part: (part.service, part.reason) for part in answer.unavailable_parts}


@pytest.mark.parametrize("name", [BY_CONTACT, BY_PROFILE, "profiles/contact_id:ada"])
async def test_everything_is_there_whatever_the_person_is_called_by(world, name):
    answer = await ask(world, name)

    assert answer.contact.name == "contacts/ada"
    assert answer.profile.name == "profiles/p1"
    assert [deal.name for deal in answer.open_deals] == ["deals/d1"]
    assert [segment.name for segment in answer.segments] == ["segments/gold"]
    assert [entry.activity for entry in answer.last_activities] == ["Deal Opened"]
    assert missing(answer) == {}


async def test_it_asks_for_little_in_the_callers_name_and_as_fresh_as_asked(world):
    await ask(world, read_token="token")

    [(deals_asked, caller)] = heard(world, "ListDeals")
    assert deals_asked.filter == 'contact = "contacts/ada" AND state = DEAL_STATE_OPEN'
    assert (deals_asked.page_size, deals_asked.order_by) == (20, "create_time desc")
    assert (caller.workspace, caller.actor) == ("acme", "api_keys/all")
    [(timeline_asked, _)] = heard(world, "ListTimeline")
    assert (timeline_asked.name, timeline_asked.page_size) == ("profiles/contact_id:ada", 10)
    [(segments_asked, _)] = heard(world, "ListProfileSegments")
    assert segments_asked.profile == "profiles/p1"
    for method in TYPES:
        assert [request.read_token for request, _ in heard(world, method)] == ["token"]


async def test_the_parts_are_asked_at_once(world):
    together = asyncio.Barrier(4)
    for service, method in [
        ("contacts", "GetContact"),
        ("deals", "ListDeals"),
        ("identity", "GetProfile"),
        ("identity", "ListTimeline"),
    ]:
        world.services[service].says[method] = _after(together, world.services[service], method)

    assert missing(await ask(world)) == {}


def _after(barrier, service, method):
    before = service.says[method]

    async def say(request, context):
        await barrier.wait()
        return before(request, context)

    return say


@pytest.mark.parametrize("name", [BY_CONTACT, BY_PROFILE])
@pytest.mark.parametrize(
    ("service", "parts"),
    [("deals", {"open_deals"}), ("segments", {"segments"}), ("contacts", {"contact"})],
)
async def test_a_service_that_is_down_is_named_and_the_others_are_there(
    breakable, name, service, parts
):
    await breakable.services[service].stop()

    answer = await ask(breakable, name)

    assert missing(answer) == dict.fromkeys(parts, (service, "SERVICE_UNAVAILABLE"))
    assert answer.profile.name == "profiles/p1"
    assert len(answer.last_activities) == 1


async def test_without_identity_a_contact_is_still_a_contact(breakable):
    await breakable.services["identity"].stop()

    answer = await ask(breakable, BY_CONTACT)

    away = ("identity", "SERVICE_UNAVAILABLE")
    assert missing(answer) == {"profile": away, "segments": away, "last_activities": away}
    assert answer.contact.name == "contacts/ada"
    assert len(answer.open_deals) == 1


async def test_without_identity_nobody_knows_whose_profile_it_is(breakable):
    await breakable.services["identity"].stop()

    answer = await ask(breakable, BY_PROFILE)

    away = ("identity", "SERVICE_UNAVAILABLE")
    assert missing(answer) == dict.fromkeys(
        ("contact", "profile", "open_deals", "segments", "last_activities"), away
    )


async def test_a_slow_part_is_left_out_in_time(world):
    hang(world, "deals", "ListDeals")

    answer = await ask(world, timeout=1.0)

    assert missing(answer) == {"open_deals": ("deals", "DEADLINE_EXCEEDED")}


async def test_a_slow_profile_leaves_time_for_all_else(world):
    hang(world, "identity", "GetProfile")

    answer = await ask(world, timeout=1.0)

    late = ("identity", "DEADLINE_EXCEEDED")
    assert missing(answer) == {"profile": late, "segments": late}
    assert len(answer.open_deals) == 1


async def test_a_view_that_is_behind_is_named(world):
    refuse(world, "identity", "ListTimeline", errors.DeadlineExceeded.view_behind("timeline"))

    assert missing(await ask(world)) == {"last_activities": ("identity", "VIEW_BEHIND")}


async def test_what_the_caller_may_not_see_is_not_shown(world):
    answer = await ask(world, key_id="contacts")

    assert {part: reason for part, (_, reason) in missing(answer).items()} == dict.fromkeys(
        ("profile", "open_deals", "segments", "last_activities"), "SCOPE_MISSING"
    )
    assert answer.contact.name == "contacts/ada"
    assert not answer.HasField("profile")


async def test_a_contact_of_whom_nothing_else_is_known_is_enough(world):
    refuse(world, "identity", "GetProfile", errors.NotFound("profiles/contact_id:ada"))
    refuse(world, "identity", "ListTimeline", errors.NotFound("profiles/contact_id:ada"))

    answer = await ask(world)

    assert answer.contact.name == "contacts/ada"
    assert not answer.HasField("profile")
    assert missing(answer) == {}


async def test_an_unknown_visitor_has_a_profile_and_no_contact(world):
    say(world, "identity", "GetProfile", profile=identity.Profile(name="profiles/p2"))

    answer = await ask(world, BY_PROFILE)

    assert answer.profile.name == "profiles/p2"
    assert not answer.HasField("contact")
    assert not heard(world, "GetContact")
    assert missing(answer) == {}


@pytest.mark.parametrize("name", [BY_CONTACT, BY_PROFILE])
async def test_nobody_is_not_found(world, name):
    refuse(world, "contacts", "GetContact", errors.NotFound("contacts/ada"))
    refuse(world, "identity", "GetProfile", errors.NotFound(name))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(world, name)

    assert grpc.StatusCode.NOT_FOUND is raised.value.code()
    assert [dict(info.metadata) for info in error_infos(raised.value)] == [{"resource": name}]


async def test_nobody_is_called_not_found_while_somebody_cannot_answer(breakable):
    refuse(breakable, "contacts", "GetContact", errors.NotFound("contacts/ada"))
    await breakable.services["identity"].stop()

    answer = await ask(breakable)

    assert not answer.HasField("contact")
    assert missing(answer)["profile"] == ("identity", "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("name", ["deals/d1", "contacts/", 'contacts/a" OR "', "contacts/a/b", "x"])
async def test_what_names_nobody_is_refused(world, name):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(world, name)

    assert grpc.StatusCode.INVALID_ARGUMENT is raised.value.code()


async def test_a_bad_token_is_the_callers_mistake(world):
    bad = errors.InvalidArgument.of("read_token", "is none", reason=Reason.READ_TOKEN_INVALID)
    for service, method in [("contacts", "GetContact"), ("identity", "GetProfile")]:
        refuse(world, service, method, bad)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(world, read_token="nonsense")

    assert [info.reason for info in error_infos(raised.value)] == ["READ_TOKEN_INVALID"]
