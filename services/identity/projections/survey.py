"""Islands as they lie, for questions about why profiles are as they are; nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from services.identity.graph import Cuts, Pair
from services.identity.projections import graph_rows
from services.identity.projections.graph_rows import StoredEdge
from services.identity.projections.region import Region
from services.identity.rules import Rules
from services.kernel.log.sql import Tx

# What hangs together in so many identifiers is not resolved once more for a question.
ISLAND_NODES_EXPLAINED_MAX = 5_000
# Of so many edges it is told that they were set aside; a shared node may have any number.
ASIDE_EXPLAINED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Survey:
    """Islands as they lie: nodes, what connects them, and the links and cuts in force.

    Beside them are the other ends of edges that were set aside. `first_keys` are those of the first
    facts that tell of nodes.
    """

    types: Mapping[str, str]
    profiles: Mapping[str, str | None]
    hubs: frozenset[str]
    edges: Mapping[Pair, StoredEdge]
    links: Mapping[Pair, StoredEdge]
    cuts: Cuts
    first_keys: Mapping[str, bytes]


async def survey(tx: Tx, rules: Rules, workspace: str, nodes: Collection[str]) -> Survey:
    """Looks at the islands of nodes; raises ResourceExhausted."""
    region = Region(tx, "profiles", {workspace: rules})
    await region.load_clusters([(workspace, node) for node in nodes])
    known = {node for node in nodes if node in region.types}
    island = await region.load_islands(known, ISLAND_NODES_EXPLAINED_MAX)
    await region.load_edges_of(island - region.hubs)
    await region.load_edges_aside(island, ASIDE_EXPLAINED_MAX)
    ends = {node for pair in region.edges for node in pair}
    others = [(workspace, node) for node in ends - region.types.keys()]
    for node, type_name, is_hub, profile in await region.fetch(graph_rows.NODES, others):
        region.types[node] = type_name
        region.profiles[node] = profile
        if is_hub:
            region.hubs.add(node)
    first = {node: atom.first_key for node, atom in region.atoms.items()}
    for edge, _ in region.edges.values():
        for node in edge.pair:
            first[node] = min(first.get(node, edge.key), edge.key)
    return Survey(
        types=region.types,
        profiles=region.profiles,
        hubs=frozenset(region.hubs),
        edges=region.edges,
        links={pair: link for pair, link in region.links.items() if island.issuperset(pair)},
        cuts=region.joining.clusters.cuts,
        first_keys=first,
    )
