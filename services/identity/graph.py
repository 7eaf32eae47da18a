"""Who is one person: resolves identifiers (nodes) and what connects them (edges) into clusters.

`resolve` is the definition: a pure function of the set of nodes and edges. It joins along the
edges in one canonical order, links first, then between strong identifiers before weak ones, then
the oldest first; an edge whose union would break a limit is rejected. `Joining` is the shortcut
for new edges. Its two cases are exact because validity is hereditary (each part of a valid cluster
is valid); wherever they do not apply, it names the cluster to resolve anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from services.identity.identifiers import TYPES

CLUSTER_NODES_MAX = 1_000

Pair = tuple[str, str]
Counts = dict[str, int]  # by the name of a limited type


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection of two nodes: they were seen together, first by the fact with this key.

    `is_link` says that somebody declared them one person (an alias), so that together they count
    as one value against a limit.
    """

    weak: str
    strong: str
    key: bytes
    is_link: bool = False

    @property
    def pair(self) -> Pair:
        """The two nodes, the weaker first."""
        return self.weak, self.strong


def together(one: Edge | None, other: Edge) -> Edge:
    """Returns what two edges of one pair are as one: as old as the older, a link if one is."""
    if one is None:
        return other
    return Edge(*other.pair, min(one.key, other.key), one.is_link or other.is_link)


@dataclass(slots=True)
class Cluster:
    """Nodes that are one person, and how many distinct values of each limited type they hold."""

    nodes: list[str]
    counts: Counts

    @classmethod
    def of(cls, node: str, type_name: str) -> Cluster:
        """One node alone."""
        return cls([node], _counts([type_name]))

    @classmethod
    def of_members(cls, types: Mapping[str, str]) -> Cluster:
        """Nodes that are together already; links among them are not made use of."""
        return cls(list(types), _counts(types.values()))

    def may_join(self, other: Cluster) -> bool:
        """Tells whether the union of both keeps the limits."""
        if len(self.nodes) + len(other.nodes) > CLUSTER_NODES_MAX:
            return False
        return all(
            count + other.counts[name] <= _LIMITS[name]
            for name, count in self.counts.items()
            if name in other.counts
        )


@dataclass(slots=True)
class Clusters:
    """Disjoint clusters by node, which can be joined."""

    by_node: dict[str, Cluster] = field(default_factory=dict)

    def join(self, one: Cluster, other: Cluster, counts: Counts) -> None:
        """Merges two clusters into one that holds `counts` values of each limited type."""
        large, small = (one, other) if len(one.nodes) >= len(other.nodes) else (other, one)
        large.nodes.extend(small.nodes)
        large.counts = counts
        for node in small.nodes:
            self.by_node[node] = large

    def distinct(self) -> list[Cluster]:
        """Each cluster once."""
        return list({id(cluster): cluster for cluster in self.by_node.values()}.values())


@dataclass(frozen=True, slots=True)
class Resolution:
    """What resolving found: the nodes of each cluster, and the edges that were rejected."""

    clusters: list[list[str]]
    rejected: frozenset[Pair]


def resolve(types: Mapping[str, str], edges: Iterable[Edge]) -> Resolution:
    """Resolves nodes (with the type of each) and edges; their order does not matter."""
    clusters = Clusters({node: Cluster.of(node, name) for node, name in types.items()})
    rejected = set()
    for edge in sorted(edges, key=lambda edge: place_of(edge, types)):
        one, other = clusters.by_node[edge.weak], clusters.by_node[edge.strong]
        if one is other:
            continue
        if edge.is_link and len(one.nodes) + len(other.nodes) <= CLUSTER_NODES_MAX:
            # Links come before all other edges, so whatever they join counts as one value.
            clusters.join(one, other, _largest(one.counts, other.counts))
        elif not edge.is_link and one.may_join(other):
            clusters.join(one, other, _sum(one.counts, other.counts))
        else:
            rejected.add(edge.pair)
    found = [cluster.nodes for cluster in clusters.distinct()]
    return Resolution(found, frozenset(rejected))


class Components:
    """What hangs together, by whatever edges: a union-find that answers a name per component."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, node: str) -> str:
        """Returns the name of a node's component: one of its nodes."""
        root = node
        while (parent := self._parents.get(root, root)) != root:
            root = parent
        while node != root:
            self._parents[node], node = root, self._parents.get(node, root)
        return root

    def union(self, one: str, other: str) -> None:
        """Puts two nodes into one component."""
        self._parents[self.find(one)] = self.find(other)


class Joining:
    """Adds edges to clusters that are resolved already.

    A new edge inside one cluster changes nothing, wherever it stands in the canonical order; one
    whose union is valid joins the two; one whose place is taken (`is_taken`) is rejected, and
    changes nothing else. What else breaks a limit waits in `refused`, and needs the whole island:
    all that hangs together by edges, rejected or not. `unresolved` names islands by a node.
    """

    def __init__(self) -> None:
        self.clusters = Clusters()
        self.unresolved: set[str] = set()
        self.refused: list[Edge] = []
        self._types: dict[str, str] = {}

    def add_cluster(self, types: Mapping[str, str]) -> None:
        """Adds a cluster as it is: its nodes and the type of each."""
        cluster = Cluster.of_members(types)
        self._types.update(types)
        for node in types:
            self.clusters.by_node[node] = cluster

    def add_edge(self, edge: Edge) -> None:
        """Adds an edge that was not there before."""
        one, other = self.clusters.by_node[edge.weak], self.clusters.by_node[edge.strong]
        if edge.is_link:
            # It may make room under a limit, and so let in an edge that was rejected.
            self.unresolved.update(edge.pair)
        elif one is not other and one.may_join(other):
            self.clusters.join(one, other, _sum(one.counts, other.counts))
        elif one is not other:
            self.refused.append(edge)

    def rivals(self, edge: Edge) -> list[Pair]:
        """Returns the edges that may have taken the place of a refused one.

        Where one person may have a single value of the strong end's type, these are the edges from
        the weak end to the values of that type in its own cluster.
        """
        type_name = self._types[edge.strong]
        if TYPES[type_name].limit != 1:
            return []
        nodes = self.clusters.by_node[edge.weak].nodes
        return [(edge.weak, node) for node in nodes if self._types[node] == type_name]

    def is_taken(self, edge: Edge, rivals: Iterable[Edge]) -> bool:
        """Tells whether a rival that is not rejected comes before an edge.

        At the edge's place in the order the rival has joined its ends, so the union would hold two
        values where one is allowed, whatever else happened before: the kiosk belongs to somebody.
        """
        place = place_of(edge, self._types)
        return any(place_of(rival, self._types) < place for rival in rivals)


def _counts(type_names: Iterable[str]) -> Counts:
    counts: Counts = {}
    for name in type_names:
        if name in _LIMITS:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _sum(one: Counts, other: Counts) -> Counts:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _largest(one: Counts, other: Counts) -> Counts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}


def place_of(edge: Edge, types: Mapping[str, str]) -> tuple[object, ...]:
    """Returns the place of an edge in the canonical order."""
    if edge.is_link:
        return 0, 0, 0, edge.key, edge.pair
    weak, strong = TYPES[types[edge.weak]].rank, TYPES[types[edge.strong]].rank
    return 1, weak, strong, edge.key, edge.pair


_LIMITS = {name: known.limit for name, known in TYPES.items() if known.limit is not None}
