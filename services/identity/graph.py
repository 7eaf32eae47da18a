"""Who is one person: resolves identifiers (nodes) and what connects them (edges) into clusters.

`resolve` is the definition: a pure function of rules and the set of nodes and edges. Shared nodes
(`hubs_of`) join nobody: their edges are set aside. It joins along the others in one canonical
order, links first, then between strong identifiers before weak ones, then the oldest first; an edge
whose union would break a limit is rejected. Validity is hereditary, each part of a valid cluster is
valid, which is what `joining.py` can be fast by.

What people decided is stronger than what was seen: no cluster holds a pair that was cut, and a
link, said by a person or an alias, respects only cuts and the size of a cluster. A person's link
joins a shared node, too; an alias does not.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from msgspec import Struct

from services.identity.rules import Rules

Pair = tuple[str, str]
Counts = dict[str, int]  # by the name of a limited type
Cuts = dict[str, set[str]]  # by node, those that it is cut from

NONE: frozenset[str] = frozenset()
_MICROSECOND = timedelta(microseconds=1)


class Edge(Struct, frozen=True):
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
    if one.key <= other.key and one.is_link >= other.is_link:
        return one
    return Edge(*other.pair, min(one.key, other.key), one.is_link or other.is_link)


def hubs_of(
    rules: Rules, types: Mapping[str, str], edges: Collection[Edge], flags: Mapping[str, bool]
) -> frozenset[str]:
    """Returns the nodes that are shared: those with too many stronger neighbours of one type.

    Each edge comes once. `flags` are people's decisions: True blocks a node, as if it were shared,
    False allows it.
    """
    overs = {name: rules.type_of(name).hub_over for name in set(types.values())}
    counts = Counter(edge.weak for edge in edges)
    around: dict[str, list[str]] = {
        node: []
        for node, count in counts.items()
        if (over := overs[types[node]]) is not None and count > over
    }
    for edge in edges:
        if edge.weak in around:
            around[edge.weak].append(edge.strong)
    crowded = {node for node, strong in around.items() if is_crowded(rules, types, node, strong)}
    blocked = {node for node, is_blocked in flags.items() if is_blocked}
    return frozenset(crowded - flags.keys() | blocked)


def is_crowded(
    rules: Rules, types: Mapping[str, str], node: str, neighbours: Collection[str]
) -> bool:
    """Tells whether more distinct neighbours of one stronger type than a node may have are its."""
    hub_over = rules.type_of(types[node]).hub_over
    if hub_over is None or len(neighbours) <= hub_over:
        return False
    counts: Counts = defaultdict(int)
    for neighbour in neighbours:
        if rules.rank(types[neighbour]) < rules.rank(types[node]):
            counts[types[neighbour]] += 1
    return max(counts.values(), default=0) > hub_over


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

    def past_limit(self, other: Cluster) -> Iterator[str]:
        """Yields the types of which the union of both holds more values than the limit."""
        for name, count in self.counts.items():
            there = other.counts.get(name, 0)
            if there and (limit := self.rules.limit(name)) is not None and count + there > limit:
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

    def distinct(self) -> list[Cluster]:
        """Each cluster once."""
        return list({id(cluster): cluster for cluster in self.by_node.values()}.values())


class Rule(StrEnum):
    """Why an edge was not followed, the first of these."""

    HUB = "hub"
    CUT = "cut"
    SIZE = "size"
    LIMIT = "limit"
    WINDOW = "window"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an edge was not followed: the rule, the type it limits, and the nodes that broke it.

    Those are what is shared, a pair that is cut, or all nodes of the type on both sides; were the
    `bridges` linked, they would count as one each, and the limit be kept. `is_merge` says that both
    sides are more than one node.
    """

    rule: Rule
    type_name: str = ""
    nodes: tuple[str, ...] = ()
    bridges: tuple[Pair, ...] = ()
    is_merge: bool = False


@dataclass(frozen=True, slots=True)
class Resolution:
    """What resolving found: the nodes of each cluster, and what was not followed.

    `rejected` would have broken a rule, `aside` are the edges of shared nodes. `refusals` says why,
    of those it was asked about.
    """

    clusters: list[list[str]]
    rejected: frozenset[Pair]
    aside: frozenset[Pair] = frozenset()
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
    edges: Collection[Edge],
    cuts: Cuts | None = None,
    asked: Collection[Pair] = (),
    *,
    links: Iterable[Edge] = (),
    hubs: frozenset[str] = NONE,
    first: Mapping[str, bytes] | None = None,
) -> Resolution:
    """Resolves nodes (with the type of each), edges, and people's links; no order matters.

    `hubs` are shared. `first` are the keys of the first facts that tell of nodes, of those types
    that are limited per time. It explains the refusal of what is `asked` about.
    """
    return _Resolving(rules, types, cuts or {}, first or {}, asked).run(edges, links, hubs)


