"""Profiles as they were live at a moment, from the view `history` and the own log.

An activity is a row nowhere but in the log: how many a profile had, and when the last was, is
counted there, from the fact on that counted them anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asyncpg import Pool

from rapport.identity.v1.events_pb2 import ProfileActivityRecorded
from rapport.identity.v1.service_pb2 import Identifier, Profile, TimelineKind, Trait
from services.identity.changes import name_of, stream_of
from services.identity.identifiers import account_name, identifier
from services.identity.projections.profiles import node_named
from services.identity.projections.rules_in_force import rules_of
from services.identity.rules import CONTACT_ID, EMAIL, PHONE, Rules
from services.kernel.errors import NotFound
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx
from services.kernel.views.aggregate_versions import CURRENT_AT

# Of contacts with more facts, not all are searched for an address that nobody has any longer.
FACTS_SEARCHED_MAX = 1_000

_AT = CURRENT_AT.format(moment="$3")

_PROFILE_OF_NODE = f"""
select profile from history.nodes where workspace = $1 and node = $2 and {_AT}
"""

_WHOLE = f"""
select create_time, last_activity_time, activity_count, version
from history.wholes where workspace = $1 and profile = $2 and {_AT}
"""

_SINCE = f"""
select count(*) as activity_count, max(occur_time) as last_activity_time
from kernel.events
where workspace = $1 and stream = $2 and version > $4 and record_time <= $3
    and type = '{ProfileActivityRecorded.DESCRIPTOR.full_name}'
"""

_NODES = f"""
select h.node, h.type, n.value
from history.nodes h left join profiles.nodes n on n.workspace = h.workspace and n.node = h.node
where h.workspace = $1 and h.profile = $2 and {_AT}
"""

_TRAITS = f"""
select trait, value, occur_time
from history.traits where workspace = $1 and profile = $2 and {_AT}
"""

_ACCOUNTS = f"""
select account from history.accounts where workspace = $1 and profile = $2 and {_AT}
"""

_SAID_BY_CONTACTS = f"""
select details from profiles.timeline
where workspace = $1 and node = any($2::text[])
    and kind = {TimelineKind.TIMELINE_KIND_CONTACT}
order by occur_time desc limit {FACTS_SEARCHED_MAX}
"""


async def get_profile_at(pool: Pool, workspace: str, name: str, moment: datetime) -> Profile:
    """Returns the profile that a name led to at a moment; raises InvalidArgument or NotFound."""
    rules = await rules_of(pool, workspace)
    node = node_named(rules, workspace, name)
    async with one_moment(pool) as tx:
        profile = await tx.fetchval(_PROFILE_OF_NODE, workspace, node, moment)
        whole: Any = await tx.fetchrow(_WHOLE, workspace, profile, moment)
        if whole is None:
            raise NotFound(name)
        since: Any = await tx.fetchrow(
            _SINCE, workspace, stream_of(profile), moment, whole["version"]
        )
        nodes = await tx.fetch(_NODES, workspace, profile, moment)
        traits = await tx.fetch(_TRAITS, workspace, profile, moment)
        accounts = await tx.fetch(_ACCOUNTS, workspace, profile, moment)
        values = await _values(tx, rules, workspace, nodes)
    last = [row["last_activity_time"] for row in (whole, since) if row["last_activity_time"]]
    identifiers = [Identifier(type=row["type"], value=values.get(row["node"], "")) for row in nodes]
    return Profile(
        name=name_of(profile),
        identifiers=sorted(
            identifiers, key=lambda known: (rules.rank_if_known(known.type), known.value)
        ),
        traits={
            row["trait"]: Trait(value=row["value"], occur_time=timestamp_of(row["occur_time"]))
            for row in traits
        },
        create_time=timestamp_of(whole["create_time"]),
        last_activity_time=timestamp_of(max(last, default=whole["create_time"])),
        activity_count=whole["activity_count"] + since["activity_count"],
        accounts=sorted(account_name(row["account"]) for row in accounts),
    )


async def _values(tx: Tx, rules: Rules, workspace: str, nodes: Sequence[Any]) -> Mapping[str, str]:
    """Returns the values of nodes; of those that nobody tells of any longer, what contacts had."""
    values = {row["node"]: row["value"] for row in nodes if row["value"] is not None}
    contacts = [row["node"] for row in nodes if row["type"] == CONTACT_ID]
    if contacts and any(row["node"] not in values for row in nodes):
        for row in await tx.fetch(_SAID_BY_CONTACTS, workspace, contacts):
            said = json.loads(row["details"])
            for type_name in (EMAIL, PHONE):
                known = identifier(rules, workspace, type_name, said.get(type_name) or "")
                if known is not None:
                    values.setdefault(known.node, known.value)
    return values
