"""Who is one person: resolves identifiers (nodes) and what connects them (edges) into clusters.

`resolve` is the definition: a pure function of rules and the set of nodes and edges. It joins along
the edges in one canonical order, links first, then between strong identifiers before weak ones,
then the oldest first; an edge whose union would break a limit is rejected. `Joining` is the
shortcut for new edges. Its two cases are exact because validity is hereditary (each part of a valid
cluster is valid); wherever they do not apply, it names the cluster to resolve anew.

What people decided is stronger than what was seen: no cluster holds a pair that was cut, and a
link, said by a person or an alias, respects only cuts and the size of a cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from services.identity.rules import Rules

Pair = tuple[str, str]
Counts = dict[str, int]  # by the name of a limited type
Cuts = dict[str, set[str]]  # by node, those that it is cut from


@dataclass(frozen=True, slots=True)
class Edge:
    """A connection of two nodes: they were seen together, first by the fact with this key.

    `is_link` says that somebody declared them one person (an alias, or a verdict), so that together
    they count as one value against a limit.
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

    rules: Rules
    nodes: list[str]
    counts: Counts

    @classmethod
    def of(cls, rules: Rules, types: Mapping[str, str]) -> Cluster:
        """Nodes that are together already; links among them are not made use of."""
        return cls(rules, list(types), _counts(rules, types.values()))

    def is_small(self, other: Cluster) -> bool:
        """Tells whether the union of both is no larger than a profile may be."""
        return len(self.nodes) + len(other.nodes) <= self.rules.nodes_max

    def may_join(self, other: Cluster) -> bool:
        """Tells whether the union of both keeps the limits."""
        return self.is_small(other) and not any(self.broken(other))

    def broken(self, other: Cluster) -> Iterator[str]:
        """Yields the types of which the union of both would hold too many values."""
        for name, count in self.counts.items():
            there = other.counts.get(name, 0)
            if there and count + there > (self.rules.limit(name) or 0):
                yield name


@dataclass(slots=True)
class Clusters:
    """Disjoint clusters by node, which can be joined unless something in them is cut."""

    by_node: dict[str, Cluster] = field(default_factory=dict)
    cuts: Cuts = field(default_factory=lambda: defaultdict(set))

    def join(self, one: Cluster, other: Cluster, counts: Counts) -> None:
        """Merges two clusters into one that holds `counts` values of each limited type."""
        large, small = (one, other) if len(one.nodes) >= len(other.nodes) else (other, one)
        large.nodes.extend(small.nodes)
        large.counts = counts
        for node in small.nodes:
            self.by_node[node] = large

    def cut_between(self, one: Cluster, other: Cluster) -> Pair | None:
        """Returns a pair of nodes that keeps two clusters apart, always the same one."""
        if not self.cuts:
            return None
        few, many = (one, other) if len(one.nodes) <= len(other.nodes) else (other, one)
        found = [
            (min(node, foe), max(node, foe))
            for node in few.nodes
            for foe in self.cuts.get(node, ())
            if self.by_node.get(foe) is many
        ]
        return min(found, default=None)

    def may_join(self, one: Cluster, other: Cluster) -> bool:
        """Tells whether the union of two clusters is valid."""
        return one.may_join(other) and self.cut_between(one, other) is None

    def distinct(self) -> list[Cluster]:
        """Each cluster once."""
        return list({id(cluster): cluster for cluster in self.by_node.values()}.values())


