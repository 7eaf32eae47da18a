"""What profiles and timelines are asked: by names, by filters, in pages, and who said it."""

from dataclasses import replace

import pytest

from services.identity.deciders.rule_set import PUBLISHED
from services.identity.projections import batch_get_profiles, get_profile
from services.identity.rule_sets import written_as
from services.identity.rules import DEFAULT
from services.kernel.errors import InvalidArgument, NotFound
from tests.identity_world import Facts, at

_PUBLISH = f"""
insert into rule_sets.rule_sets
values ('acme', 'r1', '', $1, {PUBLISHED}, '', '', 1, 0, 1, 1, now(), now())
"""


@pytest.fixture
def facts():
    return Facts()


async def test_profiles_are_listed_by_what_is_known_of_them(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"plan": "gold", "age": 30}),
        facts.identify(user_id="u2", traits={"plan": "gold"}),
        facts.identify(user_id="u3", traits={"plan": "free", "age": 40}),
        facts.track(user_id="u2", received=60),
    )

    async def users(filter_text):
        page = await people.listed(filter=filter_text)
        return {known.value for profile in page.profiles for known in profile.identifiers}

    assert await users('traits.plan = "gold"') == {"u1", "u2"}
    assert await users("traits.age > 35") == {"u3"}
    assert await users('last_activity_time > "2026-01-01T00:30:00Z"') == {"u2"}
    assert await users('create_time < "2026-01-01T00:01:00Z"') == {"u1"}
    assert await users("activity_count > 1") == {"u2"}
    assert await users("") == {"u1", "u2", "u3"}


async def test_pages_of_profiles_hold_each_once(people, facts):
    await people.happens(*(facts.track(user_id=f"u{number}") for number in range(7)))

    names, token = [], ""
    while True:
        page = await people.listed(page_size=3, page_token=token)
        names += [profile.name for profile in page.profiles]
        token = page.next_page_token
        if not token:
            break

    assert len(names) == len(set(names)) == 7
    assert names == sorted(names)


async def test_pages_of_a_timeline_hold_each_activity_once_newest_first_across_a_merge(
    people, facts
):
    await people.happens(
        *(facts.track(f"a{minute}", anonymous_id="a1", occurred=minute) for minute in (1, 3, 5)),
        *(facts.track(f"u{minute}", user_id="u1", occurred=minute) for minute in (2, 4, 5)),
        facts.identify(user_id="u1", anonymous_id="a1", occurred=6),
    )

    first = await people.timeline("user_id:u1", page_size=3)
    # The profile gets another id in the middle of the walk.
    await people.happens(facts.track("late", user_id="u1", received=0, occurred=0))
    second = await people.timeline("user_id:u1", page_size=10, page_token=first.next_page_token)

    names = [entry.activity for entry in (*first.entries, *second.entries)]
    assert names[0] == "Person Identified"
    assert set(names[1:3]) == {"a5", "u5"}
    assert names[3:] == ["u4", "a3", "u2", "a1", "late"]
    assert not second.next_page_token


async def test_an_entry_of_the_timeline_says_where_it_comes_from(people, facts):
    event = facts.track("Order Completed", user_id="u1", properties={"total": 12})
    await people.happens(event)

    [entry] = (await people.timeline("user_id:u1")).entries

    assert entry.activity_id == str(event.event_id)
    assert entry.resource == f"customerEvents/{event.event.customer_event.message_id}"
    assert entry.details == '{"total": 12}'


async def test_profiles_are_listed_by_the_types_of_what_leads_to_them(people, facts):
    await people.happens(
        facts.track(anonymous_id="a1"),
        facts.track(user_id="u1", anonymous_id="a2"),
        facts.identify(user_id="u2", traits={"email": "u2@x.com"}),
    )

    async def found(filter_text):
        page = await people.listed(filter=filter_text)
        return {known.value for profile in page.profiles for known in profile.identifiers}

    assert await found("identifier_types:user_id") == {"u1", "a2", "u2", "u2@x.com"}
    assert await found("NOT identifier_types:user_id") == {"a1"}
    assert await found("identifier_types:user_id AND identifier_types:anonymous_id") == {"u1", "a2"}


async def test_profiles_are_got_in_the_order_of_their_names_and_nobody_is_no_failure(people, facts):
    await people.happens(
        facts.identify(user_id="u1", traits={"email": "u1@x.com"}), facts.track(user_id="u2")
    )
    first, second = await people.profile("user_id:u1"), await people.profile("user_id:u2")

    found = await people.profiles(
        "user_id:u2", "email:U1@x.com", "user_id:u3", "user_id:guest", "user_id:u1", "0" * 32
    )

    assert found == [second, first, None, None, first, None]
    with pytest.raises(InvalidArgument, match="begins with profiles/"):
        await batch_get_profiles(people.pool, "acme", ["profiles/user_id:u1", "somebody"])


class RulesInBetween:
    """A pool whose workspace gets rules by which ids are numbers, after those were asked for."""

    def __init__(self, pool):
        self._pool = pool
        self._is_published = False

    async def fetch(self, statement, *args):
        found = await self._pool.fetch(statement, *args)
        if not self._is_published:
            self._is_published = True
            types = (replace(known, is_numeric=True) for known in DEFAULT.types)
            rules = written_as(replace(DEFAULT, types=tuple(types)))
            await self._pool.execute(_PUBLISH, rules.SerializeToString())
        return found

    async def fetchrow(self, statement, *args):
        return await self._pool.fetchrow(statement, *args)


