"""The questions about profiles: each is answered by one statement, so it shows one moment.

What a profile is made of, its identifiers, accounts and the words of its atoms, is read from where
it is. The rules come along, because they say what names mean and in what order identifiers stand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
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
from services.identity.changes import name_of
from services.identity.facts import DEALS
from services.identity.identifiers import account_name
from services.identity.projections import deal_words
from services.identity.projections.profiles import LISTING, is_id, node_named
from services.identity.projections.rules_in_force import WRITTEN_RULES, read_rules, rules_of
from services.identity.rules import CONTACT_ID, DEFAULT, Rules
from services.identity.stakes import computed, stakes
from services.kernel.errors import NotFound
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx

# Who said it is not kept with a trait: the last word is that of an activity in the timeline.
_WHOLE = f"""
select asked.node, p.profile, p.create_time, p.last_activity_time, p.activity_count,
    {WRITTEN_RULES} as rules,
    array(
        select (type, value, node) from profiles.nodes
        where workspace = $1 and profile = p.profile
    ) as identifiers,
    array(
        select account from profiles.memberships
        where workspace = $1 and profile = p.profile and end_time is null
    ) as accounts,
    array(
        select (said.trait, said.value, said.occur_time,
            t.source, t.activity_id, t.resource, t.receive_time)
        from (
            select distinct on (t.trait) n.node, t.trait, t.value, t.occur_time, t.key
            from profiles.nodes n join profiles.traits t using (workspace, node)
            where n.workspace = $1 and n.profile = p.profile
            order by t.trait, t.occur_time desc, t.key desc
        ) said
        join profiles.timeline t on t.workspace = $1 and t.node = said.node
            and t.occur_time = said.occur_time
            and t.activity_id = encode(substr(said.key, 9), 'hex')::uuid
        where said.value is not null
    ) as traits,
    array(
        select (deal, {deal_words.WORD}) from profiles.deal_words
        where workspace = $1 and deal in (
            select w.deal
            from profiles.nodes n join profiles.deal_words w using (workspace, node)
            where n.workspace = $1 and n.profile = p.profile and n.type = '{CONTACT_ID}'
                and w.node <> ''
        )
    ) as deal_words
from {{asked}}
left join profiles.nodes n on n.workspace = $1 and n.node = asked.node
left join profiles.profiles p on p.workspace = $1 and p.profile = n.profile
"""

# Of an array the planner does not know how long it is, so it would plan for one name each time.
_PROFILE = _WHOLE.format(asked="(select $2::text as node) asked")

_PROFILES = _WHOLE.format(asked="unnest($2::text[]) asked (node)")


async def get_profile(pool: Pool, workspace: str, name: str) -> Profile:
    """Returns the profile a name leads to; raises InvalidArgument or NotFound."""
    rules = await _rules_to_read(pool, workspace, [name])
    node = node_named(rules or DEFAULT, workspace, name)
    row: Any = await pool.fetchrow(_PROFILE, workspace, node)
    if _are_others(rules, [row]):
        return await get_profile(pool, workspace, name)
    if row["profile"] is None:
        raise NotFound(name)
    return _profile(row)


async def batch_get_profiles(
    pool: Pool, workspace: str, names: Sequence[str]
) -> BatchGetProfilesResponse:
    """Returns what names lead to, at one moment; raises InvalidArgument."""
    rules = await _rules_to_read(pool, workspace, names)
    nodes = {name: _node_or_none(rules or DEFAULT, workspace, name) for name in names}
    asked = sorted({node for node in nodes.values() if node is not None})
    rows = await pool.fetch(_PROFILES, workspace, asked)
    if _are_others(rules, rows):
        return await batch_get_profiles(pool, workspace, names)
    found = _by_node(rows)
    return BatchGetProfilesResponse(
        profiles=[NamedProfile(name=name, profile=found.get(nodes[name] or "")) for name in names]
    )


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


async def filled(connection: Tx, workspace: str, rows: Sequence[Any]) -> list[Profile]:
    """Returns profiles of which the rows are known, with all that they are made of."""
    ids = [row["profile"] for row in rows]
    # An id is the node of one of its own identifiers, so it leads to its profile as any node does.
    found = _by_node(await connection.fetch(_PROFILES, workspace, ids)) if ids else {}
    return [found[profile] for profile in ids]


def trait(said: Sequence[Any], receive_time: datetime) -> Trait:
    """Returns a trait with who said it, as the API shows it."""
    value, occur_time, source, activity_id, resource = said
    return Trait(
        value=value,
        occur_time=timestamp_of(occur_time),
        source=source,
        activity_id=str(activity_id),
        resource=resource,
        receive_time=timestamp_of(receive_time),
    )


async def _rules_to_read(pool: Pool, workspace: str, names: Iterable[str]) -> Rules | None:
    """Returns the rules that say what names mean; None where all are ids, which need none."""
    if all(is_id(name) for name in names):
        return None
    return await rules_of(pool, workspace)


def _are_others(rules: Rules | None, rows: Sequence[Record]) -> bool:
    """Tells whether rows were made by other rules, published since these were read."""
    return rules is not None and any(read_rules(row["rules"]) != rules for row in rows[:1])


def _node_or_none(rules: Rules, workspace: str, name: str) -> str | None:
    """Returns the node that a name means; None for a value that points to nobody."""
    try:
        return node_named(rules, workspace, name)
    except NotFound:
        return None


def _by_node(rows: Iterable[Record]) -> dict[str, Profile]:
    """Returns the profiles of rows by the nodes that lead to them."""
    return {row["node"]: _profile(row) for row in rows if row["profile"] is not None}


def _profile(row: Record) -> Profile:
    """Returns the profile of a row."""
    rules = read_rules(row["rules"])
    traits = {name: trait(said, received) for name, *said, received in row["traits"]}
    return Profile(
        name=name_of(row["profile"]),
        identifiers=[
            Identifier(type=type_name, value=value)
            for type_name, value, _ in sorted(
                row["identifiers"], key=lambda known: (rules.rank(known[0]), known[1])
            )
        ],
        traits=traits | _of_deals(row),
        create_time=timestamp_of(row["create_time"]),
        last_activity_time=timestamp_of(row["last_activity_time"]),
        activity_count=row["activity_count"],
        accounts=sorted(account_name(account) for account in row["accounts"]),
    )


def _of_deals(row: Record) -> dict[str, Trait]:
    """Returns the traits that deals make of those whose contacts a profile holds."""
    contacts = {node for type_name, _, node in row["identifiers"] if type_name == CONTACT_ID}
    words = defaultdict(list)
    for deal, *said in row["deal_words"]:
        words[deal].append(deal_words.word_in(said))
    owned = [
        stake
        for of_deal in words.values()
        for node, stake in stakes(of_deal).items()
        if node in contacts
    ]
    return {
        name: Trait(
            value=said.value,
            occur_time=timestamp_of(said.occur_time),
            source=DEALS,
            is_computed=True,
        )
        for name, said in computed(owned).items()
        if said.value is not None
    }
