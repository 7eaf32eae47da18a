"""Accounts and who is in them, told as stories."""

import pytest

from services.kernel.errors import InvalidArgument, NotFound
from tests.identity_world import Facts, at

ACME = "group_id:acme"


@pytest.fixture
def facts():
    return Facts()


@pytest.fixture
def joined(facts):
    """Somebody joins acme."""

    def joins(user_id="u1", **fields):
        return facts.sent("group", user_id=user_id, group_id="acme", **fields)

    return joins


@pytest.fixture
def left(facts):
    """Somebody leaves acme."""

    def leaves(user_id="u1", **fields):
        return facts.sent("group", user_id=user_id, group_id="acme", ends_membership=True, **fields)

    return leaves


async def test_an_account_is_what_was_said_of_it_last_by_whom_and_when(people, facts, joined):
    late = joined(traits={"plan": "gold"}, source="sources/app", occurred=7, received=3)
    early = facts.sent("account", group_id="acme", traits={"plan": "free", "seats": 5}, occurred=5)
    await people.happens(late, early)

    account = await people.account(ACME)

    assert account.group_id == "acme"
    assert {name: said.value for name, said in account.traits.items()} == {
        "plan": '"gold"',
        "seats": "5",
    }
    assert account.traits["plan"].source == "sources/app"
    assert account.traits["plan"].activity_id == str(late.event_id)
    assert account.traits["plan"].receive_time.ToDatetime(tzinfo=at(0).tzinfo) == at(3)
    assert account.traits["seats"].source == "events"
    assert account == await people.account(account.name.removeprefix("accounts/"))


async def test_who_joined_is_in_the_account_until_they_left_whenever_that_is_told(
    people, joined, left
):
    await people.happens(left(occurred=8), joined(occurred=2), joined(occurred=4))

    assert await people.times("profiles/user_id:u1") == [(2, 8)]

    await people.happens(left(occurred=3))

    assert await people.times(f"accounts/{ACME}") == [(4, 8), (2, 3)]
    assert await people.times(f"accounts/{ACME}", filter="NOT end_time:*") == []
    assert await people.times(f"accounts/{ACME}", filter="end_time:*") == [(4, 8), (2, 3)]


async def test_a_membership_names_account_profile_and_the_facts_that_began_and_ended_it(
    people, joined, left
):
    began, ended = joined(occurred=1), left(occurred=2)
    await people.happens(began, ended)

    [found] = (await people.memberships("profiles/user_id:u1")).memberships

    assert found.account == (await people.account(ACME)).name
    assert found.group_id == "acme"
    assert found.profile == (await people.profile("user_id:u1")).name
    assert found.start_activity_id == str(began.event_id)
    assert found.end_activity_id == str(ended.event_id)


async def test_memberships_go_with_merges_and_come_back_with_cuts(people, facts, joined, left):
    browser = facts.sent("group", anonymous_id="a1", group_id="acme", occurred=1)
    await people.happens(browser, left(occurred=5))
    assert await people.times("profiles/anonymous_id:a1") == [(1, None)]
    assert await people.times("profiles/user_id:u1") == []

    pair = ("user_id", "u1"), ("anonymous_id", "a1")
    told = await people.happens(facts.linked(*pair))

    assert await people.times("profiles/user_id:u1") == [(1, 5)]
    assert await people.times(f"accounts/{ACME}") == [(1, 5)]
    [change] = told[-1].changes
    assert [period.HasField("end_time") for period in change.periods] == [True]

    await people.happens(facts.cut(*pair))

    assert await people.times("profiles/anonymous_id:a1") == [(1, None)]
    assert await people.times("profiles/user_id:u1") == []


