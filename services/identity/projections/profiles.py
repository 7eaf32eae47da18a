"""A row per profile, to list and filter by, and which profile a name leads to.

Only what a list is filtered by is kept here; what a profile is made of is read from where it is
(`profile_answers.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from asyncpg import Pool

from services.identity.changes import Whole
from services.identity.identifiers import identifier
from services.identity.projections.rules_in_force import rules_of
from services.identity.rules import Rules
from services.identity.traits import Said, quoted
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing, Table
from services.kernel.log.sql import Tx
from services.kernel.log.writing import add_rows_soon, change_rows_soon

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

_SHOWN = "profile, create_time, last_activity_time, activity_count"

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
    add_rows_soon(tx, schema, "profiles", added)
    change_rows_soon(tx, _SAVE.format(schema=schema), kept)
    texts = [(*place, traits_json(said)) for place, said in traits.items() if place not in new]
    change_rows_soon(tx, _SAVE_TRAITS.format(schema=schema), texts)
    change_rows_soon(tx, _DROP.format(schema=schema), gone)


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


def traits_json(traits: Mapping[str, Said]) -> str:
    """Returns the values as one JSON object; they are JSON already."""
    members = (
        f"{quoted(name)}:{said.value}" for name, said in traits.items() if said.value is not None
    )
    return "{" + ",".join(members) + "}"
