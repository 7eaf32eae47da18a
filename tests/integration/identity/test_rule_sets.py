"""Other rules are tried beside those in force, and only the difference is told when they change."""

import random
from dataclasses import replace
from datetime import timedelta

import pytest

from rapport.identity.v1.rule_sets_pb2 import ProfileShiftKind, RuleSetState
from services.identity.__main__ import FACTS, SERVICE
from services.identity.projections import ProfilesView
from services.identity.projections.purposes import PurposesView
from services.identity.projections.rule_builds import claim, forget_build, schema_of
from services.identity.rules import ANONYMOUS_ID, DEFAULT, EMAIL, USER_ID
from services.identity.upkeep import rule_building, rule_switching
from services.identity.upkeep.rule_switching import RuleSetUpkeep
from services.kernel.errors import FailedPrecondition, NotFound
from services.kernel.log.database import transaction
from services.kernel.views.checkpoint import FencedError
from services.kernel.views.rebuild import Rebuild
from services.kernel.views.view import add_generation, digest
from tests.accounts_world import AccountHistory
from tests.consents_world import purposes_of
from tests.identity_histories import another_order
from tests.identity_whole import Reader, assert_tables, assert_told, follows
from tests.identity_world import Facts, apply, batches, create
from tests.mortal import Killed, mortal_transaction
from tests.rule_sets_world import RuleWorld

OURS = "w1"
MIXED = {"retracting": 4, "judging": 4, "flagging": 3, "erasing": 3, "consenting": 3}


def with_type(name, rules=DEFAULT, **changes):
    """Rules that say something else of a type."""
    types = (replace(each, **changes) if each.name == name else each for each in rules.types)
    return replace(rules, types=tuple(types))


STRICTER = replace(
    with_type(EMAIL, with_type(USER_ID, limit=2), limit=1, blocked_values=frozenset({"e1@x.com"})),
    nodes_max=5,
)
LOOSER = with_type(EMAIL, with_type(USER_ID, limit=3), limit=None)
OF_THE_WORLD = replace(
    with_type(ANONYMOUS_ID, with_type(EMAIL, limit=1, window=timedelta(minutes=9)), hub_over=None),
    default_region="US",
)


@pytest.fixture
async def world(database_of):
    async with RuleWorld.open(await database_of(SERVICE)) as opened:
        yield opened


def by_rules(rules):
    """The rules of all workspaces when some are in force in ours."""
    return {OURS: rules, "w2": DEFAULT}


async def fresh(world, events, rules):
    """The digests of tables of all facts, folded at once."""
    async with world.kernel.pool.acquire() as connection:
        await connection.execute("drop schema if exists wanted cascade")
        await create(connection, "wanted")
        await apply(connection, events, "wanted", rules)
        return await digest(connection, "wanted")


async def live(world):
    async with world.kernel.pool.acquire() as connection:
        return await digest(connection, "profiles")


async def test_what_is_told_leads_from_rules_to_rules_and_back_and_the_rows_are_the_same(world):
    rng = random.Random(1)
    events = [
        *AccountHistory(rng, OURS).some(150, **MIXED),
        *AccountHistory(rng, "w2").some(40, **MIXED),
    ]
    async with world.kernel.pool.acquire() as connection:
        await PurposesView().apply(connection, "purposes", purposes_of(events))
    events = another_order(rng, events, repeated=0)
    for batch in batches(rng, events[:-40], 60):
        await world.record(*batch)
    reader, read, before = Reader(), 0, await live(world)
    for number, rules in enumerate((STRICTER, LOOSER, OF_THE_WORLD, DEFAULT)):
        await world.draft(f"rules-{number}", rules, OURS)
        published = await world.publish(f"ruleSets/rules-{number}", OURS)
        facts, told = await world.facts(), await world.told()
        reader.read(told[read:])
        read = len(told)

        assert published.state == RuleSetState.RULE_SET_STATE_PUBLISHED
        assert_told(reader, follows(facts, by_rules(rules)))
        assert await live(world) == await fresh(world, facts, by_rules(rules))
    assert await live(world) == before
    await world.publish("ruleSets/rules-0", OURS)
    await world.record(*events[-40:])
    reader.read((await world.told())[read:])
    wanted = follows(await world.facts(), by_rules(STRICTER))
    assert_told(reader, wanted)
    async with world.kernel.pool.acquire() as connection:
        await assert_tables(connection, "profiles", wanted)


