"""Profiles follow from the set of facts: no order, batching or repetition of them can be seen."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from rapport.identity.v1 import events_pb2
from services.identity.rules import DEFAULT, Rules
from services.kernel.log.recorded import utc
from services.kernel.views.view import digest
from tests.identity_histories import DenseHistory, another_order
from tests.identity_reference import expected, still_true
from tests.identity_world import Facts, apply, batches, connected, create

WORKSPACES = 40
FACTS = 40
KINDS = ("retracting", "judging", "flagging", "erasing", "consenting")
LONG_AGO = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Crowd:
    """Histories: how much of them takes facts back, is verdicts, flags and so on; and rules."""

    name: str
    seed: int
    retracting: int = 0
    judging: int = 0
    flagging: int = 0
    erasing: int = 0
    consenting: int = 0
    rules: Rules = DEFAULT
    history: type = DenseHistory

    def facts(self):
        """Many dense histories, each in a workspace of its own."""
        rng = random.Random(self.seed)
        kinds = {name: getattr(self, name) for name in KINDS}
        histories = [
            self.history(rng, f"w{n}").some(rng.randint(1, FACTS), **kinds)
            for n in range(WORKSPACES)
        ]
        return rng, [event for history in histories for event in history]


def ruled(**types):
    """The default rules, with other words about some types."""
    return replace(
        DEFAULT, types=tuple(replace(each, **types.get(each.name, {})) for each in DEFAULT.types)
    )


# Nothing is shared, so that all hangs together.
LOOSE = ruled(**{known.name: {"hub_over": None} for known in DEFAULT.types})
TIMED = ruled(
    user_id={"window": timedelta(minutes=10)},
    external_id={"limit": 1, "window": timedelta(minutes=20)},
    email={"limit": 2, "window": timedelta(minutes=15)},
    phone={"limit": 1, "window": timedelta(minutes=5), "hub_over": None},
    anonymous_id={"limit": 2, "window": timedelta(minutes=10), "hub_over": 1},
    device_id={"hub_over": 1},
)
CROWDS = (
    Crowd("told", 0),
    Crowd("judged", 1, retracting=6, judging=3, flagging=3),
    Crowd("loose", 2, retracting=12, judging=12, flagging=2, rules=LOOSE),
    Crowd("erased", 5, retracting=4, judging=4, flagging=4, erasing=4),
    Crowd("timed", 3, retracting=6, judging=4, flagging=4, erasing=2, rules=TIMED),
    Crowd("small", 4, retracting=6, judging=4, flagging=4, rules=replace(DEFAULT, nodes_max=6)),
)
OF_CROWDS = pytest.mark.parametrize("crowd", CROWDS, ids=lambda crowd: crowd.name)


class Reader:
    """Folds what identity tells into the partition of atoms and the traits, as others do."""

    def __init__(self):
        self.profiles = set()
        self.profile_of = {}
        self.nodes = {}
        self.wholes = {}
        self.activities = defaultdict(set)
        self.traits = defaultdict(dict)

    def read(self, changes):
        for change in changes:
            self._regroup(change.event)
            self._tell(change.event)

    def _regroup(self, event):
        match event:
            case events_pb2.ProfileCreated():
                assert event.profile not in self.profiles
                self.profiles.add(event.profile)
                self.wholes[event.profile] = utc(event.create_time), LONG_AGO, 0
            case events_pb2.ProfileIdentifiersChanged():
                self._rename(event)
            case events_pb2.ProfileRecounted():
                assert event.profile in self.profiles
                times = utc(event.create_time), utc(event.last_activity_time)
                self.wholes[event.profile] = *times, event.activity_count
            case events_pb2.ProfilesMerged():
                self._move(event.absorbed, event.survivor, event.atoms)
                self._end(event.absorbed)
            case events_pb2.ProfileSplit():
                self._move(event.profile, event.split_off, event.atoms)
            case events_pb2.ProfileRemoved():
                self._end(event.profile)

    def _tell(self, event):
        match event:
            case events_pb2.ProfileActivityRecorded():
                assert event.profile in self.profiles
                old = self.profile_of.setdefault(event.atom, event.profile)
                assert old == event.profile
                assert event.activity_id not in self.activities[event.atom]
                self.activities[event.atom].add(event.activity_id)
                begun, last, count = self.wholes[event.profile]
                self.wholes[event.profile] = begun, max(last, utc(event.occur_time)), count + 1
            case events_pb2.ProfileActivityRetracted():
                assert self.profile_of[event.atom] == event.profile
                self.activities[event.atom].remove(event.activity_id)
                if not self.activities[event.atom]:
                    del self.activities[event.atom]
                    del self.profile_of[event.atom]
            case events_pb2.ProfileTraitsChanged():
                assert event.profile in self.profiles
                for said in event.changes:
                    if said.value:
                        self.traits[event.profile][said.trait] = said.value
                    else:
                        del self.traits[event.profile][said.trait]

    def _rename(self, event):
        assert event.profile in self.profiles
        assert event.added or event.removed
        for known in event.removed:
            if self.nodes[known.node] == (known.type, event.profile):
                del self.nodes[known.node]
        for known in event.added:
            assert self.nodes.get(known.node) != (known.type, event.profile)
            self.nodes[known.node] = known.type, event.profile

    def _end(self, profile):
        assert profile not in self.profile_of.values()
        assert profile not in {of for _, of in self.nodes.values()}
        self.profiles.remove(profile)
        self.wholes.pop(profile, None)
        self.traits.pop(profile, None)

    def _move(self, old, new, atoms):
        assert atoms
        assert {old, new} <= self.profiles
        for atom in atoms:
            assert self.profile_of[atom] == old
            self.profile_of[atom] = new


async def assert_tables(connection, schema, wanted):
    """The tables hold exactly what is wanted."""
    nodes = await connection.fetch(f"select * from {schema}.nodes")
    assert {n["node"]: n["profile"] for n in nodes} == wanted.profile_of
    assert {n["node"]: (n["type"], n["value"]) for n in nodes} == wanted.values
    assert {n["node"] for n in nodes if n["is_hub"]} == wanted.hubs
    atoms = await connection.fetch(f"select * from {schema}.atoms")
    assert {
        a["node"]: (a["first_key"], a["activities"], a["last_activity_time"]) for a in atoms
    } == wanted.atoms
    edges = await connection.fetch(f"select weak, strong from {schema}.edges where is_rejected")
    assert {(e["weak"], e["strong"]) for e in edges} == wanted.rejected
    judged = await connection.fetch(f"select * from {schema}.verdicts")
    assert {(v["weak"], v["strong"]): (v["kind"], v["is_rejected"]) for v in judged} == (
        wanted.verdicts
    )
    flags = await connection.fetch(f"select node, kind from {schema}.flags")
    assert {flag["node"]: flag["kind"] for flag in flags} == wanted.flags
    rows = await connection.fetch(f"select * from {schema}.profiles")
    assert {
        r["profile"]: (r["create_time"], r["last_activity_time"], r["activity_count"]) for r in rows
    } == wanted.wholes
    assert {r["profile"]: json.loads(r["traits"]) for r in rows} == {
        profile: {name: json.loads(value) for name, value in traits.items()}
        for profile, traits in wanted.traits.items()
    }


def assert_told(reader, wanted):
    """Who read all that was told knows the same."""
    assert {
        atom: f"profiles/{wanted.profile_of[atom]}" for atom in wanted.atoms
    } == reader.profile_of
    assert {
        node: (wanted.values[node][0], f"profiles/{profile}")
        for node, profile in wanted.profile_of.items()
        if profile is not None
    } == reader.nodes
    assert {f"profiles/{profile}" for profile in wanted.wholes} == reader.profiles
    assert {f"profiles/{profile}": whole for profile, whole in wanted.wholes.items()} == (
        reader.wholes
    )
    assert {atom: count for atom, (_, count, _) in wanted.atoms.items()} == {
        atom: len(done) for atom, done in reader.activities.items()
    }
    assert {f"profiles/{p}": traits for p, traits in wanted.traits.items() if traits} == {
        profile: traits for profile, traits in reader.traits.items() if traits
    }


@OF_CROWDS
async def test_any_order_of_a_dense_crowd_gives_the_same_tables(database, crowd):
    rules = crowd.rules
    rng, events = crowd.facts()
    wanted = expected(events, rules)
    async with connected(database) as connection:
        await create(connection, "g0")
        # As where nobody ever heard of what was retracted.
        await apply(connection, still_true(events), "g0", rules)
        await assert_tables(connection, "g0", wanted)
        whole = await digest(connection, "g0")
        for number, largest in enumerate((1_000, 60, 7), start=1):
            schema, reader = f"g{number}", Reader()
            await create(connection, schema)
            for batch in batches(rng, another_order(rng, events), largest):
                reader.read(await apply(connection, batch, schema, rules))
            await assert_tables(connection, schema, wanted)
            assert_told(reader, wanted)
            assert await digest(connection, schema) == whole


@OF_CROWDS
async def test_after_every_batch_the_tables_are_those_of_the_facts_so_far(database, crowd):
    rng, events = crowd.facts()
    ordered = another_order(rng, events)
    reader, arrived = Reader(), []
    async with connected(database) as connection:
        await create(connection, "profiles")
        for batch in batches(rng, ordered, 60):
            arrived += batch
            reader.read(await apply(connection, batch, rules=crowd.rules))
            wanted = expected(arrived, crowd.rules)
            await assert_tables(connection, "profiles", wanted)
            assert_told(reader, wanted)


async def test_a_workspace_does_not_change_another(database):
    rng = random.Random(1)
    ours = DenseHistory(rng, "ours").some(60)
    # The same people, ids and times in another workspace.
    theirs = [
        type(event)(**{**_fields(event), "workspace": "theirs", "event_id": uuid_after(event)})
        for event in ours
    ]
    async with connected(database) as connection:
        await create(connection, "alone")
        await apply(connection, ours, "alone")
        await create(connection, "mixed")
        for batch in batches(rng, [e for pair in zip(ours, theirs, strict=True) for e in pair], 9):
            await apply(connection, batch, "mixed")
        await connection.execute(_drop_workspace("theirs"))

        assert await digest(connection, "mixed") == await digest(connection, "alone")


def _fields(event):
    return event._asdict()


def uuid_after(event):
    """Another id."""
    return type(event.event_id)(int=(event.event_id.int + 1) % 2**128)


def _drop_workspace(workspace):
    tables = (
        "nodes",
        "edges",
        "assertions",
        "atoms",
        "traits",
        "timeline",
        "deal_words",
        "profiles",
        "verdicts",
        "consent_words",
        "consents",
        "flags",
        "erased_nodes",
    )
    return ";".join(f"delete from mixed.{t} where workspace = '{workspace}'" for t in tables)


async def test_a_fact_that_comes_again_tells_nothing(database):
    facts = Facts()
    event = facts.identify(user_id="u", traits={"plan": "gold"})
    async with connected(database) as connection:
        await create(connection, "profiles")
        first = await apply(connection, [event, event])
        again = await apply(connection, [event])

    assert len(first) == 4
    assert again == []
