"""Identity as segments see it: a model that tells facts, and scans them as plainly as possible."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import orjson
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from rapport.identity.v1 import events_pb2 as identity
from rapport.segments.v1 import events_pb2, rule_pb2
from services.kernel.clock import FixedClock
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin, read_partition
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.process.runtime import make_kernel, prepare_database
from services.kernel.views.projection import fold
from services.kernel.views.view import append_with_views
from services.segments.__main__ import compose
from services.segments.upkeep import Upkeep, UpkeepMetrics

START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ACME = "acme"


def activity(name="Order", count_min=1, window_days=7):
    """A condition on what a person did."""
    condition = rule_pb2.ActivityCondition(
        activity=name, count_min=count_min, window_days=window_days
    )
    return rule_pb2.Condition(activity=condition)


def trait(value, name="tier", operator="EQUALS"):
    """A condition on what a person is."""
    condition = rule_pb2.TraitCondition(
        trait=name,
        operator=f"TRAIT_OPERATOR_{operator}",
        value="" if value is None else orjson.dumps(value).decode(),
    )
    return rule_pb2.Condition(trait=condition)


@dataclass
class People:
    """Profiles with their atoms and traits; every change answers the facts that identity tells."""

    activities: dict[str, list[tuple[str, datetime, str]]] = field(default_factory=dict)
    profile_of: dict[str, str] = field(default_factory=dict)
    traits: dict[str, dict[str, object]] = field(default_factory=dict)
    told: int = 0

    def did(self, atom, name, time):
        """A person did something; a new atom is a new profile."""
        facts: list[Message] = []
        if atom not in self.profile_of:
            self.profile_of[atom] = f"of-{atom}"
            self.traits[f"of-{atom}"] = {}
            facts.append(identity.ProfileCreated(profile=f"profiles/of-{atom}"))
        self.told += 1
        activity_id = str(UUID(int=self.told))
        self.activities.setdefault(atom, []).append((name, time, activity_id))
        facts.append(
            identity.ProfileActivityRecorded(
                profile=f"profiles/{self.profile_of[atom]}",
                atom=atom,
                activity_id=activity_id,
                activity=name,
                occur_time=timestamp_of(time),
            )
        )
        return facts

    def never_did(self, atom, place, now):
        """What a person did is taken back; an atom that did nothing is none."""
        name, time, activity_id = self.activities[atom].pop(place)
        profile = self.profile_of[atom]
        facts: list[Message] = [
            identity.ProfileActivityRetracted(
                profile=f"profiles/{profile}",
                atom=atom,
                activity_id=activity_id,
                activity=name,
                occur_time=timestamp_of(time),
            )
        ]
        if self.activities[atom]:
            return facts
        del self.activities[atom], self.profile_of[atom]
        left = sorted(other for other, owner in self.profile_of.items() if owner == profile)
        if left and profile != f"of-{atom}":
            return facts
        if left:
            # Who was named for it goes on by another name.
            facts += self.split(profile, left, f"of-{left[0]}", now)
        del self.traits[profile]
        return [*facts, identity.ProfileRemoved(profile=f"profiles/{profile}")]

    def became(self, profile, time, **traits):
        """A profile's traits got other values; None takes one back."""
        for name, value in traits.items():
            self.traits[profile].pop(name, None)
            if value is not None:
                self.traits[profile][name] = value
        changes = [
            identity.TraitChange(
                trait=name,
                value="" if value is None else orjson.dumps(value).decode(),
                occur_time=None if value is None else timestamp_of(time),
            )
            for name, value in traits.items()
        ]
        return [identity.ProfileTraitsChanged(profile=f"profiles/{profile}", changes=changes)]

    def merged(self, survivor, absorbed, time):
        """Two profiles turned out to be one."""
        moved = [atom for atom, profile in self.profile_of.items() if profile == absorbed]
        self.profile_of.update(dict.fromkeys(moved, survivor))
        gained = {**self.traits.pop(absorbed), **self.traits[survivor]}
        fact = identity.ProfilesMerged(
            survivor=f"profiles/{survivor}", absorbed=f"profiles/{absorbed}", atoms=moved
        )
        return [fact, *self.became(survivor, time, **gained)]

    def split(self, profile, atoms, split_off, time):
        """A part of a profile turned out to be somebody else, who takes the traits along."""
        self.profile_of.update(dict.fromkeys(atoms, split_off))
        taken = dict(self.traits[profile])
        self.traits.setdefault(split_off, {})
        fact = identity.ProfileSplit(
            profile=f"profiles/{profile}", split_off=f"profiles/{split_off}", atoms=atoms
        )
        lost = self.became(profile, time, **dict.fromkeys(taken))
        return [fact, *lost, *self.became(split_off, time, **taken)]

    def matching(self, rule, now):
        """The profiles that a rule holds for: a scan over all facts."""
        return {profile for profile in self.traits if self.matches(rule, profile, now)}

    def matches(self, rule, profile, now):
        """Whether a rule of EQUALS and activities holds."""
        for condition in rule.conditions:
            if condition.HasField("trait"):
                if self.traits[profile].get(condition.trait.trait) != orjson.loads(
                    condition.trait.value
                ):
                    return False
                continue
            asked = condition.activity
            window = timedelta(days=asked.window_days)
            count = sum(
                name == asked.activity and now - window < time <= now
                for atom, of_atom in self.activities.items()
                if self.profile_of[atom] == profile
                for name, time, _ in of_atom
            )
            if count < asked.count_min:
                return False
        return True


