"""The part of the graph that is loaded: clusters, whole, and what connects them.

Nodes of several workspaces, each with rules of its own, lie side by side: their hashes never meet.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.identity.graph import Components, Edge, Pair
from services.identity.identifiers import Identifier
from services.identity.joining import Joining
from services.identity.projections import graph_rows
from services.identity.projections.atoms import Atom
from services.identity.projections.graph_rows import Place, StoredEdge
from services.identity.projections.verdicts import load_verdicts
from services.identity.rules import IdentifierType, Rules
from services.identity.verdicts import Kind
from services.kernel.errors import ResourceExhausted
from services.kernel.log.sql import Tx, columns


@dataclass(slots=True)
class Region:
    """Nodes with all that is known of them, by their names."""

    tx: Tx
    schema: str
    rules: Mapping[str, Rules]
    workspaces: dict[str, str] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, str | None] = field(default_factory=dict)
    atoms: dict[str, Atom] = field(default_factory=dict)
    hubs: set[str] = field(default_factory=set)
    components: Components = field(default_factory=Components)
    joining: Joining = field(default_factory=Joining)
    edges: dict[Pair, StoredEdge] = field(default_factory=dict)
    changed_edges: dict[Pair, StoredEdge] = field(default_factory=dict)
    dropped_edges: set[Pair] = field(default_factory=set)
    judged_workspaces: set[str] = field(default_factory=set)
    links: dict[Pair, StoredEdge] = field(default_factory=dict)
    heard_verdicts_of: set[str] = field(default_factory=set)

    def rule(self, node: str) -> IdentifierType:
        """Returns what the rules of its workspace say of a node's type."""
        return self.rules[self.workspaces[node]].type_of(self.types[node])

    def places(self, nodes: Iterable[str]) -> list[Place]:
        """Returns nodes with their workspaces, sorted."""
        return sorted((self.workspaces[node], node) for node in nodes)

    def workspace_of(self, pair: Pair) -> str:
        """Returns the workspace of two nodes, of which one may not be loaded."""
        return next(self.workspaces[node] for node in pair if node in self.workspaces)

    def is_aside(self, pair: Pair) -> bool:
        """Tells whether an edge is set aside: one of its ends is shared."""
        return not self.hubs.isdisjoint(pair)

    def is_loose(self, pair: Pair) -> bool:
        """Tells whether an end is new, or of no profile: no profile says what it is linked to."""
        return any(self.profiles.get(node, "") is None for node in pair)

    def add_new(self, workspace: str, known: Identifier) -> None:
        """Adds a node that nobody told of before."""
        self._add_cluster(workspace, None, {known.node: known.type})

    def nodes_with(self, some: Iterable[str]) -> set[str]:
        """Returns all loaded nodes that hang together with some."""
        roots = {self.components.find(node) for node in some}
        return {node for node in self.types if self.components.find(node) in roots}

    async def fetch(self, statement: str, rows: Collection[tuple[Any, ...]]) -> list[Any]:
        """Fetches what a statement finds for some rows, if there are any."""
        if not rows:
            return []
        found: list[Any] = await self.tx.fetch(
            statement.format(schema=self.schema), *columns(sorted(rows))
        )
        return found

    async def load_clusters(self, places: Collection[Place]) -> None:
        """Loads the clusters of nodes that are not loaded yet, whole."""
        asked = [place for place in places if place[1] not in self.types]
        found: dict[tuple[str, str | None, str], dict[str, str]] = defaultdict(dict)
        for row in await self.fetch(graph_rows.CLUSTERS, asked):
            workspace, node, type_name, is_hub, profile, first_key, activities, last_time = row
            if node is None:
                self.judged_workspaces.add(workspace)
                continue
            found[workspace, profile, profile or node][node] = type_name
            if is_hub:
                self.hubs.add(node)
            if first_key is not None:
                self.atoms[node] = Atom(first_key, activities, last_time)
        for (workspace, profile, _), types in found.items():
            self._add_cluster(workspace, profile, types)

    def _add_cluster(self, workspace: str, profile: str | None, types: dict[str, str]) -> None:
        self.joining.add_cluster(self.rules[workspace], types)
        self.types |= types
        for node in types:
            self.workspaces[node] = workspace
            self.profiles[node] = profile
        if profile is not None:
            self.components.gather(profile, types)

    async def load_edges(self, pairs: Iterable[Pair]) -> None:
        """Loads those of some edges that are known already."""
        asked = [(self.workspaces[weak], weak, strong) for weak, strong in pairs]
        self._keep(await self.fetch(graph_rows.EDGES, asked))

    async def load_edges_of(self, weak: Iterable[str]) -> None:
        """Loads all edges whose weaker ends are some nodes."""
        self._keep(await self.fetch(graph_rows.EDGES_WITHIN, self.places(weak)))

    async def load_edges_aside(self, nodes: Iterable[str], most: int) -> None:
        """Loads the oldest edges at some nodes that were not followed."""
        places = self.places(nodes)
        if places:
            statement = graph_rows.EDGES_ASIDE.format(schema=self.schema)
            self._keep(await self.tx.fetch(statement, *columns(places), most))

    def _keep(self, rows: Iterable[Any]) -> None:
        for weak, strong, key, is_link, is_rejected in rows:
            pair = weak, strong
            if pair not in self.changed_edges and pair not in self.dropped_edges:
                self.edges[pair] = Edge(weak, strong, key, is_link), is_rejected

    async def load_verdicts(self, nodes: Iterable[str]) -> None:
        """Loads the verdicts on nodes that were not asked about before."""
        asked = set(nodes) - self.heard_verdicts_of
        self.heard_verdicts_of |= asked
        judged = [place for place in self.places(asked) if place[0] in self.judged_workspaces]
        for held in await load_verdicts(self.tx, self.schema, judged):
            if held.kind is Kind.CUT:
                self.joining.add_cut(*held.edge.pair)
            else:
                self.links[held.edge.pair] = held.edge, held.is_rejected

    async def load_islands(self, nodes: Iterable[str], nodes_max: int | None = None) -> set[str]:
        """Loads all clusters that hang together with some by rejected edges; returns their nodes.

        Edges of shared nodes lead nowhere. Raises ResourceExhausted past `nodes_max`.
        """
        start = set(nodes)
        seen: set[str] = set()
        while frontier := self.nodes_with(start) - seen:
            seen |= frontier
            if nodes_max is not None and len(seen) > nodes_max:
                raise ResourceExhausted("ISLAND_NODES_EXPLAINED_MAX", nodes_max)
            if self.judged_workspaces:
                await self.load_verdicts(frontier)
            rejected = await self.rejected_at(frontier)
            for _, weak, strong in rejected:
                self.components.union(weak, strong)
            await self.load_clusters({(row[0], node) for row in rejected for node in row[1:]})
        return seen

    async def rejected_at(self, nodes: Iterable[str]) -> list[tuple[str, str, str]]:
        """Returns what connects nodes to others but for their profile."""
        some = set(nodes)
        found = []
        rows = await self.fetch(graph_rows.REJECTED, self.places(some - self.hubs))
        for workspace, weak, strong, other, is_hub in rows:
            # What is loaded may have become shared, or have ceased to be.
            if not (other in self.hubs if other in self.types else is_hub):
                found.append((workspace, weak, strong))
        found += [
            (self.workspace_of(pair), *pair)
            for pair, (_, is_rejected) in self.links.items()
            if (is_rejected or self.is_loose(pair)) and not some.isdisjoint(pair)
        ]
        return found
