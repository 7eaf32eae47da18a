"""A row per profile, to list and filter by, and the questions about profiles.

Only what a list is filtered by is kept here. What a profile is made of, its identifiers and the
words of its atoms, is read from where it is, so an answer shows one moment: one snapshot.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncpg import Pool, Record

from rapport.identity.v1.service_pb2 import (
    BatchGetProfilesResponse,
    Identifier,
    ListProfilesRequest,
    ListProfilesResponse,
    NamedProfile,
    Profile,
    Trait,
)
from services.identity.changes import Whole, name_of
from services.identity.facts import DEALS
from services.identity.identifiers import account_name, identifier
from services.identity.projections import deal_words
from services.identity.projections.graph_rows import copy
from services.identity.projections.rules_in_force import rules_of
from services.identity.rules import CONTACT_ID, Rules
from services.identity.stakes import Stake, computed
from services.identity.traits import Said
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx, columns
from services.kernel.log.writing import execute_soon

TABLES = """
create table {schema}.profiles (
    workspace text not null,
    profile text collate "C" not null,
    create_time timestamptz not null,
    last_activity_time timestamptz not null,
    activity_count bigint not null,
    traits jsonb not null,
    primary key (workspace, profile)
) with (fillfactor = 70);
"""

_SAVE = """
update {schema}.profiles p set create_time = whole.create_time,
    last_activity_time = whole.last_activity_time, activity_count = whole.activity_count
from unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[])
    whole (workspace, profile, create_time, last_activity_time, activity_count)
where p.workspace = whole.workspace and p.profile = whole.profile
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

_PROFILES_OF_NODES = """
select node, profile from profiles.nodes
where workspace = $1 and node = any($2::text[]) and profile is not null
"""

_SHOWN = "profile, create_time, last_activity_time, activity_count"

_ROWS = f"select {_SHOWN} from profiles.profiles where workspace = $1 and profile = any($2::text[])"

_ROW = f"""
select {_SHOWN} from profiles.profiles
where workspace = $1 and profile = (
    select profile from profiles.nodes where workspace = $1 and node = $2
)
"""

_IDENTIFIERS = """
select profile, type, value, node
from profiles.nodes where workspace = $1 and profile = any($2::text[])
"""

_ACCOUNTS = """
select profile, account from profiles.memberships
where workspace = $1 and profile = any($2::text[]) and end_time is null
"""

# Who said it is not kept with a trait: the last word is that of an activity in the timeline.
_TRAITS = """
select said.profile, said.trait, said.value, said.occur_time,
    t.source, t.activity_id, t.resource, t.receive_time
from (
    select distinct on (n.profile, t.trait)
        n.profile, n.node, t.trait, t.value, t.occur_time, t.key
    from profiles.nodes n join profiles.traits t using (workspace, node)
    where n.workspace = $1 and n.profile = any($2::text[])
    order by n.profile, t.trait, t.occur_time desc, t.key desc
) said
join profiles.timeline t on t.workspace = $1 and t.node = said.node
    and t.occur_time = said.occur_time
    and t.activity_id = encode(substr(said.key, 9), 'hex')::uuid
where said.value is not null
"""

# Asked only where a filter names them.
_LISTED = """(
    select p.*, array(
        select n.type from profiles.nodes n
        where n.workspace = p.workspace and n.profile = p.profile
    ) as identifier_types, array(
        select 'accounts/' || m.account from profiles.memberships m
        where m.workspace = p.workspace and m.profile = p.profile and m.end_time is null
    ) as accounts
    from profiles.profiles p
) as listed"""

LISTING = Listing(
    method="ListProfiles",
    # No positions: the id is never changed, so a walk along it needs none.
    table=Table(_LISTED, key="profile", positions=None),
    columns=_SHOWN,
    fields=Fields(
        {
            "traits": Field("traits", Kind.STRUCT),
            "create_time": Field("create_time", Kind.TIMESTAMP, nullable=False),
            "last_activity_time": Field("last_activity_time", Kind.TIMESTAMP, nullable=False),
            "activity_count": Field("activity_count", Kind.INTEGER, nullable=False),
            "identifier_types": Field("identifier_types", Kind.TEXT_LIST, nullable=False),
            "accounts": Field("accounts", Kind.TEXT_LIST, nullable=False),
        }
    ),
)

