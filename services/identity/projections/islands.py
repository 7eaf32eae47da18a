"""Nodes and edges: which identifiers were seen together, and which profile each is of now.

A batch loads the clusters that its facts touch, whole, and joins them in memory. Only where an
edge breaks a limit, or goes away, is the island read: all that hangs together by edges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.identity.facts import Fact
from services.identity.graph import Components, Edge, Joining, Pair, resolve, together
from services.identity.identifiers import Identifier
from services.identity.projections.assertions import Swing
from services.identity.projections.atoms import Atom
from services.kernel.log.sql import Tx, columns

# `profile` is null for a node that no fact belongs to and that nothing joins.
TABLES = """
create table {schema}.nodes (
    workspace text not null,
    node text collate "C" not null,
    type text not null,
    value text not null,
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

_CLUSTERS = """
with touched as (
    select n.workspace, n.node, n.type, n.profile
    from unnest($1::text[], $2::text[]) asked (workspace, node)
    join {schema}.nodes n using (workspace, node)
)
select n.workspace, n.node, n.type, n.profile, a.first_key, a.activities, a.last_activity_time
from (select distinct workspace, profile from touched where profile is not null) p
join {schema}.nodes n using (workspace, profile)
left join {schema}.atoms a on a.workspace = n.workspace and a.node = n.node
union all
select workspace, node, type, null, null, null, null from touched where profile is null
"""

_EDGES = """
select weak, strong, key, is_link, is_rejected
from {schema}.edges
join unnest($1::text[], $2::text[], $3::text[]) asked (workspace, weak, strong)
    using (workspace, weak, strong)
"""

_EDGES_WITHIN = """
select weak, strong, key, is_link, is_rejected
from {schema}.edges
join unnest($1::text[], $2::text[]) asked (workspace, weak) using (workspace, weak)
"""

_REJECTED = """
select workspace, weak, strong
from {schema}.edges
join unnest($1::text[], $2::text[]) asked (workspace, weak) using (workspace, weak)
where is_rejected
union
select workspace, weak, strong
from {schema}.edges
join unnest($1::text[], $2::text[]) asked (workspace, strong) using (workspace, strong)
where is_rejected
"""

_SAVE_NODES = """
insert into {schema}.nodes (workspace, node, type, value, profile)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[])
"""

_MOVE_NODES = """
update {schema}.nodes n set profile = moved.profile
from unnest($1::text[], $2::text[], $3::text[]) moved (workspace, node, profile)
where n.workspace = moved.workspace and n.node = moved.node
"""

_DROP_NODES = """
delete from {schema}.nodes n
using unnest($1::text[], $2::text[]) gone (workspace, node)
where n.workspace = gone.workspace and n.node = gone.node
"""

_SAVE_EDGES = """
insert into {schema}.edges (workspace, weak, strong, key, is_link, is_rejected)
select * from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::bool[], $6::bool[])
on conflict (workspace, weak, strong) do update set
    key = excluded.key, is_link = excluded.is_link, is_rejected = excluded.is_rejected
"""

_DROP_EDGES = """
delete from {schema}.edges e
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, weak, strong)
where e.workspace = gone.workspace and e.weak = gone.weak and e.strong = gone.strong
"""

Place = tuple[str, str]  # workspace, node
StoredEdge = tuple[Edge, bool]  # with whether it is rejected


@dataclass(slots=True)
class Islands:
    """The clusters that a batch touches, before and after it.

    Nodes of several workspaces lie side by side: their hashes never meet.
    """

    tx: Tx
    schema: str
    workspaces: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, str | None] = field(default_factory=dict)
    atoms: dict[str, Atom] = field(default_factory=dict)
    clusters: list[list[str]] = field(default_factory=list)
    components: Components = field(default_factory=Components)
    _joining: Joining = field(default_factory=Joining)
    _new: dict[str, Identifier] = field(default_factory=dict)
    _unconnected: set[str] = field(default_factory=set)
    _edges: dict[Pair, StoredEdge] = field(default_factory=dict)
    _changed_edges: dict[Pair, StoredEdge] = field(default_factory=dict)
    _dropped_edges: set[Pair] = field(default_factory=set)

    async def join(self, facts: Sequence[Fact], swing: Swing) -> None:
        """Brings the clusters that facts touch to what they are with the facts' edges."""
        identifiers, edges = seen_together(facts)
        identifiers |= {(place, known.node): known for place, known in swing.targets}
        places = set(identifiers) | {(place, pair[0]) for pair, place in swing.taken_back.items()}
        await self._load_clusters(places | swing.shaken)
        for (workspace, node), known in identifiers.items():
            if node not in self.types:
                self._new[node] = known
                self._add_cluster(workspace, None, {node: known.type})
        edges |= swing.held
        await self._load_edges(edges)
        self._take_back(swing.taken_back)
        self._joining.unresolved |= swing.emptied
        await self._add_edges(edges, held=swing.held)
        if self._joining.unresolved:
            await self._resolve()
        else:
            self.clusters = [cluster.nodes for cluster in self._joining.clusters.distinct()]

    def profiles_of_atoms(self) -> dict[str, str]:
        """Returns the profiles of the loaded atoms as they were before."""
        return {atom: str(self.profiles[atom]) for atom in self.atoms}

    async def save(self, profiles: dict[str, str | None]) -> None:
        """Writes what changed; `profiles` are the nodes' profiles from now on."""
        new, moved, gone = [], [], []
        for node, profile in profiles.items():
            workspace = self.workspaces[node]
            if profile is None and node in self._unconnected:
                gone.append((workspace, node))
            elif node in self._new:
                known = self._new[node]
                new.append((workspace, node, known.type, known.value, profile))
            elif profile != self.profiles[node]:
                moved.append((workspace, node, profile))
        edges = [
            (self.workspaces[edge.weak], *edge.pair, edge.key, edge.is_link, is_rejected)
            for edge, is_rejected in self._changed_edges.values()
        ]
        dropped = [(self.workspaces[weak], weak, strong) for weak, strong in self._dropped_edges]
        for statement, rows in (
            (_SAVE_NODES, new),
            (_MOVE_NODES, moved),
            (_DROP_NODES, gone),
            (_SAVE_EDGES, edges),
            (_DROP_EDGES, dropped),
        ):
            if rows:
                await self.tx.execute(statement.format(schema=self.schema), *columns(sorted(rows)))

    async def _load_clusters(self, places: Collection[Place]) -> None:
        """Loads the clusters of nodes that are not loaded yet, whole."""
        asked = [place for place in sorted(places) if place[1] not in self.types]
        if not asked:
            return
        rows = await self.tx.fetch(_CLUSTERS.format(schema=self.schema), *columns(asked))
        found: dict[tuple[str, str | None, str], dict[str, str]] = defaultdict(dict)
        for workspace, node, type_name, profile, *atom in rows:
            found[workspace, profile, profile or node][node] = type_name
            if atom[0] is not None:
                self.atoms[node] = Atom(*atom)
        for (workspace, profile, _), types in found.items():
            self._add_cluster(workspace, profile, types)

    def _add_cluster(self, workspace: str, profile: str | None, types: dict[str, str]) -> None:
        self._joining.add_cluster(types)
        self.types |= types
        for node in types:
            self.workspaces[node] = workspace
            self.profiles[node] = profile
            self.components.union(node, profile or node)

    async def _load_edges(self, edges: Iterable[Pair]) -> None:
        """Loads those of the edges that are known already."""
        asked = [(self.workspaces[weak], weak, strong) for weak, strong in edges]
        if asked:
            self._keep(
                await self.tx.fetch(_EDGES.format(schema=self.schema), *columns(sorted(asked)))
            )

    def _keep(self, rows: Iterable[Any]) -> None:
        for weak, strong, key, is_link, is_rejected in rows:
            pair = weak, strong
            if pair not in self._changed_edges and pair not in self._dropped_edges:
                self._edges[pair] = Edge(weak, strong, key, is_link), is_rejected

    def _take_back(self, pairs: Iterable[Pair]) -> None:
        for weak, strong in pairs:
            self._edges.pop((weak, strong), None)
            self._dropped_edges.add((weak, strong))
            self.components.union(weak, strong)
            self._joining.unresolved |= {weak, strong}

    async def _add_edges(self, edges: dict[Pair, Edge], held: Collection[Pair]) -> None:
        """Adds the edges that are new, and sees whether a changed one makes a difference."""
        moved: set[str] = set()
        for pair, edge in edges.items():
            self.components.union(*pair)
            if pair not in self._edges:
                self._joining.add_edge(edge)
                self._changed_edges[pair] = edge, False
                continue
            old, is_rejected = self._edges[pair]
            # What holds now is said as it is; else an edge is as old as its first fact.
            now = edge if pair in held else together(old, edge)
            if now != old:
                self._changed_edges[pair] = now, is_rejected
                moved.update(pair)
            if now.is_link != old.is_link:
                self._joining.unresolved.update(pair)
        await self._settle_refused()
        if moved:
            # Where nothing was rejected all is one valid cluster, whatever the order of its edges.
            contested = await self._rejected_at(self._nodes_with(moved))
            self._joining.unresolved |= {node for pair in contested for node in pair[1:]}

    async def _settle_refused(self) -> None:
        """Rejects the edges whose place is taken; the islands of the others are to be resolved."""
        refused = self._joining.refused
        rivals = {edge.pair: self._joining.rivals(edge) for edge in refused}
        unknown = {pair for pairs in rivals.values() for pair in pairs if pair not in self._edges}
        await self._load_edges(unknown - self._changed_edges.keys())
        known = self._edges | self._changed_edges
        for edge in refused:
            stored = [known[pair] for pair in rivals[edge.pair] if pair in known]
            if self._joining.is_taken(edge, [rival for rival, rejected in stored if not rejected]):
                self._changed_edges[edge.pair] = edge, True
            else:
                self._joining.unresolved.update(edge.pair)

    async def _resolve(self) -> None:
        """Resolves the islands of what could not be joined, from all their edges."""
        await self._load_islands()
        roots = {self.components.find(node) for node in self._joining.unresolved}
        nodes = {node for node in self.types if self.components.find(node) in roots}
        asked = sorted((self.workspaces[node], node) for node in nodes)
        found = await self.tx.fetch(_EDGES_WITHIN.format(schema=self.schema), *columns(asked))
        self._edges = {}
        self._keep(found)
        stored = self._edges | {
            pair: edge for pair, edge in self._changed_edges.items() if pair[0] in nodes
        }
        types = {node: self.types[node] for node in nodes}
        resolution = resolve(types, [edge for edge, _ in stored.values()])
        for pair, (edge, was_rejected) in stored.items():
            is_rejected = pair in resolution.rejected
            if pair in self._changed_edges or is_rejected != was_rejected:
                self._changed_edges[pair] = edge, is_rejected
        connected = {node for pair in stored for node in pair}
        self._unconnected = nodes - connected
        others = [
            cluster.nodes
            for cluster in self._joining.clusters.distinct()
            if cluster.nodes[0] not in nodes
        ]
        self.clusters = [*resolution.clusters, *others]

    async def _load_islands(self) -> None:
        """Loads all clusters that hang together with the unresolved by rejected edges."""
        seen: set[str] = set()
        while frontier := self._nodes_with(self._joining.unresolved) - seen:
            seen |= frontier
            rejected = await self._rejected_at(frontier)
            for _, weak, strong in rejected:
                self.components.union(weak, strong)
            await self._load_clusters({(row[0], node) for row in rejected for node in row[1:]})

    def _nodes_with(self, some: Iterable[str]) -> set[str]:
        """Returns all loaded nodes that hang together with some."""
        roots = {self.components.find(node) for node in some}
        return {node for node in self.types if self.components.find(node) in roots}

    async def _rejected_at(self, nodes: Iterable[str]) -> list[tuple[str, str, str]]:
        asked = sorted((self.workspaces[node], node) for node in nodes)
        rows = await self.tx.fetch(_REJECTED.format(schema=self.schema), *columns(asked))
        return [(row[0], row[1], row[2]) for row in rows]


def seen_together(facts: Iterable[Fact]) -> tuple[dict[Place, Identifier], dict[Pair, Edge]]:
    """Returns the identifiers of facts, and an edge from the strongest of each to the others."""
    identifiers: dict[Place, Identifier] = {}
    edges: dict[Pair, Edge] = {}
    for fact in facts:
        for known in fact.identifiers:
            identifiers[fact.workspace, known.node] = known
        for edge in fact.edges():
            edges[edge.pair] = together(edges.get(edge.pair), edge)
    return identifiers, edges