async def test_a_rebuild_follows_the_rules_in_force(world):
    facts = Facts()
    await world.record(facts.identify(user_id="u1", anonymous_id="a", traits={"email": "a@x.com"}))
    await world.record(facts.identify(user_id="u2", anonymous_id="a", traits={"email": "b@x.com"}))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.publish("ruleSets/two-users")
    consumer = SERVICE.consumers[0]
    kernel = world.kernel
    readers = {name: source.read for name, source in kernel.sources.items()}
    rebuild = Rebuild.of_consumer(kernel.pool, kernel.log, consumer, readers)
    async for _ in rebuild.build():
        pass

    assert (await rebuild.compare()).equal
    assert await kernel.pool.fetchval("select count(*) from profiles.profiles") == 1


async def test_a_preview_shows_what_would_be_other_and_changes_nothing(world):
    facts = Facts()
    for user in ("u1", "u2"):
        await world.record(facts.identify(user_id=user, anonymous_id="a"))
    before = await live(world)
    told = len(await world.told())
    await world.draft("two-users", with_type(USER_ID, limit=2))

    shown = await world.preview("ruleSets/two-users")

    assert shown.state == RuleSetState.RULE_SET_STATE_PREVIEWED
    assert (shown.shift.profile_count_before, shown.shift.profile_count_after) == (2, 1)
    assert (shown.shift.merged_count, shown.shift.moved_count) == (1, 1)
    [example] = shown.examples
    assert example.kind == ProfileShiftKind.PROFILE_SHIFT_KIND_MERGED
    assert {known.value for known in example.identifiers} <= {"u1", "u2", "a"}
    assert {known.value for known in example.other_identifiers} == {"u1", "u2", "a"}
    assert await live(world) == before
    names = {event.event.DESCRIPTOR.name for event in (await world.told())[told:]}
    assert names == {"RuleSetDrafted", "RuleSetPreviewRequested", "RuleSetPreviewed"}


