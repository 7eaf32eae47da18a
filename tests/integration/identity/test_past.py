"""A profile as of a moment is what was answered at that moment, whatever became known since."""

import random
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from rapport.identity.v1.service_pb2 import ListProfilesRequest
from services.identity.__main__ import SERVICE
from services.identity.projections import get_profile, list_profiles
from services.identity.projections.history import HistoryView
from services.identity.projections.past import get_profile_at
from services.kernel.clock import FixedClock
from services.kernel.errors import DeadlineExceeded, NotFound
from services.kernel.log.database import transaction
from services.kernel.log.log import read_all, read_heads
from services.kernel.process.runtime import make_kernel, open_pool, prepare_database
from services.kernel.views import as_of, freshness
from services.kernel.views.projection import fold
from services.kernel.views.view import digest
from tests.identity_histories import DenseHistory, another_order
from tests.identity_world import Facts, at, batches

BEGINNING = at(1_000)


@dataclass
class Ages:
    """Identity with its log, as time goes by."""

    pool: Any
    kernel: Any
    clock: FixedClock
    read: int = field(default=0)

    async def happens(self, *events):
        """Applies events as one batch, a minute later; returns when they were recorded."""
        self.clock.advance(timedelta(minutes=1))
        async with transaction(self.pool) as tx:
            await fold(tx, self.kernel.log, SERVICE.consumers[0], events)
        return self.clock.now()

    async def remember(self, rng, largest, schema="history"):
        """Folds what the log has into the view of the past, in batches of random sizes."""
        types = SERVICE.consumers[1].event_types
        head = (await read_heads(self.pool))[0]
        events = [
            types.decode(envelope)
            async for batch in read_all(self.pool, 0, after=self.read, until=head)
            for envelope in batch
        ]
        for batch in batches(rng, events, largest):
            async with transaction(self.pool) as tx:
                await HistoryView().apply(tx, schema, batch)
        if schema == "history":
            self.read = head

    async def live(self):
        """All profiles as they are answered now."""
        return (
            await list_profiles(self.pool, "acme", ListProfilesRequest(page_size=1000))
        ).profiles

    async def live_one(self, name):
        return await get_profile(self.pool, "acme", f"profiles/{name}")

    async def at(self, moment, name):
        return await get_profile_at(self.pool, "acme", f"profiles/{name}", moment)


@pytest.fixture
async def ages(database):
    clock = FixedClock(BEGINNING)
    async with open_pool(database) as pool:
        await prepare_database(pool, SERVICE, 1, clock)
        yield Ages(pool, make_kernel(pool, SERVICE, 1, clock, secret=bytes(32)), clock)


def told(profile):
    """What a moment that is past says of a profile: of traits their values."""
    traits = {name: said.value for name, said in profile.traits.items()}
    times = profile.create_time, profile.last_activity_time, profile.activity_count
    return profile.name, traits, list(profile.accounts), *times


def named(profile):
    return [(known.type, known.value) for known in profile.identifiers]


async def facts_of_an_age(ages, rng, **kinds):
    """Random facts happen in random batches; returns what was answered at which moment."""
    was = {}
    history = DenseHistory(rng, "acme").some(70, **kinds)
    for batch in batches(rng, another_order(rng, history), 8):
        moment = await ages.happens(*batch)
        was[moment] = await ages.live()
    return was


@pytest.mark.parametrize(("seed", "retracting", "judging"), [(1, 0, 3), (2, 6, 3)])
async def test_a_moment_is_answered_as_it_was_then(ages, seed, retracting, judging):
    rng = random.Random(seed)
    was = await facts_of_an_age(ages, rng, retracting=retracting, judging=judging)
    await ages.remember(rng, 5)

    for moment, profiles in was.items():
        for profile in profiles:
            by_id = await ages.at(moment, profile.name.removeprefix("profiles/"))
            assert by_id == await ages.at(moment, ":".join(rng.choice(named(profile))))
            assert told(profile) == told(by_id)
            # What was retracted since is nobody's to tell, so only its type is left.
            gone = {known for known in named(by_id) if retracting and not known[1]}
            assert set(named(by_id)) - gone <= set(named(profile))
            assert sorted(name for name, _ in named(profile)) == sorted(
                name for name, _ in named(by_id)
            )


async def test_the_past_is_the_same_however_the_log_is_cut(ages):
    rng = random.Random(3)
    await facts_of_an_age(ages, rng, retracting=6, judging=3)
    async with ages.pool.acquire() as connection:
        await connection.execute("create schema again")
        await connection.execute(HistoryView().tables("again"))
        await ages.remember(rng, 1_000, "again")
        await ages.remember(rng, 4)

        assert await digest(connection, "again") == await digest(connection, "history")


