"""Nodes and edges: which identifiers were seen together, and which profile each is of now.

A batch loads the clusters that its facts touch, whole, and joins them in memory. Only where an
edge breaks a limit, or goes away, is the island read: all that hangs together by edges, but for
those of shared nodes. So it is where a node comes to be shared or ceases to be, where a verdict
turns, or one that waited for an identifier comes into force.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.identity.facts import Fact
from services.identity.graph import Edge, Pair, is_crowded, resolve, together
from services.identity.identifiers import Identifier
from services.identity.projections import graph_rows
from services.identity.projections.assertions import Swing
from services.identity.projections.flags import load_flags
from services.identity.projections.graph_rows import Place, StoredEdge
from services.identity.projections.region import Region
from services.identity.projections.verdicts import mark
from services.kernel.log.writing import add_rows_soon, change_rows_soon


@dataclass(slots=True)
class Islands(Region):
    """The clusters that a batch touches, before and after it."""

    clusters: list[list[str]] = field(default_factory=list)
    _new: dict[str, Identifier] = field(default_factory=dict)
    _flags: dict[str, bool] = field(default_factory=dict)
    _turned: set[str] = field(default_factory=set)
    _stirred: set[str] = field(default_factory=set)
    _unconnected: set[str] = field(default_factory=set)
    _marked_links: dict[Pair, bool] = field(default_factory=dict)
    _told_of: set[str] = field(default_factory=set)
    _emptied: set[str] = field(default_factory=set)
    _first_keys: dict[str, bytes] = field(default_factory=dict)

    async def join(self, facts: Sequence[Fact], swing: Swing) -> None:
        """Brings the clusters that facts touch to what they are with the facts' edges."""
        identifiers, edges = seen_together(facts)
        identifiers |= {(place, known.node): known for place, known in swing.targets}
        places = set(identifiers) | {(place, pair[0]) for pair, place in swing.taken_back.items()}
        await self.load_clusters(places | swing.shaken)
        for (workspace, node), known in identifiers.items():
            if node not in self.types:
                self._new[node] = known
                self.add_new(workspace, known)
        edges |= swing.held
        self._told_of, self._emptied = {fact.atom for fact in facts}, swing.emptied
        await self._hear_verdicts(swing.turned)
        await self._see_hubs(edges, swing)
        self._see_first_keys(facts, edges, swing)
        self._stir([*edges, *swing.taken_back])
        self._take_back(swing.taken_back)
        self.joining.unresolved |= swing.emptied
        await self._add_edges(edges, held=swing.held)
        if self.joining.unresolved:
            await self._resolve()
        else:
            self.clusters = [cluster.nodes for cluster in self.joining.clusters.distinct()]

    def profiles_of_atoms(self) -> dict[str, str]:
        """Returns the profiles of the loaded atoms as they were before."""
        return {atom: str(self.profiles[atom]) for atom in self.atoms}

    def save(self, profiles: Mapping[str, str | None]) -> None:
        """Lets be written what changed; `profiles` are the nodes' profiles from now on."""
        new, moved, gone = [], [], []
        for node, profile in profiles.items():
            workspace = self.workspaces[node]
            if profile is None and node in self._unconnected:
                gone.append((workspace, node))
            elif node in self._new:
                known = self._new[node]
                new.append((workspace, node, known.type, known.value, node in self.hubs, profile))
            elif profile != self.profiles[node] or node in self._turned:
                moved.append((workspace, node, node in self.hubs, profile))
        added: list[tuple[object, ...]] = []
        edges: list[tuple[object, ...]] = []
        for pair, (edge, is_rejected) in self.changed_edges.items():
            row = self.workspaces[edge.weak], *pair, edge.key, edge.is_link, is_rejected
            # Of a new node there is no edge yet.
            (added if pair[0] in self._new else edges).append(row)
        add_rows_soon(self.tx, self.schema, "nodes", new)
        add_rows_soon(self.tx, self.schema, "edges", added)
        dropped = [(self.workspaces[weak], weak, strong) for weak, strong in self.dropped_edges]
        for statement, rows in (
            (graph_rows.MOVE_NODES, moved),
            (graph_rows.DROP_NODES, gone),
            (graph_rows.SAVE_EDGES, edges),
            (graph_rows.DROP_EDGES, dropped),
        ):
            change_rows_soon(self.tx, statement.format(schema=self.schema), rows)
        links = [(self.workspaces[pair[0]], *pair, no) for pair, no in self._marked_links.items()]
        mark(self.tx, self.schema, links)

    async def _hear_verdicts(self, turned: Mapping[Pair, bool]) -> None:
        """Loads the verdicts on what is loaded, and sees which of them make a difference."""
        if not self.judged_workspaces:
            return
        await self.load_verdicts(self.types)
        # What waited for a new identifier is followed from now on.
        waiting = {pair for pair in self.links if self.is_loose(pair)}
        await self.load_clusters({(self.workspace_of(p), node) for p in waiting for node in p})
        await self.load_verdicts(self.types)
        for pair in turned.keys() | waiting:
            one, other = pair
            if one in self.types and other in self.types:
                is_apart = not (self.is_loose(pair) or self.joining.are_together(one, other))
                if not (is_apart and turned.get(pair, False)):
                    self.components.union(one, other)
                    self.joining.unresolved.update(pair)

    async def _see_hubs(self, edges: Mapping[Pair, Edge], swing: Swing) -> None:
        """Loads the edges in question, and sees which nodes come to be shared, or cease to be."""
        lost = {weak for weak, _ in swing.taken_back}
        flagged = {node for _, node in swing.flagged} & self.types.keys()
        weak = lost | {weak for weak, _ in edges}
        await self._load_flags(weak | flagged | self._new.keys())
        # A shared node that only gains edges stays one, and may have very many of them.
        counted = {
            node
            for node in (weak | flagged) - self._flags.keys()
            if self._is_counted(node) and (node not in self.hubs or node in lost | flagged)
        }
        await self.load_edges_of(counted - self._new.keys())
        fixed = weak - counted - self._new.keys()
        await self.load_edges(pair for pair in edges if pair[0] in fixed)
        neighbours: dict[str, set[str]] = defaultdict(set)
        for one, other in (self.edges.keys() | edges.keys()) - swing.taken_back.keys():
            if one in counted:
                neighbours[one].add(other)
        types = self.types | await self._types_of_crowds(neighbours)
        for node in counted | flagged | self._flags.keys():
            is_hub = self._flags.get(node)
            if is_hub is None:
                rules = self.rules[self.workspaces[node]]
                is_hub = is_crowded(rules, types, node, neighbours[node])
            if is_hub != (node in self.hubs):
                self._turn(node)

    def _is_counted(self, node: str) -> bool:
        """Tells whether all edges of a node are looked at: they are counted, or their age is."""
        known = self.rule(node)
        return known.hub_over is not None or known.window is not None

    def _turn(self, node: str) -> None:
        """Lets a node come to be shared, or cease to be."""
        self.hubs ^= {node}
        self._turned.add(node)
        self._stirred.add(node)

    async def _load_flags(self, nodes: Iterable[str]) -> None:
        if not self.judged_workspaces:
            return
        judged = [place for place in self.places(nodes) if place[0] in self.judged_workspaces]
        self._flags |= await load_flags(self.tx, self.schema, judged)

    async def _types_of_crowds(self, neighbours: Mapping[str, set[str]]) -> dict[str, str]:
        """Loads the types of the neighbours of nodes that may be shared."""
        unknown: set[Place] = set()
        for node, found in neighbours.items():
            if len(found) > (self.rule(node).hub_over or 0):
                unknown |= {(self.workspaces[node], each) for each in found - self.types.keys()}
        return dict(await self.fetch(graph_rows.TYPES, unknown))

    def _see_first_keys(
        self, facts: Sequence[Fact], edges: Mapping[Pair, Edge], swing: Swing
    ) -> None:
        """Sees whose first fact is another than before, of types that are limited per time."""
        if not self._are_windows():
            return
        stored = self._first_keys_of(self.edges)
        self._first_keys = dict(swing.first_keys)
        changed = [(weak, edge.key) for (weak, _), edge in edges.items()]
        for fact in facts:
            changed.append((fact.atom, fact.key))
            atom = self.atoms.get(fact.atom)
            known = self._first_keys.get(fact.atom, atom.first_key if atom else fact.key)
            self._first_keys[fact.atom] = min(known, fact.key)
        shaken = {node for node, key in changed if node not in stored or key < stored[node]}
        shaken |= {weak for weak, _ in (*swing.taken_back, *swing.held)} | swing.first_keys.keys()
        for node in shaken - self._new.keys():
            # Not all edges of a shared node are loaded; but it is alone, unless somebody linked it.
            is_alone = node in self.hubs and len(self.joining.clusters.by_node[node].nodes) == 1
            if self.rule(node).window is not None and not is_alone:
                self._stirred.add(node)

    def _are_windows(self) -> bool:
        return any(rules.has_windows for rules in self.rules.values())

    def _stir(self, pairs: Iterable[Pair]) -> None:
        """Has islands resolved in which more changed than edges, with what changed it."""
        self.joining.unresolved |= self._stirred - self._new.keys()
        for pair in pairs:
            if not self._stirred.isdisjoint(pair):
                self.components.union(*pair)

    def _take_back(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self.edges.pop(pair, None)
            self.dropped_edges.add(pair)
            weak = pair[0]
            # What is still shared has other edges, and none of them leads anywhere.
            if weak not in self.hubs or weak in self._turned or weak in self._flags:
                self.components.union(*pair)
                self.joining.unresolved |= set(pair)

    async def _add_edges(self, edges: Mapping[Pair, Edge], held: Collection[Pair]) -> None:
        """Adds the edges that are new, and sees whether a changed one makes a difference."""
        moved: set[str] = set()
        for pair, edge in edges.items():
            is_aside = self.is_aside(pair)
            if not is_aside:
                self.components.union(*pair)
            if pair not in self.edges:
                self.changed_edges[pair] = edge, is_aside
                if not is_aside:
                    self.joining.add_edge(edge)
                continue
            old, is_rejected = self.edges[pair]
            # What holds now is said as it is; else an edge is as old as its first fact.
            now = edge if pair in held else together(old, edge)
            if now != old:
                self.changed_edges[pair] = now, is_rejected
            if now != old and not is_aside:
                moved.update(pair)
            if now.is_link != old.is_link and not is_aside:
                self.joining.unresolved.update(pair)
        await self._settle_refused()
        if moved:
            # Where nothing was rejected all is one valid cluster, whatever the order of its edges.
            contested = await self.rejected_at(self.nodes_with(moved))
            self.joining.unresolved |= {node for pair in contested for node in pair[1:]}

    async def _settle_refused(self) -> None:
        """Rejects the edges whose place is taken; the islands of the others are to be resolved."""
        refused = self.joining.refused
        rivals = {edge.pair: self.joining.rivals(edge) for edge in refused}
        unknown = {pair for pairs in rivals.values() for pair in pairs if pair not in self.edges}
        await self.load_edges(unknown - self.changed_edges.keys())
        known = self.edges | self.changed_edges
        for edge in refused:
            stored = [known[pair] for pair in rivals[edge.pair] if pair in known]
            if self.joining.is_taken(edge, [rival for rival, rejected in stored if not rejected]):
                self.changed_edges[edge.pair] = edge, True
            else:
                self.joining.unresolved.update(edge.pair)

    async def _resolve(self) -> None:
        """Resolves the islands of what could not be joined, from all their edges."""
        await self.load_islands(self.joining.unresolved)
        nodes = self.nodes_with(self.joining.unresolved)
        self.edges = {}
        await self.load_edges_of(nodes)
        stored = self.edges | {
            pair: edge for pair, edge in self.changed_edges.items() if pair[0] in nodes
        }
        connected = {node for pair in stored for node in pair}
        self._unconnected = nodes - connected
        # Edges of shared nodes lead out of the island; a link between two such ends is none of it.
        links = self._links_among(nodes & connected | self._with_facts(nodes))
        clusters, rejected = self._resolved(nodes, stored, links)
        for pair, (edge, was_rejected) in stored.items():
            is_rejected = pair in rejected or not self._is_live(pair, nodes)
            if pair in self.changed_edges or is_rejected != was_rejected:
                self.changed_edges[pair] = edge, is_rejected
        for pair, (_, was_rejected) in self.links.items():
            is_rejected = pair in links and pair in rejected
            if not nodes.isdisjoint(pair) and is_rejected != was_rejected:
                self._marked_links[pair] = is_rejected
        others = [
            cluster.nodes
            for cluster in self.joining.clusters.distinct()
            if cluster.nodes[0] not in nodes
        ]
        self.clusters = [*clusters, *others]

    def _is_live(self, pair: Pair, nodes: Collection[str]) -> bool:
        """Tells whether an edge is one of an island; others lead to shared nodes."""
        return pair[0] in nodes and pair[1] in nodes and not self.is_aside(pair)

    def _resolved(
        self, nodes: set[str], stored: Mapping[Pair, StoredEdge], links: Mapping[Pair, Edge]
    ) -> tuple[list[list[str]], set[Pair]]:
        """Returns clusters and rejected pairs, each workspace by its own rules."""
        types: dict[str, dict[str, str]] = defaultdict(dict)
        among: dict[str, list[Edge]] = defaultdict(list)
        linked: dict[str, list[Edge]] = defaultdict(list)
        for node in nodes:
            types[self.workspaces[node]][node] = self.types[node]
        for pair, (edge, _) in stored.items():
            if self._is_live(pair, nodes):
                among[self.workspaces[edge.weak]].append(edge)
        for edge in links.values():
            linked[self.workspaces[edge.weak]].append(edge)
        first = self._first_keys_of(stored) if self._are_windows() else {}
        clusters: list[list[str]] = []
        rejected: set[Pair] = set()
        for workspace, found in types.items():
            cuts, rules = self.joining.clusters.cuts, self.rules[workspace]
            resolution = resolve(
                rules, found, among[workspace], cuts, links=linked[workspace], first=first
            )
            clusters += resolution.clusters
            rejected |= resolution.rejected
        return clusters, rejected

    def _first_keys_of(self, stored: Mapping[Pair, StoredEdge]) -> dict[str, bytes]:
        """Returns the keys of nodes' first facts: those of atoms, and of edges by weaker ends."""
        first = {n: atom.first_key for n, atom in self.atoms.items() if n not in self._emptied}
        first |= self._first_keys
        for (weak, _), (edge, _) in stored.items():
            first[weak] = min(first.get(weak, edge.key), edge.key)
        return first

    def _with_facts(self, nodes: set[str]) -> set[str]:
        """Returns those of some nodes that facts tell of, or belong to, from now on."""
        return nodes & ((self.atoms.keys() - self._emptied) | self._told_of | self._new.keys())

    def _links_among(self, live: set[str]) -> dict[Pair, Edge]:
        """Returns the links that are in force: facts tell of both ends."""
        return {pair: edge for pair, (edge, _) in self.links.items() if live.issuperset(pair)}


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