async def test_what_arrives_between_preview_and_publishing_is_in_the_new_profiles(world):
    facts = Facts()
    await world.record(facts.identify(user_id="u1", anonymous_id="a"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.preview("ruleSets/two-users")
    await world.record(facts.identify(user_id="u2", anonymous_id="a"))

    await world.ask("PublishRuleSet", name="ruleSets/two-users")
    await world.work()

    assert await world.kernel.pool.fetchval("select count(*) from profiles.profiles") == 1


async def test_publishing_waits_for_a_rebuild_that_goes_on(world):
    await world.record(Facts().identify(user_id="u1"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.preview("ruleSets/two-users")
    async with transaction(world.kernel.pool) as tx:
        await add_generation(tx, ProfilesView(), world.kernel.clock)
    await world.ask("PublishRuleSet", name="ruleSets/two-users")
    await world.work()

    waiting = await world.ask("GetRuleSet", name="ruleSets/two-users")
    assert waiting.state == RuleSetState.RULE_SET_STATE_PUBLISHING
    assert waiting.progress.waits_for == "the view profiles is being rebuilt"


async def test_a_discarded_rule_set_leaves_nothing_and_is_never_in_force(world):
    await world.record(Facts().identify(user_id="u1"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    with pytest.raises(FailedPrecondition):
        await world.ask("PublishRuleSet", name="ruleSets/two-users")
    await world.preview("ruleSets/two-users")
    await world.ask("DiscardRuleSet", name="ruleSets/two-users")
    await world.work()

    built = "select count(*) from pg_namespace where nspname like 'profiles_by_rules_%'"
    assert await world.kernel.pool.fetchval(built) == 0
    with pytest.raises(FailedPrecondition):
        await world.ask("PreviewRuleSet", name="ruleSets/two-users")
    in_force = await world.ask("GetRuleSet", name="ruleSets/inForce")
    assert {known.name for known in in_force.rules.types} == set(DEFAULT.by_name)
    with pytest.raises(NotFound):
        await world.ask("GetRuleSet", workspace="other", name="ruleSets/two-users")


async def test_what_people_decided_holds_under_any_rules(world):
    facts = Facts()
    for user in ("u1", "u2"):
        await world.record(facts.identify(user_id=user, anonymous_id="a"))
    await world.cut("u1", "u2")
    await world.draft("two-users", with_type(USER_ID, limit=2))

    shown = await world.publish("ruleSets/two-users")

    assert shown.shift.merged_count == 0
    assert await world.kernel.pool.fetchval("select count(*) from profiles.profiles") == 2


async def test_more_events_than_fit_into_memory_are_folded(world, monkeypatch):
    facts = Facts()
    for user, browser in (("u1", "a"), ("u2", "a"), ("u3", "b")):
        await world.record(facts.identify(user_id=user, anonymous_id=browser))
    monkeypatch.setattr(rule_building, "EVENTS_AT_ONCE_MAX", 1)
    await world.draft("two-users", with_type(USER_ID, limit=2))

    shown = await world.preview("ruleSets/two-users")

    assert (shown.shift.profile_count_before, shown.shift.profile_count_after) == (3, 2)


async def test_what_is_built_can_be_dropped_at_any_time_and_is_built_anew(world):
    facts = Facts()
    for user in ("u1", "u2"):
        await world.record(facts.identify(user_id=user, anonymous_id="a"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.preview("ruleSets/two-users")
    async with transaction(world.kernel.pool) as tx:
        await forget_build(tx, "acme")

    assert list((await world.ask("GetRuleSet", name="ruleSets/two-users")).examples) == []
    await world.ask("PublishRuleSet", name="ruleSets/two-users")
    await world.work()
    assert await world.kernel.pool.fetchval("select count(*) from profiles.profiles") == 1


async def test_what_was_built_beside_another_generation_is_not_put_into_force_but_built_anew(world):
    facts = Facts()
    for user in ("u1", "u2"):
        await world.record(facts.identify(user_id=user, anonymous_id="a"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.preview("ruleSets/two-users")
    pool = world.kernel.pool
    # As code before a swap may have made it.
    await pool.execute(f"update {schema_of('acme')}.profiles set activity_count = 99")
    await pool.execute("update kernel.generations set generation = 2 where view = 'profiles'")

    await world.ask("PublishRuleSet", name="ruleSets/two-users")
    await world.work()

    assert await pool.fetchval("select activity_count from profiles.profiles") == 2


async def test_who_is_at_it_while_it_is_dropped_keeps_nothing_of_it(world, monkeypatch):
    await world.record(Facts().identify(user_id="u1"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.ask("PreviewRuleSet", name="ruleSets/two-users")
    pool = world.kernel.pool
    claimed = await claim(pool, "acme", "two-users", "a worker", 60)
    builder = rule_building.Builder(world.kernel, FACTS, claimed, DEFAULT)
    read = rule_building.Builder._read

    async def lose_and_read(self, *place):
        async with transaction(pool) as tx:
            await forget_build(tx, "acme")
        return await read(self, *place)

    monkeypatch.setattr(rule_building.Builder, "_read", lose_and_read)
    with pytest.raises(FencedError):
        await builder.level()

    built = "select count(*) from pg_namespace where nspname like 'profiles_by_rules_%'"
    assert await pool.fetchval(built) == 0


async def test_a_rule_set_that_always_fails_is_given_up_with_its_reason(world, monkeypatch):
    async def fail(*_):
        raise ValueError("no such rule")

    monkeypatch.setattr(rule_building.Builder, "level", fail)
    monkeypatch.setattr(rule_switching, "TROUBLE_PAUSE_S", 0.0)
    await world.draft("broken", STRICTER)
    await world.ask("PreviewRuleSet", name="ruleSets/broken")
    for _ in range(rule_switching.FAILURES_MAX):
        with pytest.raises(ValueError, match="no such rule"):
            await world.work()

    found = await world.ask("GetRuleSet", name="ruleSets/broken")
    assert (found.state, found.failure) == (
        RuleSetState.RULE_SET_STATE_FAILED,
        "ValueError: no such rule",
    )
    await world.work()


async def test_a_crash_at_any_statement_of_a_switch_leaves_old_or_new(world, monkeypatch):
    facts, life = Facts(), {"left": 0}
    await world.record(facts.identify(user_id="u1", anonymous_id="a"))
    await world.record(facts.identify(user_id="u2", anonymous_id="a"))
    await world.draft("two-users", with_type(USER_ID, limit=2))
    await world.preview("ruleSets/two-users")
    await world.ask("PublishRuleSet", name="ruleSets/two-users")
    before, told = await live(world), len(await world.told())

    crashes = 0
    while True:
        with monkeypatch.context() as patch:
            patch.setattr(rule_building, "transaction", mortal_transaction(life))
            life["left"] = crashes
            try:
                await RuleSetUpkeep(world.kernel, FACTS).step("a worker")
                break
            except Killed:
                crashes += 1
        assert await live(world) == before
        assert len(await world.told()) == told

    assert crashes > 40
    assert await world.kernel.pool.fetchval("select count(*) from profiles.profiles") == 1
    names = [event.event.DESCRIPTOR.name for event in (await world.told())[told:]]
    assert names.count("ProfilesMerged") == 1
    assert names[-1] == "RuleSetPublished"
