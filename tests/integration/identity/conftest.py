"""The view on its own: facts happen to it, and it is asked who somebody is."""

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import pytest

from rapport.identity.v1.accounts_pb2 import ListAccountsRequest, ListMembershipsRequest
from rapport.identity.v1.service_pb2 import ListProfilesRequest, ListTimelineRequest
from services.identity.projections import (
    batch_get_profiles,
    find_profile_id,
    get_profile,
    list_profiles,
    list_timeline,
)
from services.identity.projections.account_answers import (
    get_account,
    list_accounts,
    list_memberships,
)
from services.kernel.process.runtime import open_pool
from tests.identity_world import START, apply, create


def pytest_addoption(parser):
    parser.addoption("--crowds", type=int, default=1, help="how many crowds test_fuzz.py makes")
    parser.addoption("--first-crowd", type=int, default=1_000, help="the seed of the first of them")


@dataclass
class People:
    """Profiles of the workspace `acme`."""

    pool: Any

    async def happens(self, *events):
        """Applies each event as a batch of its own; returns the events that identity tells."""
        return [told for event in events for told in await self.happens_at_once(event)]

    async def happens_at_once(self, *events):
        """Applies events as one batch; returns the events that identity tells."""
        async with self.pool.acquire() as connection:
            return [change.event for change in await apply(connection, events)]

    async def profile(self, name, workspace="acme"):
        return await get_profile(self.pool, workspace, f"profiles/{name}")

    async def profiles(self, *names):
        """What several names lead to, by each."""
        asked = [f"profiles/{name}" for name in names]
        found = (await batch_get_profiles(self.pool, "acme", asked)).profiles
        assert asked == [each.name for each in found]
        return [each.profile if each.HasField("profile") else None for each in found]

    async def identifiers(self, name):
        """What leads to a profile, e.g. {"user_id:u1"}."""
        found = await self.profile(name)
        return {f"{known.type}:{known.value}" for known in found.identifiers}

    async def traits(self, name):
        found = await self.profile(name)
        return {trait: said.value for trait, said in found.traits.items()}

    async def activities(self, name, **request):
        """The names of what a person did, newest first."""
        profile = await find_profile_id(self.pool, "acme", f"profiles/{name}")
        asked = ListTimelineRequest(name=f"profiles/{name}", **request)
        page = await list_timeline(self.pool, "acme", profile, asked)
        return [entry.activity for entry in page.entries]

    async def timeline(self, name, **request):
        profile = await find_profile_id(self.pool, "acme", f"profiles/{name}")
        asked = ListTimelineRequest(name=f"profiles/{name}", **request)
        return await list_timeline(self.pool, "acme", profile, asked)

    async def account(self, name):
        return await get_account(self.pool, "acme", f"accounts/{name}")

    async def accounts(self, **request):
        """The groups' ids of the accounts that are listed."""
        page = await list_accounts(self.pool, "acme", ListAccountsRequest(**request))
        return {account.group_id for account in page.accounts}

    async def memberships(self, parent, **request):
        asked = ListMembershipsRequest(parent=parent, **request)
        return await list_memberships(self.pool, "acme", asked)

    async def times(self, parent, **request):
        """From which minute to which each membership goes, the latest first."""
        page = await self.memberships(parent, **request)
        return [
            (_minute(found.start_time), _minute(found.end_time) if found.end_activity_id else None)
            for found in page.memberships
        ]

    async def listed(self, workspace="acme", **request):
        return await list_profiles(self.pool, workspace, ListProfilesRequest(**request))


def _minute(moment):
    return (moment.ToDatetime(tzinfo=UTC) - START) // timedelta(minutes=1)


@pytest.fixture
async def people(database):
    async with open_pool(database) as pool:
        async with pool.acquire() as connection:
            await create(connection, "profiles")
        yield People(pool)
