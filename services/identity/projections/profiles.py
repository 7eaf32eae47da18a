"""A row per profile, to list and filter by, and the questions about profiles.

Only what a list is filtered by is kept here. What a profile is made of, its identifiers and the
words of its atoms, is read from where it is, so an answer shows one moment: one snapshot.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from asyncpg import Pool

from rapport.identity.v1.service_pb2 import (
    Identifier,
    ListProfilesRequest,
    ListProfilesResponse,
    Profile,
    Trait,
)
from services.identity.changes import name_of
from services.identity.identifiers import CONTACT_ID, TYPES, identifier
from services.identity.projections import deal_words
from services.identity.stakes import Stake, computed
from services.identity.traits import Said, later
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.profiles (
    workspace text not null,
    profile text collate "C" not null,
    create_time timestamptz not null,
    last_activity_time timestamptz not null,
    traits jsonb not null,
    primary key (workspace, profile)
) with (fillfactor = 70);
"""

_SAVE = """
insert into {schema}.profiles (workspace, profile, create_time, last_activity_time, traits)
select *, '{{}}'::jsonb from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
on conflict (workspace, profile) do update set
    create_time = excluded.create_time, last_activity_time = excluded.last_activity_time
"""

_SAVE_TRAITS = """
update {schema}.profiles p set traits = said.traits
from unnest($1::text[], $2::text[], $3::jsonb[]) said (workspace, profile, traits)
where p.workspace = said.workspace and p.profile = said.profile
"""

_DROP = """
delete from {schema}.profiles p
using unnest($1::text[], $2::text[]) gone (workspace, profile)
where p.workspace = gone.workspace and p.profile = gone.profile
"""

_PROFILE_OF_NODE = "select profile from profiles.nodes where workspace = $1 and node = $2"

_ROW = """
select profile, create_time, last_activity_time from profiles.profiles
where workspace = $1 and profile = $2
"""

_IDENTIFIERS = """
select profile, type, value, node
from profiles.nodes where workspace = $1 and profile = any($2::text[])
"""

_TRAITS = """
select n.profile, t.trait, t.value, t.occur_time, t.key
from profiles.nodes n join profiles.traits t using (workspace, node)
where n.workspace = $1 and n.profile = any($2::text[])
"""

LISTING = Listing(
    method="ListProfiles",
    # No positions: the id is never changed, so a walk along it needs none.
    table=Table("profiles.profiles", key="profile", positions=None),
    columns="profile, create_time, last_activity_time",
    fields=Fields(
        {
            "traits": Field("traits", Kind.STRUCT),
            "create_time": Field("create_time", Kind.TIMESTAMP, nullable=False),
            "last_activity_time": Field("last_activity_time", Kind.TIMESTAMP, nullable=False),
        }
    ),
)

_COLLECTION = "profiles/"
_ID = re.compile(r"[0-9a-f]{32}")

ProfilePlace = tuple[str, str]  # workspace, profile


async def save_profiles(
    tx: Tx,
    schema: str,
    *,
    times: Mapping[ProfilePlace, tuple[datetime, datetime]],
    traits: Mapping[ProfilePlace, Mapping[str, Said]],
    gone: Sequence[ProfilePlace],
) -> None:
    """Saves when profiles began and were last active, and the traits of those that changed."""
    if times:
        rows = [(*place, *both) for place, both in sorted(times.items())]
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    if traits:
        texts = [(*place, _json(traits[place])) for place in sorted(traits)]
        await tx.execute(_SAVE_TRAITS.format(schema=schema), *columns(texts))
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(sorted(gone)))


async def find_profile_id(pool: Pool, workspace: str, name: str) -> str:
    """Returns the id of the profile that a name leads to, for ever: by id or by identifier.

    An id is the hash of an identifier, so one that was absorbed still leads to a node, and that
    to its profile. Raises InvalidArgument or NotFound.
    """
    profile: str | None = await pool.fetchval(
        _PROFILE_OF_NODE, workspace, node_named(workspace, name)
    )
    if profile is None:
        raise NotFound(name)
    return profile