async def test_what_an_import_said_of_an_account_is_taken_back_with_it(people, facts):
    told = facts.imported(
        "group", user_id="u1", group_id="acme", traits={"plan": "gold"}, occurred=5
    )
    alone = facts.imported("account", group_id="globex", traits={"plan": "free"})
    await people.happens(
        facts.sent("account", group_id="acme", traits={"plan": "free"}, occurred=0), told, alone
    )
    assert (await people.account(ACME)).traits["plan"].value == '"gold"'

    await people.happens(facts.retracted(told), facts.retracted(alone))

    assert (await people.account(ACME)).traits["plan"].value == '"free"'
    assert await people.times(f"accounts/{ACME}") == []
    with pytest.raises(NotFound):
        await people.account("group_id:globex")


async def test_a_fact_that_comes_again_says_nothing_twice(people, joined):
    event = joined(traits={"plan": "gold"})
    await people.happens(event)

    assert await people.happens(event) == []


async def test_accounts_are_listed_by_their_traits_and_profiles_by_their_accounts(
    people, facts, joined, left
):
    await people.happens(
        joined("u1", traits={"plan": "gold"}),
        joined("u2"),
        joined("u3", occurred=1),
        left("u3", occurred=2),
        facts.sent("account", group_id="globex", traits={"plan": "free"}),
    )

    assert await people.accounts() == {"acme", "globex"}
    assert await people.accounts(filter='traits.plan = "gold"') == {"acme"}
    assert await people.accounts(filter='group_id = "glo*"') == {"globex"}
    name = (await people.account(ACME)).name
    assert (await people.profile("user_id:u1")).accounts == [name]
    assert (await people.profile("user_id:u3")).accounts == []
    page = await people.listed(filter=f'accounts:"{name}"')
    assert {known.value for found in page.profiles for known in found.identifiers} == {"u1", "u2"}


async def test_pages_of_memberships_hold_each_once_the_latest_first(people, joined):
    await people.happens(*(joined(f"u{n}", occurred=n // 2) for n in range(7)))

    found, token = [], ""
    while True:
        page = await people.memberships(f"accounts/{ACME}", page_size=3, page_token=token)
        found += page.memberships
        token = page.next_page_token
        if not token:
            break

    starts = [each.start_time.seconds for each in found]
    assert starts == sorted(starts, reverse=True)
    assert len({each.profile for each in found}) == len(found) == 7


async def test_what_was_done_in_an_account_is_found_in_the_timeline_by_it(people, facts, joined):
    await people.happens(
        joined(),
        facts.track("Viewed", user_id="u1", context={"groupId": "acme"}),
        facts.track("Viewed", user_id="u1", context={"groupId": "globex"}),
        facts.track("Ordered", user_id="u1"),
    )
    name = (await people.account(ACME)).name

    assert await people.activities("user_id:u1", filter=f'account = "{name}"') == [
        "Viewed",
        "Group Joined",
    ]
    assert await people.activities("user_id:u1", filter="NOT account:*") == ["Ordered"]
    assert await people.times("profiles/user_id:u1") == [(0, None)]


async def test_a_workspace_sees_its_own_accounts_only(people, joined):
    await people.happens(
        joined(), Facts("globex", seed=1).sent("group", user_id="u1", group_id="other")
    )

    assert await people.accounts() == {"acme"}
    with pytest.raises(NotFound):
        await people.account("group_id:other")


@pytest.mark.parametrize("name", ["acme", "colour:red", "group_id:"])
async def test_a_name_that_is_none_is_refused(people, name):
    with pytest.raises(InvalidArgument, match="is accounts/ID or accounts/group_id:VALUE"):
        await people.account(name)
    with pytest.raises(InvalidArgument, match="begins with accounts/ or profiles/"):
        await people.memberships("somebody")


@pytest.mark.parametrize("name", ["group_id:null", "group_id:acme", "0" * 32])
async def test_an_account_that_nobody_spoke_of_is_not_found(people, name):
    with pytest.raises(NotFound):
        await people.account(name)
    with pytest.raises(NotFound):
        await people.memberships(f"accounts/{name}")
