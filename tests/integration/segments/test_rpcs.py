"""Through gRPC and the feed: members are what identity's facts and the time make them."""

import asyncio
import uuid

import pytest

from rapport.segments.v1.rule_pb2 import Rule
from rapport.segments.v1.service_pb2 import (
    SEGMENT_DIRECTION_ENTERED,
    SEGMENT_DIRECTION_EXITED,
    SEGMENT_STATE_ARCHIVED,
    ArchiveSegmentRequest,
    CreateSegmentRequest,
    GetSegmentRequest,
    ListProfileSegmentsRequest,
    ListSegmentMembersRequest,
    ListSegmentsRequest,
    WatchSegmentRequest,
)
from services.kernel.errors import Aborted, AlreadyExists, InvalidArgument, NotFound
from services.kernel.testing import eventually
from tests.segments_world import DAY, START, activity, trait

IN, OUT = SEGMENT_DIRECTION_ENTERED, SEGMENT_DIRECTION_EXITED


@pytest.fixture
def create(platform):
    async def create(segment_id, *conditions, **said):
        request = CreateSegmentRequest(
            segment_id=segment_id,
            display_name=segment_id.title(),
            rule=Rule(conditions=conditions or [activity()]),
            **said,
        )
        return await platform.segments().CreateSegment(request)

    return create


async def test_a_write_of_identity_is_seen_in_the_members(platform, create):
    await create("buyers")

    token = await platform.tell(*platform.people.did("a", "Order", START))

    assert await platform.members("segments/buyers", token) == ["of-a"]
    listed = await platform.segments().ListProfileSegments(
        ListProfileSegmentsRequest(profile="profiles/of-a", read_token=token)
    )
    assert [segment.name for segment in listed.segments] == ["segments/buyers"]


async def test_a_new_segment_has_the_members_that_match_already(platform, create):
    await create("seen")
    token = await platform.tell(*platform.people.did("a", "Order", START))
    await platform.members("segments/seen", token)

    created = await create("buyers")

    assert await platform.members("segments/buyers", created.write_token) == ["of-a"]


async def test_time_sends_members_off(platform, create):
    await create("buyers")
    token = await platform.tell(*platform.people.did("a", "Order", START))
    assert await platform.members("segments/buyers", token) == ["of-a"]

    platform.set_time(START + 7 * DAY)

    async def gone():
        assert await platform.members("segments/buyers") == []

    await eventually(gone)


async def test_an_archived_segment_is_emptied_and_stays_readable(platform, create):
    created = await create("buyers")
    token = await platform.tell(*platform.people.did("a", "Order", START))
    assert await platform.members("segments/buyers", token) == ["of-a"]

    archive = ArchiveSegmentRequest(name="segments/buyers", etag=created.segment.etag)
    archived = await platform.segments().ArchiveSegment(archive)

    async def emptied():
        assert await platform.members("segments/buyers") == []

    await eventually(emptied)
    got = await platform.segments().GetSegment(GetSegmentRequest(name="segments/buyers"))
    assert got.segment == archived.segment
    assert got.segment.state == SEGMENT_STATE_ARCHIVED


async def test_an_old_etag_is_refused_and_members_do_not_age_it(platform, create):
    await create("buyers")
    archive = ArchiveSegmentRequest(name="segments/buyers", etag='"7"')

    with pytest.raises(Aborted):
        await platform.segments().ArchiveSegment(archive)


async def test_a_repeated_create_is_the_first_one(platform, create):
    request_id = str(uuid.uuid4())

    first = await create("buyers", request_id=request_id)

    assert await create("buyers", request_id=request_id) == first
    with pytest.raises(AlreadyExists):
        await create("buyers")


async def test_another_workspace_sees_nothing(platform, create):
    await create("buyers")

    others = platform.segments("other")

    with pytest.raises(NotFound):
        await others.GetSegment(GetSegmentRequest(name="segments/buyers"))
    assert not (await others.ListSegments(ListSegmentsRequest())).segments


async def test_lists_come_in_pages(platform, create):
    for number in range(3):
        await create(f"s{number}")
    facts = [fact for n in range(5) for fact in platform.people.did(f"{n}", "Order", START)]
    token = await platform.tell(*facts)
    segments = platform.segments()

    request, found = ListSegmentMembersRequest(name="segments/s0", page_size=2), []
    request.read_token = token
    while True:
        page = await segments.ListSegmentMembers(request)
        found += [member.profile for member in page.members]
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    listed = await segments.ListSegments(ListSegmentsRequest(filter='state = "ACTIVE"'))
    mine = await segments.ListProfileSegments(
        ListProfileSegmentsRequest(profile="profiles/of-1", page_size=2)
    )

    assert found == [f"profiles/of-{number}" for number in range(5)]
    assert [segment.name for segment in listed.segments] == [f"segments/s{n}" for n in range(3)]
    assert len(mine.segments) == 2
    assert mine.next_page_token


async def test_a_rule_that_cannot_be_evaluated_is_refused(create):
    with pytest.raises(InvalidArgument) as error:
        await create("gold", trait(["gold"]))

    assert ["rule.conditions[0].trait.value"] == [v.field for v in error.value.violations]


async def test_a_watcher_misses_and_repeats_nothing_across_reconnects(platform, create):
    await create("buyers")
    await create("others", activity("Visit"))
    segments, people = platform.segments(), platform.people
    watched, resume = [], ""

    async def watch(count):
        """Reads until so many transitions came in all, then hangs up."""
        nonlocal resume
        request = WatchSegmentRequest(name="segments/buyers", resume_token=resume)
        call = segments.WatchSegment(request, timeout=20)
        async for response in call:
            resume = response.resume_token
            watched.extend((t.profile, t.direction) for t in response.transitions)
            if len(watched) >= count:
                break
        await call.aclose()

    await watch(0)
    await platform.tell(*people.did("a", "Order", START), *people.did("a", "Visit", START))
    await watch(1)
    token = await platform.tell(*people.did("b", "Order", START + DAY / 2))
    await platform.members("segments/buyers", token)
    platform.set_time(START + DAY)
    await watch(2)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(watch(4))
        platform.set_time(START + 30 * DAY)

    assert watched[:2] == [("profiles/of-a", IN), ("profiles/of-b", IN)]
    assert sorted(watched[2:]) == [("profiles/of-a", OUT), ("profiles/of-b", OUT)]
