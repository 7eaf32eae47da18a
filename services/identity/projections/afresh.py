"""What is left of profiles and accounts, told anew: as if they had come to be by it just now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from services.identity.accounts import account_traits_changes, membership_changes
from services.identity.changes import Change, Done, created, recounted, renamed, trait_changes
from services.identity.facts import Activity
from services.identity.projections import deal_words
from services.identity.projections.consent_statuses import Told, consent_changed
from services.identity.projections.memberships import read_periods
from services.identity.rules import CONTACT_ID
from services.identity.stakes import computed
from services.identity.traits import Said, later
from services.kernel.log.log import Origin
from services.kernel.log.sql import Tx

_ALIVE = """
select distinct profile from {schema}.nodes
where workspace = $1 and profile is not null and (node = any($2::text[]) or profile = any($2))
order by profile
"""

_NODES = "select node, type from {schema}.nodes where workspace = $1 and profile = $2 order by node"

_ACTIVITIES = """
select t.node, t.activity_id, t.activity, t.kind, t.source, t.resource, t.account, t.occur_time,
    t.receive_time
from {schema}.nodes n join {schema}.timeline t using (workspace, node)
where n.workspace = $1 and n.profile = $2
order by t.receive_time, t.activity_id
"""

_WHOLE = """
select create_time, last_activity_time, activity_count from {schema}.profiles
where workspace = $1 and profile = $2
"""

_TRAITS = """
select t.trait, t.value, t.occur_time, t.key
from {schema}.nodes n join {schema}.traits t using (workspace, node)
where n.workspace = $1 and n.profile = $2
"""

_CONSENTS = """
select purpose_id, status, occur_time, expire_time from {schema}.consent_statuses
where workspace = $1 and profile = $2 order by purpose_id
"""

_ACCOUNT_TRAITS = """
select trait, value, occur_time, key from {schema}.account_traits
where workspace = $1 and account = $2
"""


async def alive(tx: Tx, schema: str, workspace: str, nodes: Iterable[str]) -> list[str]:
    """Returns the profiles that nodes are of now, or that are called as they are."""
    rows = await tx.fetch(_ALIVE.format(schema=schema), workspace, sorted(nodes))
    return [row["profile"] for row in rows]


async def profile_afresh(tx: Tx, schema: str, profile: str, origin: Origin) -> list[Change]:
    """Tells all there is to tell of a profile."""
    place = origin.workspace, profile
    nodes = await tx.fetch(_NODES.format(schema=schema), *place)
    [whole] = await tx.fetch(_WHOLE.format(schema=schema), *place)
    told = [created(profile, whole["create_time"], origin)]
    told.append(renamed(profile, [(row["node"], row["type"]) for row in nodes], [], origin))
    told += await _activities(tx, schema, profile, origin)
    told.append(recounted(profile, tuple(whole), origin))
    contacts = [row["node"] for row in nodes if row["type"] == CONTACT_ID]
    said = _last_words(await tx.fetch(_TRAITS.format(schema=schema), *place))
    _, stakes = await deal_words.load_stakes(
        tx, schema, [(origin.workspace, node) for node in contacts]
    )
    owned = [stake for node in contacts for stake in stakes.get(node, ())]
    told += trait_changes(profile, {}, said | computed(owned), origin)
    periods = await read_periods(tx, schema, [place])
    told += membership_changes(profile, {}, periods.get(place, {}), origin)
    for purpose_id, *stands in await tx.fetch(_CONSENTS.format(schema=schema), *place):
        told.append(consent_changed(profile, purpose_id, Told(*stands), origin))
    return told


async def account_afresh(tx: Tx, schema: str, account: str, origin: Origin) -> list[Change]:
    """Tells all there is to tell of an account."""
    rows = await tx.fetch(_ACCOUNT_TRAITS.format(schema=schema), origin.workspace, account)
    return list(account_traits_changes(account, {}, _last_words(rows), origin))


async def _activities(tx: Tx, schema: str, profile: str, origin: Origin) -> list[Change]:
    told = []
    for row in await tx.fetch(_ACTIVITIES.format(schema=schema), origin.workspace, profile):
        account = row["account"] or ""
        done = Done(
            profile=profile,
            atom=row["node"],
            activity_id=row["activity_id"],
            activity=row["activity"],
            occur_time=row["occur_time"],
            account=account,
        )
        shown = row["kind"], row["activity"], row["source"], row["resource"]
        activity = Activity(*shown, details="", account=account)
        told.append(done.recorded(origin, activity, row["receive_time"]))
    return told


def _last_words(rows: Sequence[Any]) -> dict[str, Said]:
    found: dict[str, Said] = {}
    for name, *said in rows:
        found[name] = later(found.get(name), Said(*said))
    return found