class _Resolving:
    """The definition at work."""

    def __init__(
        self,
        rules: Rules,
        types: Mapping[str, str],
        cuts: Cuts,
        first: Mapping[str, bytes],
        asked: Collection[Pair],
    ) -> None:
        self._rules, self._types, self._first, self._asked = rules, types, first, asked
        alone = {node: Cluster.of(rules, {node: name}) for node, name in types.items()}
        self._clusters = Clusters(alone, cuts)
        # What links hold together counts as one value; a node without one is a unit of its own.
        self._units = Components()
        self._refusals: dict[Pair, Refusal] = {}

    def run(
        self, edges: Collection[Edge], links: Iterable[Edge], hubs: frozenset[str]
    ) -> Resolution:
        """Joins along whatever may be followed, in the canonical order."""
        aside = {edge.pair: edge for edge in edges if not hubs.isdisjoint(edge.pair)}
        for pair in aside.keys() & set(self._asked):
            self._refusals[pair] = Refusal(Rule.HUB, nodes=tuple(sorted(hubs & set(pair))))
        followed = [edge for edge in edges if edge.pair not in aside]
        rejected = set()
        for edge in sorted([*followed, *links], key=self._place):
            if not self._follow(edge):
                rejected.add(edge.pair)
        clusters = [cluster.nodes for cluster in self._clusters.distinct()]
        return Resolution(clusters, frozenset(rejected), frozenset(aside), self._refusals)

    def _place(self, edge: Edge) -> tuple[object, ...]:
        return place_of(self._rules, edge, self._types)

    def _follow(self, edge: Edge) -> bool:
        """Joins what an edge connects, if that may be together."""
        one, other = (self._clusters.by_node[node] for node in edge.pair)
        if one is other:
            return True
        refusal = self._refusal(edge, one, other)
        if refusal is not None:
            if edge.pair in self._asked:
                self._refusals.setdefault(edge.pair, refusal)
            return False
        if edge.is_link:
            # Links come before all other edges, so whatever they join counts as one value.
            self._units.union(*edge.pair)
            self._clusters.join(one, other, _largest(one.counts, other.counts))
        else:
            self._clusters.join(one, other, sum_of(one.counts, other.counts))
        return True

    def _refusal(self, edge: Edge, one: Cluster, other: Cluster) -> Refusal | None:
        """Tells why two clusters may not be together, if they may not."""
        cut = self._clusters.cut_between(one, other)
        if cut is not None:
            return Refusal(Rule.CUT, nodes=cut)
        if not one.is_small(other):
            return Refusal(Rule.SIZE, is_merge=min(len(one.nodes), len(other.nodes)) > 1)
        if edge.is_link:
            return None
        broken = [name for name in one.past_limit(other) if self._is_broken(name, one, other)]
        if not broken:
            return None
        name = min(broken, key=lambda name: (self._rules.rank(name), name))
        known = self._rules.type_of(name)
        here, there = (sorted(n for n in c.nodes if self._types[n] == name) for c in (one, other))
        excess = one.counts[name] + other.counts[name] - (known.limit or 0)
        bridges = tuple(zip(here, there, strict=False))[:excess]
        rule = Rule.LIMIT if known.window is None else Rule.WINDOW
        return Refusal(rule, name, tuple(sorted([*here, *there])), bridges)

    def _is_broken(self, name: str, one: Cluster, other: Cluster) -> bool:
        """Tells whether too many values are too close in time; without a window all are close.

        A unit is seen whenever one of its nodes is first seen: so each part of what keeps the
        limit keeps it as well.
        """
        known = self._rules.type_of(name)
        if known.window is None:
            return True
        seen = sorted(
            (first_us(self._first[node]), self._units.find(node))
            for node in (*one.nodes, *other.nodes)
            if self._types[node] == name
        )
        span = known.window // _MICROSECOND
        return most_within(span, seen) > (known.limit or 0)


def most_within(span: int, seen: list[tuple[int, str]]) -> int:
    """Returns how many distinct units are seen at most within a span; `seen` are sorted times."""
    most, start = 0, 0
    inside: Counts = defaultdict(int)
    for time, unit in seen:
        inside[unit] += 1
        while seen[start][0] < time - span:
            gone = seen[start][1]
            inside[gone] -= 1
            if not inside[gone]:
                del inside[gone]
            start += 1
        most = max(most, len(inside))
    return most


def first_us(key: bytes) -> int:
    """Returns when the fact with a key was received, in µs."""
    return int.from_bytes(key[:8], "big")


class Components:
    """What hangs together, by whatever edges: a union-find that answers a name per component."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, node: str) -> str:
        """Returns the name of a node's component: one of its nodes."""
        parents = self._parents
        root = node
        while (parent := parents.get(root, root)) != root:
            root = parent
        while node != root:
            parents[node], node = root, parents.get(node, root)
        return root

    def union(self, one: str, other: str) -> None:
        """Puts two nodes into one component."""
        self._parents[self.find(one)] = self.find(other)

    def gather(self, one: str, others: Iterable[str]) -> None:
        """Puts nodes into the component of one."""
        root = self.find(one)
        for other in others:
            if (name := self.find(other)) != root:
                self._parents[name] = root


def place_of(rules: Rules, edge: Edge, types: Mapping[str, str]) -> tuple[object, ...]:
    """Returns the place of an edge in the canonical order."""
    if edge.is_link:
        return 0, 0, 0, edge.key, edge.pair
    weak, strong = rules.rank(types[edge.weak]), rules.rank(types[edge.strong])
    return 1, weak, strong, edge.key, edge.pair


def sum_of(one: Counts, other: Counts) -> Counts:
    """Returns how many values of each type two clusters hold that no link joins."""
    return {name: one.get(name, 0) + other.get(name, 0) for name in one | other}


def _largest(one: Counts, other: Counts) -> Counts:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}


def _counts(rules: Rules, type_names: Iterable[str]) -> Counts:
    counts: Counts = {}
    unlimited = rules.unlimited
    for name in type_names:
        if name not in unlimited:
            counts[name] = counts.get(name, 0) + 1
    return counts
