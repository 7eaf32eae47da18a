"""Adds edges to clusters that are resolved already, without resolving them anew. Pure.

All short ways are exact because validity is hereditary: each part of a valid cluster is valid.
Where none applies, the island is to be resolved anew: all that hangs together by edges, rejected
or not, but for those of shared nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.identity.graph import Cluster, Clusters, Edge, Pair, place_of, sum_of
from services.identity.rules import Rules


class Joining:
    """Adds edges of nodes that are not shared.

    A new edge inside one cluster changes nothing, wherever it stands in the canonical order; one
    whose union is valid joins the two; one whose place is taken (`is_taken`) is rejected, and
    changes nothing else. What else breaks a limit waits in `refused`, and needs the whole island.
    `unresolved` names islands by a node. A limit per time is taken for one that holds for ever: at
    worst an island is resolved for nothing.
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
        elif one is not other and self._may_join(one, other):
            self.clusters.join(one, other, sum_of(one.counts, other.counts))
        elif one is not other:
            self.refused.append(edge)

    def _may_join(self, one: Cluster, other: Cluster) -> bool:
        is_room = one.is_small(other) and not any(one.past_limit(other))
        return is_room and self.clusters.cut_between(one, other) is None

    def rivals(self, edge: Edge) -> list[Pair]:
        """Returns the edges that may have taken the place of a refused one.

        Where one person may have a single value of the strong end's type, these are the edges from
        the weak end to the values of that type in its own cluster.
        """
        type_name = self._types[edge.strong]
        cluster = self.clusters.by_node[edge.weak]
        known = cluster.rules.type_of(type_name)
        if known.limit != 1 or known.window is not None:
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