_COLLECTION = "profiles/"
_ID = re.compile(r"[0-9a-f]{32}")

ProfilePlace = tuple[str, str]  # workspace, profile


def save_profiles(
    tx: Tx,
    schema: str,
    *,
    wholes: Mapping[ProfilePlace, Whole],
    traits: Mapping[ProfilePlace, Mapping[str, Said]],
    new: Collection[ProfilePlace],
    gone: Sequence[ProfilePlace],
) -> None:
    """Saves what profiles are as wholes, and the traits of those that changed."""
    added, kept = [], []
    for place, whole in wholes.items():
        if place in new:
            added.append((*place, *whole, traits_json(traits.get(place, {}))))
        else:
            kept.append((*place, *whole))
    copy(tx, schema, "profiles", added)
    if kept:
        execute_soon(tx, _SAVE.format(schema=schema), *columns(sorted(kept)))
    texts = [(*place, traits_json(said)) for place, said in traits.items() if place not in new]
    if texts:
        execute_soon(tx, _SAVE_TRAITS.format(schema=schema), *columns(sorted(texts)))
    if gone:
        execute_soon(tx, _DROP.format(schema=schema), *columns(sorted(gone)))


async def find_profile_id(pool: Pool, workspace: str, name: str) -> str:
    """Returns the id of the profile that a name leads to, for ever: by id or by identifier.

    An id is the hash of an identifier, so one that was absorbed still leads to a node, and that
    to its profile. Raises InvalidArgument or NotFound.
    """
    node = node_named(await rules_of(pool, workspace), workspace, name)
    profile: str | None = await pool.fetchval(_PROFILE_OF_NODE, workspace, node)
    if profile is None:
        raise NotFound(name)
    return profile


async def get_profile(pool: Pool, workspace: str, name: str) -> Profile:
    """Returns the profile a name leads to; raises InvalidArgument or NotFound."""
    async with one_moment(pool) as connection:
        rules = await rules_of(connection, workspace)
        rows = await connection.fetch(_ROW, workspace, node_named(rules, workspace, name))
        if not rows:
            raise NotFound(name)
        return (await filled(connection, workspace, rows, rules))[0]


async def batch_get_profiles(
    pool: Pool, workspace: str, names: Sequence[str]
) -> BatchGetProfilesResponse:
    """Returns what names lead to, at one moment; raises InvalidArgument."""
    rules = await rules_of(pool, workspace)
    nodes = {name: _node_or_none(rules, workspace, name) for name in names}
    asked = sorted({node for node in nodes.values() if node is not None})
    async with one_moment(pool) as connection:
        found = await leads_to(connection, workspace, asked)
        rows = await connection.fetch(_ROWS, workspace, sorted(set(found.values())))
        whole = await filled(connection, workspace, rows)
    by_id = {row["profile"]: profile for row, profile in zip(rows, whole, strict=True)}
    return BatchGetProfilesResponse(
        profiles=[
            NamedProfile(name=name, profile=by_id.get(found.get(nodes[name] or "", "")))
            for name in names
        ]
    )


async def leads_to(connection: Tx, workspace: str, nodes: Sequence[str]) -> dict[str, str]:
    """Returns the profiles of those among some nodes that are of any."""
    rows = await connection.fetch(_PROFILES_OF_NODES, workspace, nodes)
    return {row["node"]: row["profile"] for row in rows}


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
    async with one_moment(pool) as connection:
        page = query.page(await connection.fetch(query.sql, *query.args))
        found = await filled(connection, workspace, page.rows)
    return ListProfilesResponse(profiles=found, next_page_token=page.next_page_token)