async def get_profile(pool: Pool, workspace: str, name: str) -> Profile:
    """Returns the profile a name leads to; raises InvalidArgument or NotFound."""
    profile = await find_profile_id(pool, workspace, name)
    async with snapshot(pool) as connection:
        row = await connection.fetchrow(_ROW, workspace, profile)
        if row is not None:
            return (await _filled(connection, workspace, [row]))[0]
    # It was absorbed in between, which is as rare as it sounds.
    return await get_profile(pool, workspace, name)


async def list_profiles(
    pool: Pool, workspace: str, request: ListProfilesRequest
) -> ListProfilesResponse:
    """Returns a page of profiles, by id."""
    query = LISTING.query(
        workspace=workspace,
        filter=request.filter,
        page_size=request.page_size,
        page_token=request.page_token,
    )
    async with snapshot(pool) as connection:
        page = query.page(await connection.fetch(query.sql, *query.args))
        found = await _filled(connection, workspace, page.rows)
    return ListProfilesResponse(profiles=found, next_page_token=page.next_page_token)


def node_named(workspace: str, name: str) -> str:
    """Returns the node that a name means."""
    named = name.removeprefix(_COLLECTION)
    if named == name:
        raise InvalidArgument.of("name", "begins with profiles/")
    if _ID.fullmatch(named):
        return named
    type_name, _, value = named.partition(":")
    if type_name not in TYPES or not value:
        known = ", ".join(TYPES)
        raise InvalidArgument.of("name", f"is profiles/ID or profiles/TYPE:VALUE, types: {known}")
    found = identifier(workspace, type_name, value)
    if found is None:
        raise NotFound(name)
    return found.node


@asynccontextmanager
async def snapshot(pool: Pool) -> AsyncIterator[Tx]:
    """A transaction that sees one moment."""
    async with (
        pool.acquire() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        yield connection


async def _filled(connection: Tx, workspace: str, rows: Sequence[Any]) -> list[Profile]:
    """Returns profiles with their identifiers and traits."""
    ids = [row["profile"] for row in rows]
    identifiers: dict[str, list[Identifier]] = defaultdict(list)
    contacts: dict[str, str] = {}
    for profile, type_name, value, node in await connection.fetch(_IDENTIFIERS, workspace, ids):
        identifiers[profile].append(Identifier(type=type_name, value=value))
        if type_name == CONTACT_ID:
            contacts[node] = profile
    traits: dict[str, dict[str, Said]] = defaultdict(dict)
    for profile, name, *said in await connection.fetch(_TRAITS, workspace, ids):
        traits[profile][name] = later(traits[profile].get(name), Said(*said))
    for profile, made in (await _of_deals(connection, workspace, contacts)).items():
        traits[profile] |= made
    return [
        Profile(
            name=name_of(row["profile"]),
            identifiers=sorted(
                identifiers[row["profile"]],
                key=lambda known: (TYPES[known.type].rank, known.value),
            ),
            traits={
                name: Trait(value=said.value, occur_time=timestamp_of(said.occur_time))
                for name, said in traits[row["profile"]].items()
                if said.value is not None
            },
            create_time=timestamp_of(row["create_time"]),
            last_activity_time=timestamp_of(row["last_activity_time"]),
        )
        for row in rows
    ]


async def _of_deals(
    connection: Tx, workspace: str, contacts: Mapping[str, str]
) -> dict[str, dict[str, Said]]:
    """Returns the traits that deals make, by profile; `contacts` are the profiles of contacts."""
    places = [(workspace, node) for node in contacts]
    _, stakes = await deal_words.load_stakes(connection, "profiles", places)
    owned: dict[str, list[Stake]] = defaultdict(list)
    for node, profile in contacts.items():
        owned[profile] += stakes.get(node, ())
    return {profile: computed(found) for profile, found in owned.items()}


def _json(traits: Mapping[str, Said]) -> str:
    """Returns the values as one JSON object; they are JSON already."""
    members = (
        f"{json.dumps(name, ensure_ascii=False)}:{said.value}"
        for name, said in traits.items()
        if said.value is not None
    )
    return "{" + ",".join(members) + "}"
