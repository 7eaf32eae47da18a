"""Resolves all nodes and edges of a workspace at once, as `graph.resolve` does, only faster. Pure.

Nearly all that hangs together is valid as a whole. There each part is valid too, whatever the order
of the edges, so all of them join and none is rejected; only the other islands are resolved edge by
edge.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from services.identity.graph import Components, Cuts, Edge, Pair, Resolution, resolve
from services.identity.rules import Rules


def resolve_all(
    rules: Rules, types: Mapping[str, str], edges: Sequence[Edge], cuts: Cuts
) -> Resolution:
    """Resolves nodes (with the type of each) and edges; their order does not matter."""
    components = Components()
    for edge in edges:
        components.union(*edge.pair)
    islands: dict[str, list[str]] = defaultdict(list)
    for node in types:
        islands[components.find(node)].append(node)
    shared = _shared(rules, types, edges)
    contested = {
        root
        for root, nodes in islands.items()
        if not (_is_valid(rules, types, nodes) and cuts.keys().isdisjoint(nodes))
    } | {components.find(node) for node in shared}
    among: dict[str, list[Edge]] = defaultdict(list)
    for edge in edges:
        root = components.find(edge.weak)
        if root in contested:
            among[root].append(edge)
    clusters: list[list[str]] = []
    rejected: set[Pair] = set()
    for root, nodes in islands.items():
        if root in contested:
            found = resolve(rules, {node: types[node] for node in nodes}, among[root], cuts)
            clusters += found.clusters
            rejected |= found.rejected
        else:
            clusters.append(nodes)
    return Resolution(clusters, frozenset(rejected))


def _is_valid(rules: Rules, types: Mapping[str, str], nodes: Sequence[str]) -> bool:
    """Tells whether nodes may be together, whatever connects them."""
    if len(nodes) == 1:
        return True
    if len(nodes) > rules.nodes_max:
        return False
    for name, count in Counter(types[node] for node in nodes).items():
        limit = rules.limit(name)
        if limit is not None and count > limit:
            return False
    return True


def _shared(rules: Rules, types: Mapping[str, str], edges: Iterable[Edge]) -> list[str]:
    """Returns the nodes with so many neighbours that they may be shared."""
    most = {known.name: known.hub_over for known in rules.types if known.hub_over is not None}
    if not most:
        return []
    counts = Counter(edge.weak for edge in edges if types[edge.weak] in most)
    return [node for node, count in counts.items() if count > most[types[node]]]
