"""Who is one person does not depend on the order in which that became known."""

import random
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from services.identity import graph
from services.identity.graph import Edge, Joining, resolve
from services.identity.identifiers import TYPES
from tests.identity_reference import reference_resolve

KEYS = [bytes([n]) * 24 for n in range(6)]


@st.composite
def graphs(draw):
    """Few nodes of all types, many edges, some of them links."""
    names = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=9))
    types = {f"n{number}": name for number, name in enumerate(names)}
    pairs = list(combinations(sorted(types), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    return types, [
        Edge(*pair, draw(st.sampled_from(KEYS)), draw(st.integers(0, 5)) == 0) for pair in chosen
    ]


def partition(clusters):
    return {frozenset(cluster) for cluster in clusters}


def assert_as_reference(types, edges):
    """The clusters and rejections are those that a slower way finds."""
    keys = {edge.pair: edge.key for edge in edges}
    links = {edge.pair for edge in edges if edge.is_link}
    clusters, rejected = reference_resolve(types, keys, links)
    found = resolve(types, edges)

    assert partition(found.clusters) == clusters
    assert found.rejected == rejected
    return clusters


@given(graphs())
def test_resolving_is_what_the_rules_say(drawn):
    assert_as_reference(*drawn)


@given(graphs(), st.integers(2, 5))
def test_no_cluster_grows_past_the_most(drawn, nodes_max):
    most, graph.CLUSTER_NODES_MAX = graph.CLUSTER_NODES_MAX, nodes_max
    try:
        clusters = assert_as_reference(*drawn)
    finally:
        graph.CLUSTER_NODES_MAX = most

    assert max(map(len, clusters)) <= nodes_max


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_edges_is_not_seen(drawn, rng):
    types, edges = drawn
    shuffled = edges[:]
    rng.shuffle(shuffled)

    assert partition(resolve(types, shuffled).clusters) == partition(resolve(types, edges).clusters)


@given(graphs(), st.data())
def test_joining_an_edge_is_exact_unless_it_says_that_it_is_not(drawn, data):
    types, edges = drawn
    known = edges[: data.draw(st.integers(0, len(edges)))]
    joining = joined(types, known)
    for edge in edges[len(known) :]:
        joining.add_edge(edge)
        if joining.unresolved:
            break
        known.append(edge)

    found = [cluster.nodes for cluster in joining.clusters.distinct()]
    assert partition(found) == partition(resolve(types, known).clusters)


def test_joining_is_exact_in_a_dense_crowd():
    rng = random.Random(0)
    joined_count = 0
    for _ in range(4_000):
        types = {f"n{n}": rng.choice(sorted(TYPES)) for n in range(rng.randint(2, 12))}
        pairs = list(combinations(sorted(types), 2))
        chosen = rng.sample(pairs, rng.randint(1, min(len(pairs), 16)))
        edges = [Edge(*pair, rng.choice(KEYS), rng.random() < 0.1) for pair in chosen]
        assert_as_reference(types, edges)
        joining = joined(types, edges[:-1])
        joining.add_edge(edges[-1])
        if not joining.unresolved:
            joined_count += 1
            found = [cluster.nodes for cluster in joining.clusters.distinct()]
            assert partition(found) == partition(resolve(types, edges).clusters)

    assert joined_count > 1_000


def joined(types, edges):
    """Joining that starts where the edges lead."""
    joining = Joining()
    for nodes in resolve(types, edges).clusters:
        joining.add_cluster({node: types[node] for node in nodes})
    return joining
