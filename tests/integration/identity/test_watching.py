"""Who watches profiles is told what becomes of them, under whichever id they go on."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from rapport.identity.v1 import service_pb2 as pb
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from services.identity.__main__ import SERVICE
from services.identity.service import watching
from services.kernel.clock import SystemClock
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.database import transaction
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import prepare_database
from services.kernel.views.projection import fold
from tests.identity_world import Facts

WITHIN_S = 10.0
CHANGED, UNMATCHED, ABSORBED, REMOVED = (
    getattr(pb.ProfileChangeKind, f"PROFILE_CHANGE_KIND_{name}")
    for name in ("CHANGED", "UNMATCHED", "ABSORBED", "REMOVED")
)


class Identity:
    """The service, to which facts come when a test says so."""

    def __init__(self, asked):
        self.asked = asked
        self.stub = asked.stub(IdentityServiceStub)

    async def happens(self, *events):
        """Applies events as one batch, as the consumer does."""
        consumer = SERVICE.consumers[0]
        async with transaction(self.asked.kernel.pool) as tx:
            await fold(tx, self.asked.kernel.log, consumer, events)

    async def named(self, name):
        asked = pb.GetProfileRequest(name=f"profiles/{name}")
        return (await self.stub.GetProfile(asked)).profile


class Watch:
    """A watch that has begun."""

    def __init__(self, call):
        self._stream = aiter(call)
        self.token = ""

    async def next(self):
        """The next answer."""
        async with asyncio.timeout(WITHIN_S):
            response = await anext(self._stream)
        self.token = getattr(response, "resume_token", "")
        return response

    async def changes(self):
        """What the next answer tells of profiles, by what name leads to each."""
        return [(change.name, change.kind) for change in (await self.next()).changes]

    async def activities(self):
        return [entry.activity for entry in (await self.next()).entries]

    async def aclose(self):
        await self._stream.aclose()


@pytest.fixture
async def identity(start_service):
    asked = await start_service(replace(SERVICE, consumers=()))
    await prepare_database(asked.kernel.pool, SERVICE, 1, SystemClock())
    return Identity(asked)


@pytest.fixture
def facts():
    return Facts()


async def test_a_watched_profile_is_told_first_and_after_each_change(identity, facts):
    await identity.happens(facts.identify(user_id="u1", traits={"plan": "free"}))
    call = identity.stub.WatchProfile(pb.WatchProfileRequest(name="profiles/user_id:u1"))
    async with aclosing(Watch(call)) as watch:
        assert (await watch.next()).profile == await identity.named("user_id:u1")
        await identity.happens(facts.track(user_id="u2"))
        await identity.happens(facts.identify(user_id="u1", traits={"plan": "gold"}))

        told = (await watch.next()).profile

    assert told.traits["plan"].value == '"gold"'
    assert told.activity_count == 2


async def test_a_watched_name_is_followed_through_merges_and_cuts_to_nobody_and_back(
    identity, facts
):
    older = facts.track(anonymous_id="a1")
    taken = facts.imported("track", user_id="u1")
    await identity.happens(older, taken)
    call = identity.stub.WatchProfile(pb.WatchProfileRequest(name="profiles/user_id:u1"))
    ends = ("user_id", "u1"), ("anonymous_id", "a1")
    async with aclosing(Watch(call)) as watch:
        alone = (await watch.next()).profile
        await identity.happens(facts.linked(*ends))
        joined = (await watch.next()).profile
        await identity.happens(facts.cut(*ends))
        apart = (await watch.next()).profile
        await identity.happens(facts.retracted(taken))
        gone = await watch.next()
        await identity.happens(facts.track(user_id="u1"))
        back = (await watch.next()).profile

    assert joined.name == (await identity.named("anonymous_id:a1")).name != alone.name
    assert apart == alone
    assert not gone.HasField("profile")
    assert back.name == alone.name


async def test_profiles_that_changed_are_told_and_where_those_went_that_are_no_more(
    identity, facts
):
    taken = facts.imported("track", user_id="u3")
    await identity.happens(facts.track(user_id="u1"), facts.track(anonymous_id="a1"), taken)
    older, younger, third = [
        (await identity.named(name)).name
        for name in ("user_id:u1", "anonymous_id:a1", "user_id:u3")
    ]
    call = identity.stub.WatchProfiles(pb.WatchProfilesRequest())
    async with aclosing(Watch(call)) as watch:
        assert [] == await watch.changes()
        await identity.happens(
            facts.identify(user_id="u1", anonymous_id="a1"), facts.retracted(taken)
        )

        told = (await watch.next()).changes

    assert {
        (older, CHANGED, ""),
        (younger, ABSORBED, older),
        (third, REMOVED, ""),
    } == {(change.name, change.kind, change.absorbed_by) for change in told}
    assert [await identity.named("user_id:u1")] == [
        change.profile for change in told if change.kind == CHANGED
    ]


async def test_a_filter_tells_those_that_match_and_names_the_others(identity, facts):
    call = identity.stub.WatchProfiles(pb.WatchProfilesRequest(filter="traits.plan = gold"))
    async with aclosing(Watch(call)) as watch:
        await watch.next()
        await identity.happens(facts.identify(user_id="u1", traits={"plan": "gold"}))
        first = await watch.changes()
        await identity.happens(facts.identify(user_id="u1", traits={"plan": None}))
        second = await watch.changes()

    name = (await identity.named("user_id:u1")).name
    assert (first, second) == ([(name, CHANGED)], [(name, UNMATCHED)])


async def test_a_slow_reader_is_told_the_last_state_and_goes_on_where_it_was_left(identity, facts):
    async with aclosing(Watch(identity.stub.WatchProfiles(pb.WatchProfilesRequest()))) as watch:
        await watch.next()
        token = watch.token
    for number in range(3):
        await identity.happens(facts.identify(user_id="u1", traits={"age": number}))

    asked = pb.WatchProfilesRequest(resume_token=token)
    async with aclosing(Watch(identity.stub.WatchProfiles(asked))) as watch:
        await watch.next()
        [change] = (await watch.next()).changes

    assert change.profile.traits["age"].value == "2"


async def test_many_changes_are_told_in_parts_and_the_first_part_is_not_the_whole(
    identity, facts, monkeypatch
):
    monkeypatch.setattr(watching, "TOLD_AT_ONCE_MAX", 2)
    async with aclosing(Watch(identity.stub.WatchProfiles(pb.WatchProfilesRequest()))) as watch:
        await watch.next()
        begun = watch.token
        await identity.happens(*(facts.track(user_id=f"u{number}") for number in range(5)))
        parts = [(len(await watch.changes()), watch.token == begun) for _ in range(3)]

    assert parts == [(2, True), (2, True), (1, False)]


async def test_a_timeline_is_told_live_filtered_and_across_a_merge(identity, facts):
    await identity.happens(facts.track(user_id="u1"), facts.track(anonymous_id="a1"))
    asked = pb.WatchTimelineRequest(name="profiles/user_id:u1", filter='activity != "Dull"')
    async with aclosing(Watch(identity.stub.WatchTimeline(asked))) as watch:
        assert [] == await watch.activities()
        await identity.happens(facts.track("Theirs", anonymous_id="a1"))
        await identity.happens(facts.track("Dull", user_id="u1"))
        await identity.happens(
            facts.track("Ordered", user_id="u1", occurred=1),
            facts.track("Viewed", user_id="u1", occurred=0),
        )
        assert ["Ordered", "Viewed"] == await watch.activities()
        await identity.happens(facts.identify(user_id="u1", anonymous_id="a1"))
        merged = await watch.next()
        await identity.happens(facts.track("After", anonymous_id="a1"))

        assert merged.is_regrouped
        assert ["Person Identified"] == [entry.activity for entry in merged.entries]
        assert ["After"] == await watch.activities()


async def test_what_is_taken_back_from_a_watched_timeline_is_told_by_its_id(identity, facts):
    taken = facts.imported("track", user_id="u1")
    await identity.happens(taken, facts.track(user_id="u1"))
    asked = pb.WatchTimelineRequest(name="profiles/user_id:u1")
    async with aclosing(Watch(identity.stub.WatchTimeline(asked))) as watch:
        token = (await watch.next()).resume_token
        await identity.happens(facts.retracted(taken))
        told = await watch.next()
    again = pb.WatchTimelineRequest(name=asked.name, resume_token=token)
    async with aclosing(Watch(identity.stub.WatchTimeline(again))) as watch:
        await watch.next()

        assert list(told.retracted_activity_ids) == [str(taken.event_id)]
        assert await watch.next() == told


async def test_a_workspace_is_told_its_own_only(identity, facts):
    async with aclosing(Watch(identity.stub.WatchProfiles(pb.WatchProfilesRequest()))) as watch:
        await watch.next()
        await identity.happens(Facts("globex", seed=1).track(user_id="u1"))
        await identity.happens(facts.track(user_id="u1"))

        assert [((await identity.named("user_id:u1")).name, CHANGED)] == await watch.changes()


async def test_what_cannot_be_watched_is_refused(identity):
    stub = identity.stub
    for error, call in (
        (InvalidArgument, stub.WatchProfiles(pb.WatchProfilesRequest(filter="colour = red"))),
        (InvalidArgument, stub.WatchProfiles(pb.WatchProfilesRequest(resume_token="x"))),
        (
            InvalidArgument,
            stub.WatchProfiles(
                pb.WatchProfilesRequest(resume_token=encode_write_token("contacts", {0: 1}))
            ),
        ),
        (NotFound, stub.WatchProfile(pb.WatchProfileRequest(name="profiles/user_id:u1"))),
        (NotFound, stub.WatchTimeline(pb.WatchTimelineRequest(name="profiles/user_id:u1"))),
    ):
        with pytest.raises(error):
            await Watch(call).next()
