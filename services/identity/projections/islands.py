"""Nodes and edges: which identifiers were seen together, and which profile each is of now.

A batch loads the clusters that its facts touch, whole, and joins them in memory. Only where an
edge breaks a limit, or goes away, is the island read: all that hangs together by edges. So it is
where a verdict turns, or one that waited for an identifier comes into force.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.identity.facts import Fact
from services.identity.graph import Components, Cuts, Edge, Joining, Pair, resolve, together
from services.identity.identifiers import Identifier
from services.identity.projections import graph_rows
from services.identity.projections.assertions import Swing
from services.identity.projections.atoms import Atom
from services.identity.projections.graph_rows import Place, StoredEdge
from services.identity.projections.verdicts import load_verdicts, mark
from services.identity.rules import Rules
from services.identity.verdicts import Kind
from services.kernel.errors import ResourceExhausted
from services.kernel.log.sql import Tx, columns


@dataclass(frozen=True, slots=True)
class Survey:
    """Islands as they lie: nodes, what connects them, and the links and cuts in force.

    `first_keys` are those of the first facts that tell of nodes.
    """

    types: Mapping[str, str]
    profiles: Mapping[str, str | None]
    edges: Mapping[Pair, StoredEdge]
    links: Mapping[Pair, StoredEdge]
    cuts: Cuts
    first_keys: Mapping[str, bytes]


@dataclass(slots=True)
class Islands:
    """The clusters that a batch touches, before and after it.

    Nodes of several workspaces, each with rules of its own, lie side by side: their hashes never
    meet.
    """

    tx: Tx
    schema: str
    rules: Mapping[str, Rules]
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
    _judged_workspaces: set[str] = field(default_factory=set)
    _heard_verdicts_of: set[str] = field(default_factory=set)
    _links: dict[Pair, StoredEdge] = field(default_factory=dict)
    _marked_links: dict[Pair, bool] = field(default_factory=dict)
    _told_of: set[str] = field(default_factory=set)
    _emptied: set[str] = field(default_factory=set)

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
        self._told_of, self._emptied = {fact.atom for fact in facts}, swing.emptied
        await self._hear_verdicts(swing.turned)
        await self._load_edges(edges)
        self._take_back(swing.taken_back)
        self._joining.unresolved |= swing.emptied
        await self._add_edges(edges, held=swing.held)
        if self._joining.unresolved:
            await self._resolve()
        else:
            self.clusters = [cluster.nodes for cluster in self._joining.clusters.distinct()]

    async def survey(self, places: Collection[Place], nodes_max: int) -> Survey:
        """Looks at the islands of nodes, and changes nothing; raises ResourceExhausted."""
        await self._load_clusters(places)
        self._joining.unresolved |= {node for _, node in places} & self.types.keys()
        await self._load_islands(nodes_max)
        asked = sorted((self.workspaces[node], node) for node in self.types)
        if asked:
            statement = graph_rows.EDGES_WITHIN.format(schema=self.schema)
            self._keep(await self.tx.fetch(statement, *columns(asked)))
        first = {node: atom.first_key for node, atom in self.atoms.items()}
        for edge, _ in self._edges.values():
            for node in edge.pair:
                first[node] = min(first.get(node, edge.key), edge.key)
        live = set(self.types)
        return Survey(
            types=self.types,
            profiles=self.profiles,
            edges=self._edges,
            links={pair: link for pair, link in self._links.items() if live.issuperset(pair)},
            cuts=self._joining.clusters.cuts,
            first_keys=first,
        )

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
            (graph_rows.SAVE_NODES, new),
            (graph_rows.MOVE_NODES, moved),
            (graph_rows.DROP_NODES, gone),
            (graph_rows.SAVE_EDGES, edges),
            (graph_rows.DROP_EDGES, dropped),
        ):
            if rows:
                await self.tx.execute(statement.format(schema=self.schema), *columns(sorted(rows)))
        links = [(self.workspaces[pair[0]], *pair, no) for pair, no in self._marked_links.items()]
        await mark(self.tx, self.schema, links)

    async def _hear_verdicts(self, turned: Mapping[Pair, bool]) -> None:
        """Loads the verdicts on what is loaded, and sees which of them make a difference."""
        if not self._judged_workspaces:
            return
        await self._load_verdicts(self.types)
        # What waited for a new identifier is followed from now on.
        waiting = {pair for pair in self._links if self._is_loose(pair)}
        ends = {(self._workspace_of(pair), node) for pair in waiting for node in pair}
        await self._load_clusters(ends)
        await self._load_verdicts(self.types)
        for pair in turned.keys() | waiting:
            one, other = pair
            if one in self.types and other in self.types:
                is_apart = not (self._is_loose(pair) or self._joining.are_together(one, other))
                if not (is_apart and turned.get(pair, False)):
                    self.components.union(one, other)
                    self._joining.unresolved.update(pair)

    def _is_loose(self, pair: Pair) -> bool:
        """Tells whether an end is new, or of no profile: no profile says what it is linked to."""
        return any(self.profiles.get(node, "") is None for node in pair)

    def _workspace_of(self, pair: Pair) -> str:
        return next(self.workspaces[node] for node in pair if node in self.workspaces)

    async def _load_verdicts(self, nodes: Iterable[str]) -> None:
        """Loads the verdicts on nodes that were not asked about before."""
        asked = set(nodes) - self._heard_verdicts_of
        self._heard_verdicts_of |= asked
        places = [(self.workspaces[node], node) for node in asked]
        judged = [place for place in places if place[0] in self._judged_workspaces]
        for held in await load_verdicts(self.tx, self.schema, judged):
            if held.kind is Kind.CUT:
                self._joining.add_cut(*held.edge.pair)
            else:
                self._links[held.edge.pair] = held.edge, held.is_rejected

    async def _load_clusters(self, places: Collection[Place]) -> None:
        """Loads the clusters of nodes that are not loaded yet, whole."""
        asked = [place for place in sorted(places) if place[1] not in self.types]
        if not asked:
            return
        rows = await self.tx.fetch(graph_rows.CLUSTERS.format(schema=self.schema), *columns(asked))
        found: dict[tuple[str, str | None, str], dict[str, str]] = defaultdict(dict)
        for workspace, node, type_name, profile, *atom in rows:
            if node is None:
                self._judged_workspaces.add(workspace)
                continue
            found[workspace, profile, profile or node][node] = type_name
            if atom[0] is not None:
                self.atoms[node] = Atom(*atom)
        for (workspace, profile, _), types in found.items():
            self._add_cluster(workspace, profile, types)

    def _add_cluster(self, workspace: str, profile: str | None, types: dict[str, str]) -> None:
        self._joining.add_cluster(self.rules[workspace], types)
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
                await self.tx.fetch(
                    graph_rows.EDGES.format(schema=self.schema), *columns(sorted(asked))
                )
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
        found = await self.tx.fetch(
            graph_rows.EDGES_WITHIN.format(schema=self.schema), *columns(asked)
        )
        self._edges = {}
        self._keep(found)
        stored = self._edges | {
            pair: edge for pair, edge in self._changed_edges.items() if pair[0] in nodes
        }
        connected = {node for pair in stored for node in pair}
        self._unconnected = nodes - connected
        links = self._links_among(connected | self._with_facts(nodes))
        clusters, all_rejected = self._resolved(
            nodes, [*(edge for edge, _ in stored.values()), *links.values()]
        )
        for pair, (edge, was_rejected) in stored.items():
            is_rejected = pair in all_rejected
            if pair in self._changed_edges or is_rejected != was_rejected:
                self._changed_edges[pair] = edge, is_rejected
        for pair, (_, was_rejected) in self._links.items():
            is_rejected = pair in links and pair in all_rejected
            if not nodes.isdisjoint(pair) and is_rejected != was_rejected:
                self._marked_links[pair] = is_rejected
        others = [
            cluster.nodes
            for cluster in self._joining.clusters.distinct()
            if cluster.nodes[0] not in nodes
        ]
        self.clusters = [*clusters, *others]

    def _resolved(
        self, nodes: Iterable[str], edges: Iterable[Edge]
    ) -> tuple[list[list[str]], set[Pair]]:
        """Returns clusters and rejected pairs, each workspace by its own rules."""
        types: dict[str, dict[str, str]] = defaultdict(dict)
        among: dict[str, list[Edge]] = defaultdict(list)
        for node in nodes:
            types[self.workspaces[node]][node] = self.types[node]
        for edge in edges:
            among[self.workspaces[edge.weak]].append(edge)
        clusters: list[list[str]] = []
        rejected: set[Pair] = set()
        for workspace, found in types.items():
            cuts = self._joining.clusters.cuts
            resolution = resolve(self.rules[workspace], found, among[workspace], cuts)
            clusters += resolution.clusters
            rejected |= resolution.rejected
        return clusters, rejected

    def _with_facts(self, nodes: set[str]) -> set[str]:
        """Returns those of some nodes that facts tell of, or belong to, from now on."""
        return nodes & ((self.atoms.keys() - self._emptied) | self._told_of | self._new.keys())

    def _links_among(self, live: set[str]) -> dict[Pair, Edge]:
        """Returns the links that are in force: facts tell of both ends."""
        return {pair: edge for pair, (edge, _) in self._links.items() if live.issuperset(pair)}

    async def _load_islands(self, nodes_max: int | None = None) -> None:
        """Loads all clusters that hang together with the unresolved by rejected edges."""
        seen: set[str] = set()
        while frontier := self._nodes_with(self._joining.unresolved) - seen:
            seen |= frontier
            if nodes_max is not None and len(seen) > nodes_max:
                raise ResourceExhausted("ISLAND_NODES_EXPLAINED_MAX", nodes_max)
            if self._judged_workspaces:
                await self._load_verdicts(frontier)
            rejected = await self._rejected_at(frontier)
            for _, weak, strong in rejected:
                self.components.union(weak, strong)
            await self._load_clusters({(row[0], node) for row in rejected for node in row[1:]})

    def _nodes_with(self, some: Iterable[str]) -> set[str]:
        """Returns all loaded nodes that hang together with some."""
        roots = {self.components.find(node) for node in some}
        return {node for node in self.types if self.components.find(node) in roots}

    async def _rejected_at(self, nodes: Iterable[str]) -> list[tuple[str, str, str]]:
        """Returns what connects nodes to others but for their profile."""
        asked = sorted((self.workspaces[node], node) for node in nodes)
        rows = await self.tx.fetch(graph_rows.REJECTED.format(schema=self.schema), *columns(asked))
        some = {node for _, node in asked}
        links = [
            (self._workspace_of(pair), *pair)
            for pair, (_, is_rejected) in self._links.items()
            if (is_rejected or self._is_loose(pair)) and not some.isdisjoint(pair)
        ]
        return [*((row[0], row[1], row[2]) for row in rows), *links]


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
