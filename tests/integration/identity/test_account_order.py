"""Accounts and memberships follow from the set of facts, with whom profiles turn out to be."""

import json
import random
from collections import defaultdict

import pytest

from rapport.identity.v1 import events_pb2
from services.identity.projections import ProfilesView, account_differences
from services.identity.projections.account_differences import AccountDifference
from services.kernel.log.log import Origin
from services.kernel.views.view import digest
from tests.accounts_reference import expected_accounts
from tests.accounts_world import AccountHistory
from tests.identity_histories import another_order
from tests.identity_reference import expected, still_true
from tests.identity_world import apply, batches, connected, create
from tests.integration.identity.test_bulk import build

WORKSPACES = 15
FACTS = 40
# A seed, and how much of its histories takes facts back, is verdicts, and erases people; others
# are 18.
CROWDS = ((0, 0, 3, 0), (1, 12, 12, 4))


class Reader:
    """Folds what identity tells of accounts and memberships, as others do."""

    def __init__(self):
        self.profiles = set()
        self.traits = defaultdict(dict)
        self.memberships = {}

    def read(self, changes):
        for change in changes:
            match change.event:
                case events_pb2.ProfileCreated():
                    self.profiles.add(change.event.profile)
                case events_pb2.ProfilesMerged():
                    self._end(change.event.absorbed)
                case events_pb2.ProfileRemoved():
                    self._end(change.event.profile)
                case events_pb2.AccountTraitsChanged():
                    assert change.stream == f"account-{change.event.account.partition('/')[2]}"
                    self._say(self.traits[change.event.account], change.event.changes)
                case events_pb2.ProfileMembershipsChanged():
                    self._move(change.event)

    def _say(self, known, changes):
        for said in changes:
            if said.value:
                known[said.trait] = said.value
            else:
                del known[said.trait]

    def _move(self, event):
        assert event.profile in self.profiles
        for change in event.changes:
            told = [_times(period) for period in change.periods]
            assert self.memberships.pop((event.profile, change.account), None) != told
            if told:
                self.memberships[event.profile, change.account] = told

    def _end(self, profile):
        self.profiles.remove(profile)
        self.memberships = {
            pair: told for pair, told in self.memberships.items() if pair[0] != profile
        }


def _times(period):
    end = period.end_time.ToMicroseconds() if period.HasField("end_time") else None
    return period.start_time.ToMicroseconds(), end


def _microseconds(moment):
    return None if moment is None else round(moment.timestamp() * 1_000_000)


def crowd(seed, retracting, judging, erasing=0):
    """Dense histories, each in a workspace of its own."""
    rng = random.Random(seed)
    return rng, [
        event
        for n in range(WORKSPACES)
        for event in AccountHistory(rng, f"w{n}").some(
            FACTS, retracting=retracting, judging=judging, erasing=erasing
        )
    ]


async def assert_tables(connection, schema, wanted):
    """The tables hold exactly what is wanted."""
    rows = await connection.fetch(f"select * from {schema}.accounts")
    assert {r["account"]: (r["create_time"], r["words"]) for r in rows} == wanted.accounts
    assert {r["account"]: json.loads(r["traits"]) for r in rows} == {
        account: {name: json.loads(value) for name, value in traits.items()}
        for account, traits in wanted.traits.items()
    }
    found = defaultdict(list)
    for r in await connection.fetch(
        f"select * from {schema}.memberships order by start_time, start_key"
    ):
        period = r["start_key"], r["start_time"], r["end_key"], r["end_time"]
        found[r["profile"], r["account"]].append(period)
    assert found == wanted.memberships


def assert_told(reader, wanted):
    """Who read all that was told knows the same."""
    assert {account: traits for account, traits in reader.traits.items() if traits} == {
        f"accounts/{account}": traits for account, traits in wanted.traits.items() if traits
    }
    assert reader.memberships == {
        (f"profiles/{profile}", f"accounts/{account}"): [
            (_microseconds(start), _microseconds(end)) for _, start, _, end in periods
        ]
        for (profile, account), periods in wanted.memberships.items()
    }


@pytest.mark.parametrize("mixture", CROWDS)
async def test_any_order_and_batching_gives_the_same_accounts_and_memberships(database, mixture):
    rng, events = crowd(*mixture)
    wanted = expected_accounts(events, expected(events).profile_of)
    async with connected(database) as connection:
        await create(connection, "g0")
        # As where nobody ever heard of what was retracted.
        await apply(connection, still_true(events), "g0")
        await assert_tables(connection, "g0", wanted)
        whole = await digest(connection, "g0")
        for number, largest in enumerate((1_000, 7), start=1):
            schema, reader = f"g{number}", Reader()
            await create(connection, schema)
            for batch in batches(rng, another_order(rng, events), largest):
                reader.read(await apply(connection, batch, schema))
            await assert_tables(connection, schema, wanted)
            assert_told(reader, wanted)
            assert await digest(connection, schema) == whole


async def test_after_every_batch_accounts_and_memberships_are_those_of_the_facts_so_far(database):
    rng, events = crowd(2, 12, 12)
    reader, arrived = Reader(), []
    async with connected(database) as connection:
        await create(connection, "profiles")
        for batch in batches(rng, another_order(rng, events), 80):
            arrived += batch
            reader.read(await apply(connection, batch))
            wanted = expected_accounts(arrived, expected(arrived).profile_of)
            await assert_tables(connection, "profiles", wanted)
            assert_told(reader, wanted)


async def told(connection, schema, events, rng):
    """Applies events to a schema in batches; returns who read what that told."""
    reader = Reader()
    await create(connection, schema)
    for batch in batches(rng, events, 200):
        reader.read(await apply(connection, batch, schema))
    return reader


@pytest.mark.parametrize("knows", [True, False], ids=["of this shape", "of an older one"])
async def test_the_difference_of_two_generations_leads_from_any_accounts_to_any_others(
    database, monkeypatch, knows
):
    monkeypatch.setattr(account_differences, "ROWS_PER_FETCH", 7)
    monkeypatch.setattr(account_differences, "PROFILES_PER_FETCH", 3)
    same = "built", "built", lambda workspace: Origin(workspace, "", "", "")
    rng, events = crowd(4, 12, 12)
    before = [event for event in events if rng.random() < 0.7]
    after = [event for event in events if rng.random() < 0.7]
    async with connected(database) as connection:
        reader = await told(connection, "live", before, rng)
        await told(connection, "built", after, rng)
        if not knows:
            await connection.execute("drop table live.memberships, live.account_traits")
            reader.memberships, reader.traits = {}, defaultdict(dict)
        async with connection.transaction():
            async for part in ProfilesView().changes_between(connection, "live", "built"):
                reader.read(part)
            none = [change async for change in AccountDifference(connection, *same).changes()]

    assert_told(reader, expected_accounts(after, expected(after).profile_of))
    assert none == []


async def test_all_at_once_is_row_for_row_what_it_is_batch_by_batch(database):
    rng, events = crowd(5, 6, 6)
    async with connected(database) as connection:
        await told(connection, "folded", events, rng)
        await build(connection, events, rng=rng)

        assert await digest(connection, "bulk") == await digest(connection, "folded")