async def test_a_name_means_what_the_rules_say_that_its_profile_is_shown_by(people, facts):
    await people.happens(facts.track(user_id="17850"))
    known = await people.profile("user_id:17850")
    name = "profiles/user_id:17850.0"
    with pytest.raises(NotFound):
        await get_profile(people.pool, "acme", name)

    assert await get_profile(RulesInBetween(people.pool), "acme", name) == known


async def test_several_names_mean_what_the_rules_say_that_their_profiles_are_shown_by(
    people, facts
):
    await people.happens(facts.track(user_id="17850"))
    known = await people.profile("user_id:17850")

    found = await batch_get_profiles(
        RulesInBetween(people.pool), "acme", ["profiles/user_id:17850.0", "profiles/user_id:guest"]
    )

    assert [each.profile for each in found.profiles if each.HasField("profile")] == [known]


async def test_a_name_without_a_profile_is_nobody_one_by_one_and_among_others(people, facts):
    await people.happens(facts.identify(user_id="u1", traits={"email": "info@x.com"}))
    await people.happens(
        *(facts.track(user_id=user, properties={"email": "info@x.com"}) for user in ("u2", "u3"))
    )

    # What is shared is a node without a profile: no fact belongs to it.
    assert await people.profiles("email:info@x.com") == [None]
    assert await people.profiles() == []
    with pytest.raises(NotFound):
        await people.profile("email:info@x.com")


async def test_a_trait_says_who_said_it_last_by_its_own_time(people, facts):
    early = facts.identify(
        user_id="u1", traits={"plan": "free"}, source="sources/web", occurred=5, received=20
    )
    late = facts.identify(user_id="u1", traits={"plan": "gold"}, occurred=7, received=10)
    await people.happens(late, early)

    said = (await people.profile("user_id:u1")).traits["plan"]

    assert (said.value, said.source) == ('"gold"', "events")
    assert said.activity_id == str(late.event_id)
    assert said.resource == f"customerEvents/{late.event.customer_event.message_id}"
    assert said.receive_time.ToDatetime(tzinfo=at(0).tzinfo) == at(10)
    assert not said.is_computed


async def test_what_a_trait_says_of_its_source_follows_merges_cuts_and_retractions(people, facts):
    taken = facts.imported("identify", user_id="u1", traits={"city": "Rome"}, occurred=9)
    await people.happens(
        facts.identify(user_id="u1", traits={"city": "Bonn"}, source="sources/web", occurred=1),
        facts.contact_created("ada", custom_fields={"city": "Oslo"}, occurred=5),
        taken,
    )

    async def source_of(name):
        return (await people.profile(name)).traits["city"].source

    assert await source_of("contact_id:ada") == "contacts"
    assert await source_of("user_id:u1") == "events"
    await people.happens(facts.linked(("contact_id", "ada"), ("user_id", "u1")))
    assert await source_of("contact_id:ada") == "events"
    await people.happens(facts.retracted(taken))
    assert await source_of("user_id:u1") == "contacts"
    await people.happens(facts.cut(("contact_id", "ada"), ("user_id", "u1")))
    assert await source_of("user_id:u1") == "sources/web"


async def test_a_trait_that_deals_make_says_that_it_is_computed(people, facts):
    await people.happens(facts.contact_created("ada"), facts.deal_opened("d1", "ada"))

    said = (await people.profile("contact_id:ada")).traits["open_deal_count"]

    assert (said.value, said.source, said.is_computed) == ("1", "deals", True)
    assert not said.activity_id


async def test_a_timeline_is_filtered_by_kind_activity_source_and_time(people, facts):
    await people.happens(
        facts.track("Viewed", user_id="u1", source="sources/web", occurred=1),
        facts.track("Ordered", user_id="u1", source="sources/shop", occurred=2),
        facts.sent("group", user_id="u1", group_id="acme", occurred=3),
        facts.track("Viewed", user_id="u1", source="sources/shop", occurred=4),
        facts.contact_created("ada", occurred=5),
        facts.linked(("contact_id", "ada"), ("user_id", "u1")),
    )

    async def found(filter_text):
        return await people.activities("user_id:u1", filter=filter_text)

    assert await found('kind = "TIMELINE_KIND_CONTACT"') == ["Contact Created"]
    assert await found("kind = TIMELINE_KIND_MEMBERSHIP") == ["Group Joined"]
    assert await found('activity = "Viewed"') == ["Viewed", "Viewed"]
    assert await found('source = "sources/shop"') == ["Viewed", "Ordered"]
    assert await found("view") == ["Viewed", "Viewed"]
    assert await found(
        'occur_time >= "2026-01-01T00:02:00Z" AND occur_time < "2026-01-01T00:05:00Z"'
    ) == ["Viewed", "Group Joined", "Ordered"]
    with pytest.raises(InvalidArgument, match="there is no field details"):
        await found('details = "x"')


async def test_pages_of_a_filtered_timeline_hold_each_once_and_a_token_knows_its_filter(
    people, facts
):
    await people.happens(
        *(facts.track(("Seen", "Bought")[n % 2], user_id="u1", occurred=n) for n in range(6))
    )

    first = await people.timeline("user_id:u1", page_size=2, filter="activity = Seen")
    token = first.next_page_token
    second = await people.timeline("user_id:u1", filter="activity=Seen", page_token=token)

    entries = [*first.entries, *second.entries]
    assert [entry.activity for entry in entries] == ["Seen", "Seen", "Seen"]
    assert len({entry.activity_id for entry in entries}) == 3
    with pytest.raises(InvalidArgument):
        await people.timeline("user_id:u1", filter="activity = Bought", page_token=token)
