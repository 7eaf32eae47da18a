"""Resolves all nodes and edges of a workspace at once, as `graph.resolve` does, only faster. Pure.

Nearly all that hangs together is valid as a whole. There each part is valid too, whatever the order
of the edges, so all of them join and none is rejected; only the other islands are resolved edge by
edge.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from services.identity.graph import Components, Cuts, Edge, Pair, Resolution, resolve
from services.identity.rules import Rules


def resolve_all(
    rules: Rules,
    types: Mapping[str, str],
    edges: Sequence[Edge],
    cuts: Cuts,
    *,
    links: Sequence[Edge],
    hubs: frozenset[str],
    first: Mapping[str, bytes],
) -> Resolution:
    """Resolves nodes (with the type of each), edges and people's links; no order matters.

    `hubs` are shared; `first` are the keys of the first facts that tell of nodes.
    """
    aside = frozenset(edge.pair for edge in edges if not hubs.isdisjoint(edge.pair))
    followed = [edge for edge in edges if edge.pair not in aside] if aside else edges
    components = Components()
    for edge in (*followed, *links):
        components.union(*edge.pair)
    islands: dict[str, list[str]] = defaultdict(list)
    for node in types:
        islands[components.find(node)].append(node)
    contested = {
        root
        for root, nodes in islands.items()
        if not (_is_valid(rules, types, nodes) and cuts.keys().isdisjoint(nodes))
    }
    among: dict[str, list[Edge]] = defaultdict(list)
    linked: dict[str, list[Edge]] = defaultdict(list)
    for some, by_root in ((followed, among), (links, linked)):
        for edge in some:
            root = components.find(edge.weak)
            if root in contested:
                by_root[root].append(edge)
    clusters: list[list[str]] = []
    rejected: set[Pair] = set()
    for root, nodes in islands.items():
        if root in contested:
            within = {node: types[node] for node in nodes}
            found = resolve(rules, within, among[root], cuts, links=linked[root], first=first)
            clusters += found.clusters
            rejected |= found.rejected
        else:
            clusters.append(nodes)
    return Resolution(clusters, frozenset(rejected), aside)


def _is_valid(rules: Rules, types: Mapping[str, str], nodes: Sequence[str]) -> bool:
    """Tells whether nodes may be together, whatever connects them and whenever they were seen."""
    if len(nodes) == 1:
        return True
    if len(nodes) > rules.nodes_max:
        return False
    for name, count in Counter(types[node] for node in nodes).items():
        limit = rules.limit(name)
        if limit is not None and count > limit:
            return False
    return True
