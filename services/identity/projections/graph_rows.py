"""The tables of nodes and edges, and their SQL."""

from __future__ import annotations

from services.identity.graph import Edge

# `is_hub` says that a node is shared: its edges are set aside, and count as rejected. `profile` is
# null for a node that no fact belongs to and that nothing joins.
TABLES = """
create table {schema}.nodes (
    workspace text not null,
    node text collate "C" not null,
    type text not null,
    value text not null,
    is_hub boolean not null,
    profile text collate "C",
    primary key (workspace, node)
) with (fillfactor = 85);
create index nodes_by_profile on {schema}.nodes (workspace, profile);
create table {schema}.edges (
    workspace text not null,
    weak text collate "C" not null,
    strong text collate "C" not null,
    key bytea not null,
    is_link boolean not null,
    is_rejected boolean not null,
    primary key (workspace, weak, strong)
) with (fillfactor = 90);
create index edges_rejected_by_weak on {schema}.edges (workspace, weak) where is_rejected;
create index edges_rejected_by_strong on {schema}.edges (workspace, strong) where is_rejected;
"""

# A row without a node says of a workspace that somebody decided something in it.
CLUSTERS = """
with touched as (
    select n.workspace, n.node, n.type, n.is_hub, n.profile
    from unnest($1::text[], $2::text[]) asked (workspace, node)
    join {schema}.nodes n using (workspace, node)
)
select n.workspace, n.node, n.type, n.is_hub, n.profile,
    a.first_key, a.activities, a.last_activity_time
from (select distinct workspace, profile from touched where profile is not null) p
join {schema}.nodes n using (workspace, profile)
left join {schema}.atoms a on a.workspace = n.workspace and a.node = n.node
union all
select workspace, node, type, is_hub, null, null, null, null from touched where profile is null
union all
select workspace, null, null, null, null, null, null, null
from (select distinct workspace from unnest($1::text[]) known (workspace)) asked
where exists (select from {schema}.verdicts v where v.workspace = asked.workspace)
    or exists (select from {schema}.flags f where f.workspace = asked.workspace)
"""

EDGES = """
select weak, strong, key, is_link, is_rejected
from {schema}.edges
join unnest($1::text[], $2::text[], $3::text[]) asked (workspace, weak, strong)
    using (workspace, weak, strong)
"""

EDGES_WITHIN = """
select weak, strong, key, is_link, is_rejected
from {schema}.edges
join unnest($1::text[], $2::text[]) asked (workspace, weak) using (workspace, weak)
"""

# With the other end, and whether that is shared.
REJECTED = """
select e.workspace, e.weak, e.strong, o.node, o.is_hub
from unnest($1::text[], $2::text[]) asked (workspace, weak)
join {schema}.edges e using (workspace, weak)
join {schema}.nodes o on o.workspace = e.workspace and o.node = e.strong
where e.is_rejected
union
select e.workspace, e.weak, e.strong, o.node, o.is_hub
from unnest($1::text[], $2::text[]) asked (workspace, strong)
join {schema}.edges e using (workspace, strong)
join {schema}.nodes o on o.workspace = e.workspace and o.node = e.weak
where e.is_rejected
"""

# At shared nodes, and at the stronger ends of others.
EDGES_ASIDE = """
select e.weak, e.strong, e.key, e.is_link, e.is_rejected
from (
    select e.* from unnest($1::text[], $2::text[]) asked (workspace, node)
    join {schema}.nodes n using (workspace, node)
    join {schema}.edges e on e.workspace = n.workspace and e.weak = n.node
    where n.is_hub
    union
    select e.* from unnest($1::text[], $2::text[]) asked (workspace, strong)
    join {schema}.edges e using (workspace, strong)
) e
where e.is_rejected
order by e.key, e.weak, e.strong
limit $3
"""

NODES = """
select node, type, is_hub, profile
from unnest($1::text[], $2::text[]) asked (workspace, node)
join {schema}.nodes using (workspace, node)
"""

TYPES = """
select node, type
from unnest($1::text[], $2::text[]) asked (workspace, node)
join {schema}.nodes using (workspace, node)
"""

MOVE_NODES = """
update {schema}.nodes n set is_hub = moved.is_hub, profile = moved.profile
from unnest($1::text[], $2::text[], $3::bool[], $4::text[])
    moved (workspace, node, is_hub, profile)
where n.workspace = moved.workspace and n.node = moved.node
"""

DROP_NODES = """
delete from {schema}.nodes n
using unnest($1::text[], $2::text[]) gone (workspace, node)
where n.workspace = gone.workspace and n.node = gone.node
"""

SAVE_EDGES = """
insert into {schema}.edges (workspace, weak, strong, key, is_link, is_rejected)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bool[], $6::bool[])
on conflict (workspace, weak, strong) do update set
    key = excluded.key, is_link = excluded.is_link, is_rejected = excluded.is_rejected
"""

DROP_EDGES = """
delete from {schema}.edges e
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, weak, strong)
where e.workspace = gone.workspace and e.weak = gone.weak and e.strong = gone.strong
"""

Place = tuple[str, str]  # workspace, node
StoredEdge = tuple[Edge, bool]  # with whether it is rejected