class SegmentsWorld:
    """The service's log, views and policies on a database, without feed and RPCs."""

    def __init__(self, pool: asyncpg.Pool, clock: FixedClock):
        self.pool, self.clock = pool, clock
        self.service = compose(clock)
        self.kernel = make_kernel(pool, self.service, 1, clock, secret=b"")
        self.consumer = self.service.consumers[0]
        self.upkeep = self.new_upkeep()
        self.history: list[Recorded] = []

    def new_upkeep(self):
        """The upkeep of one more process."""
        return Upkeep(self.kernel, UpkeepMetrics(CollectorRegistry()))

    async def prepare(self):
        """Makes the tables."""
        await prepare_database(self.pool, self.service, 1, self.clock)

    def recorded(self, *facts, workspace=ACME):
        """Identity's facts as the feed brings them."""
        events = [
            Recorded(
                partition=0,
                position=len(self.history) + place,
                workspace=workspace,
                stream="profile",
                version=len(self.history) + place,
                event_id=UUID(int=len(self.history) + place),
                type=fact.DESCRIPTOR.full_name,
                event=fact,
                actor="services/identity",
                correlation_id="",
                causation_id="",
                occur_time=self.clock.now(),
                record_time=self.clock.now(),
            )
            for place, fact in enumerate(facts, start=1)
        ]
        self.history += events
        return events

    async def hear(self, *facts, workspace=ACME):
        """One batch of identity's facts, applied as the projection does."""
        await self.apply(self.recorded(*facts, workspace=workspace))

    async def apply(self, events):
        """One batch transaction."""
        async with transaction(self.pool) as tx:
            await self.kernel.log.lock_heads(tx, {0})
            await fold(tx, self.kernel.log, self.consumer, events, self.service.views)

    async def record(self, segment_id, *facts, workspace=ACME):
        """Facts about a segment's definition."""
        append = Append(
            Origin(workspace, "tests", "", ""),
            f"segment-{segment_id}",
            [NewEvent(fact) for fact in facts],
        )
        async with transaction(self.pool) as tx:
            await append_with_views(tx, self.kernel.log, self.service.views, [append])

    async def create(self, segment_id, *conditions, workspace=ACME):
        """A new segment; answers its rule."""
        rule = rule_pb2.Rule(conditions=conditions)
        created = events_pb2.SegmentCreated(display_name=segment_id, rule=rule)
        await self.record(segment_id, created, workspace=workspace)
        return rule

    async def settle(self):
        """Everything that is due is done."""
        for _ in range(1000):
            if not await self.upkeep.step():
                return
        raise AssertionError("the upkeep never comes to rest")

    async def members(self, segment_id, workspace=ACME):
        """Who is in."""
        rows = await self.pool.fetch(
            "select profile_id from segments.members where workspace = $1 and segment_id = $2",
            workspace,
            segment_id,
        )
        return {row["profile_id"] for row in rows}

    async def log(self):
        """All events of the own log."""
        envelopes = await read_partition(self.pool, 0, after=0, limit=100_000)
        return [self.kernel.event_types.decode(envelope) for envelope in envelopes]

    async def transitions(self, segment_id):
        """Who went which way when, in order."""
        return [
            (event.event.profile.removeprefix("profiles/"), _way(event.event), event.occur_time)
            for event in await self.log()
            if event.stream == f"members-{segment_id}"
        ]


def _way(fact):
    return "in" if isinstance(fact, events_pb2.ProfileEnteredSegment) else "out"
