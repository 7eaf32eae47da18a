"""Members equal a scan over all facts after every step, and every change is said exactly once."""

import random
from datetime import timedelta

import pytest

from rapport.segments.v1.events_pb2 import SegmentArchived
from services.kernel.log.database import transaction
from services.kernel.views.view import digest
from services.segments.projections.facts import ProfileFactsView
from services.segments.projections.segments import SegmentsView
from tests.segments_world import DAY, People, activity, trait

STEPS = 60
RULES = {
    "recent": [activity(window_days=2)],
    "often": [activity(count_min=3, window_days=5)],
    "gold": [trait("gold")],
    "gold-buyers": [trait("gold"), activity(window_days=3)],
    "both": [activity(window_days=4), activity("Visit", count_min=2, window_days=4)],
    "twice": [activity(window_days=1), activity(count_min=2, window_days=9)],
    "late": [activity("Visit", window_days=3)],
}


class History:
    """One random history; `rules` are those of the segments in use."""

    def __init__(self, world, seed):
        self.world, self.people, self.chance = world, People(), random.Random(seed)
        self.rules = {}

    def time(self):
        """Mostly now, sometimes late, sometimes ahead, often at the edge of a window."""
        edge = self.chance.choice([timedelta(0), timedelta(microseconds=1), -timedelta(0, 0, 1)])
        days = self.chance.choice([0, 0, 0, -1, -2, -3, -4, -5, 1, 2])
        return self.world.clock.now() + days * DAY + edge

    def facts(self):
        """What identity tells next."""
        people, now = self.people, self.world.clock.now()
        profiles = sorted(people.traits)
        kind = self.chance.choice(
            ["did"] * 5 + ["never did"] * 2 + ["became", "became", "merged", "split"]
        )
        if kind == "never did" and people.activities:
            atom = self.chance.choice(sorted(people.activities))
            place = self.chance.randrange(len(people.activities[atom]))
            return people.never_did(atom, place, now)
        if kind == "became" and profiles:
            tier = self.chance.choice(["gold", "iron", None])
            return people.became(self.chance.choice(profiles), now, tier=tier)
        if kind == "merged" and len(profiles) > 1:
            return people.merged(*self.chance.sample(profiles, 2), now)
        if kind == "split" and profiles:
            profile = self.chance.choice(profiles)
            atoms = sorted(a for a, owner in people.profile_of.items() if owner == profile)
            if len(atoms) > 1:
                part = self.chance.sample(atoms, self.chance.randrange(1, len(atoms)))
                free = [f"of-{a}" for a in part if f"of-{a}" not in people.traits]
                if free:
                    return people.split(profile, part, free[0], now)
        atom = f"{self.chance.randrange(8)}"
        return people.did(atom, self.chance.choice(["Order", "Visit"]), self.time())

    async def step(self):
        """Something happens."""
        what = self.chance.random()
        if what < 0.25:
            step = self.chance.choice([timedelta(microseconds=1), timedelta(hours=7), DAY, 3 * DAY])
            self.world.clock.advance(step)
            await self.world.settle()
        elif what < 0.35 and len(self.rules) < len(RULES):
            name = self.chance.choice(sorted(set(RULES) - set(self.rules)))
            self.rules[name] = await self.world.create(name, *RULES[name])
            await self.world.settle()
        elif what < 0.37 and self.rules:
            name = self.chance.choice(sorted(self.rules))
            self.rules[name] = None
            await self.world.record(name, SegmentArchived())
            await self.world.settle()
        else:
            batch = [fact for _ in range(self.chance.randrange(1, 5)) for fact in self.facts()]
            events = self.world.recorded(*batch)
            cut = self.chance.randrange(len(events) + 1)
            for part in (events[:cut], events[cut:]):
                await self.world.apply(part)
            await self.world.settle()

    def truth(self):
        """Members by segment, as the scan says."""
        now = self.world.clock.now()
        return {
            name: self.people.matching(rule, now) if rule is not None else set()
            for name, rule in self.rules.items()
        }


@pytest.mark.parametrize("seed", range(8))
async def test_members_equal_the_scan_after_every_step(world, seed):
    history = History(world, seed)
    for _ in range(STEPS):
        await history.step()

        found = {name: await world.members(name) for name in history.rules}
        assert found == history.truth()

    for name in history.rules:
        await _each_way_in_turn(world, name)
    await _rebuilt_is_equal(world, history.chance)


async def _each_way_in_turn(world, segment_id):
    """Who is told to enter was out, and who is told to exit was in, since no later time."""
    since = {}
    for profile, way, time in await world.transitions(segment_id):
        assert (way == "in") == (profile not in since)
        if way == "in":
            since[profile] = time
        else:
            assert since.pop(profile) <= time
        assert time <= world.clock.now()
    assert set(since) == await world.members(segment_id)


async def _rebuilt_is_equal(world, chance):
    """Other batches lead to the same rows."""
    for view, events in (
        (ProfileFactsView(), world.history),
        (SegmentsView(), await world.log()),
    ):
        async with transaction(world.pool) as tx:
            await tx.execute("create schema rebuilt")
            await tx.execute(view.tables("rebuilt"))
            done = 0
            while done < len(events):
                size = chance.randrange(1, 40)
                await view.apply(tx, "rebuilt", events[done : done + size])
                done += size
            assert await digest(tx, view.name) == await digest(tx, "rebuilt")
            await tx.execute("drop schema rebuilt cascade")