async def test_a_name_leads_to_whom_it_led_then(ages):
    facts = Facts()
    browser, user = "anonymous_id:a1", "user_id:u1"
    apart = await ages.happens(facts.track(anonymous_id="a1"), facts.track(user_id="u1"))
    absorbed = (await ages.live_one(user)).name
    merged = await ages.happens(facts.track(user_id="u1", anonymous_id="a1"))
    cut = await ages.happens(facts.cut(("user_id", "u1"), ("anonymous_id", "a1")))
    await ages.remember(random.Random(1), 3)

    by_id = absorbed.removeprefix("profiles/")
    survivor = (await ages.at(apart, browser)).name
    assert [absorbed, survivor, absorbed] == [
        (await ages.at(moment, by_id)).name for moment in (apart, merged, cut)
    ]
    assert [1, 3, 2] == [
        (await ages.at(moment, user)).activity_count for moment in (apart, merged, cut)
    ]
    with pytest.raises(NotFound):
        await ages.at(apart - timedelta(minutes=1), user)


async def test_an_address_that_a_contact_had_then_is_told(ages):
    facts = Facts()
    then = await ages.happens(facts.contact_created("c1", email="old@x.com", phone="+49 30 1234"))
    await ages.happens(facts.contact_email_changed("c1", "new@x.com"))
    await ages.happens(facts.contact_archived("c1"))
    await ages.remember(random.Random(1), 3)

    found = await ages.at(then, "email:old@x.com")
    assert [("contact_id", "c1"), ("email", "old@x.com"), ("phone", "+49301234")] == named(found)
    assert {"email": '"old@x.com"', "phone": '"+49 30 1234"'} == told(found)[1]


async def test_of_what_was_retracted_no_value_is_left_and_everything_else_is(ages):
    facts = Facts()
    wrong = facts.imported("identify", user_id="u1", traits={"email": "wrong@x.com", "age": 7})
    await ages.happens(facts.track(user_id="u1"))
    then = await ages.happens(wrong)
    now = await ages.happens(facts.retracted(wrong))
    await ages.remember(random.Random(1), 3)

    assert [("user_id", "u1"), ("email", "")] == named(await ages.at(then, "user_id:u1"))
    assert await ages.at(then, "email:wrong@x.com") == await ages.at(then, "user_id:u1")
    assert [2, 1] == [(await ages.at(m, "user_id:u1")).activity_count for m in (then, now)]
    assert [("user_id", "u1")] == named(await ages.at(now, "user_id:u1"))
    with pytest.raises(NotFound):
        await ages.at(now, "email:wrong@x.com")


async def test_a_workspace_has_a_past_of_its_own(ages):
    theirs = await ages.happens(Facts("theirs").track(user_id="u1"))
    await ages.remember(random.Random(1), 3)

    with pytest.raises(NotFound):
        await ages.at(theirs, "user_id:u1")


async def test_a_moment_that_the_view_has_not_reached_is_waited_for(ages, monkeypatch):
    monkeypatch.setattr(freshness, "WAIT_DEFAULT_S", 0.05)
    behind = await ages.happens(Facts().track(user_id="u1"))

    def read_up_to(moment):
        kernel = ages.kernel
        return as_of.read_up_to(kernel.pool, kernel.freshness, "identity", "history", moment)

    await read_up_to(behind - timedelta(seconds=1))
    with pytest.raises(DeadlineExceeded):
        await read_up_to(behind)
    with pytest.raises(DeadlineExceeded):
        await read_up_to(None)


async def test_the_accounts_are_those_of_then(ages):
    facts = Facts()
    joined = await ages.happens(facts.sent("group", user_id="u1", group_id="acme"))
    merged = await ages.happens(
        facts.sent("group", anonymous_id="a1", group_id="beta"),
        facts.track(user_id="u1", anonymous_id="a1"),
    )
    left = await ages.happens(
        facts.sent("group", user_id="u1", group_id="acme", ends_membership=True)
    )
    live = await ages.live_one("user_id:u1")
    await ages.remember(random.Random(1), 2)

    was = [(await ages.at(moment, "user_id:u1")).accounts for moment in (joined, merged, left)]
    assert [1, 2, 1] == [len(accounts) for accounts in was]
    assert sorted([*was[0], *was[2]]) == sorted(was[1])
    assert list(live.accounts) == list(was[2])