class Rule(StrEnum):
    """What a refused union would have broken, the first of these."""

    CUT = "cut"
    SIZE = "size"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an edge was rejected: the rule, the type it limits, and the nodes that broke it.

    Those are a pair that is cut, or all nodes of the type on both sides; were the `bridges` linked,
    they would count as one each, and the limit be kept.
    """

    rule: Rule
    type_name: str = ""
    nodes: tuple[str, ...] = ()
    bridges: tuple[Pair, ...] = ()


@dataclass(frozen=True, slots=True)
class Resolution:
    """What resolving found: the nodes of each cluster, and the edges that were rejected.

    `refusals` says why, of those it was asked about.
    """

    clusters: list[list[str]]
    rejected: frozenset[Pair]
    refusals: Mapping[Pair, Refusal] = field(default_factory=dict)


def cuts_of(pairs: Iterable[Pair]) -> Cuts:
    """Returns pairs that are cut by each of their nodes."""
    cuts: Cuts = defaultdict(set)
    for one, other in pairs:
        cuts[one].add(other)
        cuts[other].add(one)
    return cuts


def resolve(
    rules: Rules,
    types: Mapping[str, str],
    edges: Iterable[Edge],
    cuts: Cuts | None = None,
    asked: Collection[Pair] = (),
) -> Resolution:
    """Resolves nodes (with the type of each) and edges; their order does not matter.

    It explains the rejection of the edges that are `asked` about.
    """
    alone = {node: Cluster.of(rules, {node: name}) for node, name in types.items()}
    clusters = Clusters(alone, cuts or {})
    rejected: set[Pair] = set()
    refusals: dict[Pair, Refusal] = {}
    for edge in sorted(edges, key=lambda edge: place_of(rules, edge, types)):
        one, other = clusters.by_node[edge.weak], clusters.by_node[edge.strong]
        if one is other:
            continue
        if edge.is_link and _may_link(clusters, one, other):
            # Links come before all other edges, so whatever they join counts as one value.
            clusters.join(one, other, _largest(one.counts, other.counts))
        elif not edge.is_link and clusters.may_join(one, other):
            clusters.join(one, other, _sum(one.counts, other.counts))
        else:
            rejected.add(edge.pair)
            if edge.pair in asked:
                refusals.setdefault(edge.pair, _refusal(clusters, one, other, types))
    found = [cluster.nodes for cluster in clusters.distinct()]
    return Resolution(found, frozenset(rejected), refusals)


def _may_link(clusters: Clusters, one: Cluster, other: Cluster) -> bool:
    return one.is_small(other) and clusters.cut_between(one, other) is None


def _refusal(clusters: Clusters, one: Cluster, other: Cluster, types: Mapping[str, str]) -> Refusal:
    """Tells why two clusters were not joined."""
    cut = clusters.cut_between(one, other)
    if cut is not None:
        return Refusal(Rule.CUT, nodes=cut)
    if not one.is_small(other):
        return Refusal(Rule.SIZE)
    broken = min(one.broken(other), key=lambda name: (one.rules.rank(name), name))
    here, there = (sorted(n for n in side.nodes if types[n] == broken) for side in (one, other))
    excess = one.counts[broken] + other.counts[broken] - (one.rules.limit(broken) or 0)
    bridges = tuple(zip(here, there, strict=False))[:excess]
    return Refusal(Rule.LIMIT, broken, tuple(sorted([*here, *there])), bridges)


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

    def add_cluster(self, rules: Rules, types: Mapping[str, str]) -> None:
        """Adds a cluster as it is: its nodes and the type of each."""
        cluster = Cluster.of(rules, types)
        self._types.update(types)
        for node in types:
            self.clusters.by_node[node] = cluster

    def are_together(self, one: str, other: str) -> bool:
        """Tells whether two nodes are of one cluster."""
        return self.clusters.by_node[one] is self.clusters.by_node[other]

    def add_cut(self, one: str, other: str) -> None:
        """Keeps two nodes apart; they may be of clusters that are not here."""
        self.clusters.cuts[one].add(other)
        self.clusters.cuts[other].add(one)

    def add_edge(self, edge: Edge) -> None:
        """Adds an edge that was not there before."""
        one, other = self.clusters.by_node[edge.weak], self.clusters.by_node[edge.strong]
        if edge.is_link:
            # It may make room under a limit, and so let in an edge that was rejected.
            self.unresolved.update(edge.pair)
        elif one is not other and self.clusters.may_join(one, other):
            self.clusters.join(one, other, _sum(one.counts, other.counts))
        elif one is not other:
            self.refused.append(edge)

    def rivals(self, edge: Edge) -> list[Pair]:
        """Returns the edges that may have taken the place of a refused one.

        Where one person may have a single value of the strong end's type, these are the edges from
        the weak end to the values of that type in its own cluster.
        """
        type_name = self._types[edge.strong]
        cluster = self.clusters.by_node[edge.weak]
        if cluster.rules.limit(type_name) != 1:
            return []
        return [(edge.weak, node) for node in cluster.nodes if self._types[node] == type_name]

    def is_taken(self, edge: Edge, rivals: Iterable[Edge]) -> bool:
        """Tells whether a rival that is not rejected comes before an edge.

        At the edge's place in the order the rival has joined its ends, so the union would hold two
        values where one is allowed, whatever else happened before: the kiosk belongs to somebody.
        Nor has an edge any place whose own ends are cut.
        """
        if edge.strong in self.clusters.cuts.get(edge.weak, ()):
            return True
        rules = self.clusters.by_node[edge.weak].rules
        place = place_of(rules, edge, self._types)
        return any(place_of(rules, rival, self._types) < place for rival in rivals)


def _counts(rules: Rules, type_names: Iterable[str]) -> Counts:
    counts: Counts = {}
    for name in type_names:
        if rules.limit(name) is not None:
            counts[name] = counts.get(name, 0) + 1
    return counts


def _sum(one: Counts, other: Counts) -> Counts:
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _largest(one: Counts, other: Counts) -> Counts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}


def place_of(rules: Rules, edge: Edge, types: Mapping[str, str]) -> tuple[object, ...]:
    """Returns the place of an edge in the canonical order."""
    if edge.is_link:
        return 0, 0, 0, edge.key, edge.pair
    weak, strong = rules.rank(types[edge.weak]), rules.rank(types[edge.strong])
    return 1, weak, strong, edge.key, edge.pair