def node_named(rules: Rules, workspace: str, name: str) -> str:
    """Returns the node that a name means."""
    named = name.removeprefix(_COLLECTION)
    if named == name:
        raise InvalidArgument.of("name", "begins with profiles/")
    if is_id(name):
        return named
    type_name, _, value = named.partition(":")
    if rules.named(type_name) is None or not value:
        known = rules.names()
        raise InvalidArgument.of("name", f"is profiles/ID or profiles/TYPE:VALUE, types: {known}")
    found = identifier(rules, workspace, type_name, value)
    if found is None:
        raise NotFound(name)
    return found.node


def is_id(name: str) -> bool:
    """Tells whether a name is by id, and not by identifier."""
    return _ID.fullmatch(name.removeprefix(_COLLECTION)) is not None


def _node_or_none(rules: Rules, workspace: str, name: str) -> str | None:
    """Returns the node that a name means; None for a value that points to nobody."""
    try:
        return node_named(rules, workspace, name)
    except NotFound:
        return None


async def filled(
    connection: Tx, workspace: str, rows: Sequence[Any], rules: Rules | None = None
) -> list[Profile]:
    """Returns profiles with their identifiers and traits."""
    rules = rules or await rules_of(connection, workspace)
    ids = [row["profile"] for row in rows]
    identifiers: dict[str, list[Identifier]] = defaultdict(list)
    contacts: dict[str, str] = {}
    for profile, type_name, value, node in await connection.fetch(_IDENTIFIERS, workspace, ids):
        identifiers[profile].append(Identifier(type=type_name, value=value))
        if type_name == CONTACT_ID:
            contacts[node] = profile
    accounts: dict[str, list[str]] = defaultdict(list)
    for profile, account in await connection.fetch(_ACCOUNTS, workspace, ids):
        accounts[profile].append(account_name(account))
    traits: dict[str, dict[str, Trait]] = defaultdict(dict)
    for row in await connection.fetch(_TRAITS, workspace, ids):
        traits[row["profile"]][row["trait"]] = trait(row, row["receive_time"])
    for profile, made in (await _of_deals(connection, workspace, contacts)).items():
        traits[profile] |= made
    return [
        Profile(
            name=name_of(row["profile"]),
            identifiers=sorted(
                identifiers[row["profile"]],
                key=lambda known: (rules.rank(known.type), known.value),
            ),
            traits=traits[row["profile"]],
            create_time=timestamp_of(row["create_time"]),
            last_activity_time=timestamp_of(row["last_activity_time"]),
            activity_count=row["activity_count"],
            accounts=sorted(accounts[row["profile"]]),
        )
        for row in rows
    ]


def trait(row: Record, receive_time: datetime) -> Trait:
    """Returns a trait with who said it, as the API shows it."""
    return Trait(
        value=row["value"],
        occur_time=timestamp_of(row["occur_time"]),
        source=row["source"],
        activity_id=str(row["activity_id"]),
        resource=row["resource"],
        receive_time=timestamp_of(receive_time),
    )


async def _of_deals(
    connection: Tx, workspace: str, contacts: Mapping[str, str]
) -> dict[str, dict[str, Trait]]:
    """Returns the traits that deals make, by profile; `contacts` are the profiles of contacts."""
    places = [(workspace, node) for node in contacts]
    _, stakes = await deal_words.load_stakes(connection, "profiles", places)
    owned: dict[str, list[Stake]] = defaultdict(list)
    for node, profile in contacts.items():
        owned[profile] += stakes.get(node, ())
    return {
        profile: {
            name: Trait(
                value=said.value,
                occur_time=timestamp_of(said.occur_time),
                source=DEALS,
                is_computed=True,
            )
            for name, said in computed(found).items()
            if said.value is not None
        }
        for profile, found in owned.items()
    }


def traits_json(traits: Mapping[str, Said]) -> str:
    """Returns the values as one JSON object; they are JSON already."""
    members = (
        f"{json.dumps(name, ensure_ascii=False)}:{said.value}"
        for name, said in traits.items()
        if said.value is not None
    )
    return "{" + ",".join(members) + "}"
