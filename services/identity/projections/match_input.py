"""What match runs read of the view `profiles`: rows to compare, and how profiles stand by now.

It is read a page at a time, by id: a profile that comes or goes meanwhile is in the next run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

from asyncpg import Pool

from services.identity.deciders.match_suggestion import OPEN
from services.identity.match_rows import TRAITS, Row, compared_of
from services.identity.match_standing import (
    Anchored,
    ProfilePair,
    Standing,
    anchor_of,
    pair_of,
)
from services.identity.projections.profiles import LISTING
from services.identity.rules import Rules
from services.identity.traits import Said, later
from services.identity.verdicts import Kind as VerdictKind
from services.kernel.lists.filter import Field, Fields, Kind
from services.kernel.lists.paging import Listing

ROWS_PER_PAGE = 1_000
# Pairs that a rule refused: what is past it may still be found by what they tell.
REFUSED_PAIRS_MAX = 100_000

# No trait: a run is told in the log, where no value is to be.
_PROFILES = Listing(
    method="StartMatchRun",
    table=LISTING.table,
    columns="profile",
    fields=Fields(
        {
            "create_time": Field("create_time", Kind.TIMESTAMP, nullable=False),
            "last_activity_time": Field("last_activity_time", Kind.TIMESTAMP, nullable=False),
        }
    ),
)

_IDENTIFIERS = """
select profile, type, value from profiles.nodes
where workspace = $1 and profile = any($2::text[]) and type in ('email', 'phone')
"""

_TRAITS = """
select n.profile, t.trait, t.value, t.occur_time, t.key
from profiles.nodes n join profiles.traits t using (workspace, node)
where n.workspace = $1 and n.profile = any($2::text[]) and t.trait = any($3::text[])
"""

_REFUSED = """
select distinct least(weak.profile, strong.profile) as one,
       greatest(weak.profile, strong.profile) as other
from profiles.edges e
join profiles.nodes weak on weak.workspace = e.workspace and weak.node = e.weak
join profiles.nodes strong on strong.workspace = e.workspace and strong.node = e.strong
where e.workspace = $1 and e.is_rejected and weak.profile <> strong.profile
    and not (weak.is_hub or strong.is_hub)
order by one, other limit $2
"""

_MEMBERS = """
select asked.name, named.profile, member.type, member.node
from unnest($2::text[]) asked (name)
join profiles.nodes named on named.workspace = $1 and named.node = asked.name
join profiles.nodes member on member.workspace = $1 and member.profile = named.profile
"""

_CUTS = f"""
select distinct weak.profile as one, strong.profile as other
from profiles.verdicts v
join profiles.nodes weak on weak.workspace = v.workspace and weak.node = v.weak
join profiles.nodes strong on strong.workspace = v.workspace and strong.node = v.strong
where v.workspace = $1 and v.kind = {int(VerdictKind.CUT)}
    and weak.profile is not null and strong.profile is not null
"""

_OPEN = f"""
select s.suggestion_id, s.one_type, s.one_node, s.other_type, s.other_node,
       one.profile as one_profile, other.profile as other_profile
from match_suggestions.suggestions s
left join profiles.nodes one on one.workspace = s.workspace and one.node = s.one_node
left join profiles.nodes other on other.workspace = s.workspace and other.node = s.other_node
where s.workspace = $1 and s.state = {OPEN}
order by s.suggestion_id
"""


def check_filter(text: str) -> None:
    """Raises InvalidFilter for what no profiles can be chosen by."""
    _PROFILES.fields.filter(text)


async def read_rows(pool: Pool, workspace: str, text: str) -> AsyncIterator[list[Row]]:
    """Reads the profiles that a filter chooses and that tell something to compare."""
    named = await _named(pool, workspace)
    token = ""
    while True:
        query = _PROFILES.query(
            workspace=workspace, filter=text, page_size=ROWS_PER_PAGE, page_token=token
        )
        page = query.page(await pool.fetch(query.sql, *query.args))
        yield await _rows(pool, workspace, [row["profile"] for row in page.rows], named)
        token = page.next_page_token
        if not token:
            return


async def load_anchored(
    pool: Pool, rules: Rules, workspace: str, names: Iterable[str]
) -> dict[str, Anchored]:
    """Returns what profiles lead to now, by what they were called; some to none."""
    found: dict[str, Anchored] = {}
    asked = sorted(set(names))
    for start in range(0, len(asked), ROWS_PER_PAGE):
        part = asked[start : start + ROWS_PER_PAGE]
        members: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        for name, profile, type_name, node in await pool.fetch(_MEMBERS, workspace, part):
            members[name, profile].append((type_name, node))
        for (name, profile), identifiers in members.items():
            found[name] = Anchored(profile, anchor_of(rules, identifiers))
    return found


async def load_cuts(pool: Pool, workspace: str) -> set[ProfilePair]:
    """Returns the profiles of whom somebody said that they are two persons."""
    return {pair_of(*row) for row in await pool.fetch(_CUTS, workspace)}


async def load_open(pool: Pool, workspace: str, cuts: set[ProfilePair]) -> list[Standing]:
    """Returns the suggestions that wait for somebody to decide."""
    return [
        Standing(
            suggestion_id=row["suggestion_id"],
            one=(row["one_type"], row["one_node"]),
            other=(row["other_type"], row["other_node"]),
            one_profile=row["one_profile"],
            other_profile=row["other_profile"],
            is_cut=pair_of(row["one_profile"] or "", row["other_profile"] or "") in cuts,
        )
        for row in await pool.fetch(_OPEN, workspace)
    ]


async def _named(pool: Pool, workspace: str) -> Mapping[str, Sequence[str]]:
    """The pairs that are compared in any case, by each of the two profiles.

    Those are what facts saw together and a rule refused, and what is suggested: only who was
    compared once more can be found unlikely.
    """
    refused = await pool.fetch(_REFUSED, workspace, REFUSED_PAIRS_MAX)
    pairs = {pair_of(*row) for row in refused}
    pairs |= {standing.pair for standing in await load_open(pool, workspace, set())}
    found: dict[str, list[str]] = defaultdict(list)
    for one, other in sorted(pairs):
        if one and one != other:
            found[one].append(f"{one}|{other}")
            found[other].append(f"{one}|{other}")
    return found


async def _rows(
    pool: Pool, workspace: str, profiles: Sequence[str], named: Mapping[str, Sequence[str]]
) -> list[Row]:
    identifiers: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for profile, type_name, value in await pool.fetch(_IDENTIFIERS, workspace, profiles):
        identifiers[profile].append((type_name, value))
    said: dict[str, dict[str, Said]] = defaultdict(dict)
    for profile, name, *told in await pool.fetch(_TRAITS, workspace, profiles, list(TRAITS)):
        said[profile][name] = later(said[profile].get(name), Said(*told))
    rows = []
    for profile in profiles:
        traits = {
            name: told.value for name, told in said[profile].items() if told.value is not None
        }
        compared = compared_of(identifiers[profile], traits)
        if compared is not None:
            rows.append(Row(profile, compared, tuple(named.get(profile, ()))))
    return rows
