"""Who is one person does not depend on the order in which that became known."""

import random
from dataclasses import replace
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from services.identity.graph import Edge, Joining, cuts_of, resolve
from services.identity.rules import DEFAULT
from services.identity.whole import resolve_all
from tests.identity_reference import reference_resolve

TYPES = sorted(DEFAULT.by_name)
KEYS = [bytes([n]) * 24 for n in range(6)]


@st.composite
def graphs(draw):
    """Few nodes of all types, many edges, some of them links, and some pairs that are cut."""
    names = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=9))
    types = {f"n{number}": name for number, name in enumerate(names)}
    pairs = list(combinations(sorted(types), 2))
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    cut = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=3)) if pairs else []
    edges = [
        Edge(*pair, draw(st.sampled_from(KEYS)), draw(st.integers(0, 5)) == 0) for pair in chosen
    ]
    return types, edges, cut


def partition(clusters):
    return {frozenset(cluster) for cluster in clusters}


def assert_as_reference(types, edges, cut, rules=DEFAULT):
    """The clusters and rejections are those that a slower way finds."""
    keys = {edge.pair: edge.key for edge in edges}
    links = {edge.pair for edge in edges if edge.is_link}
    clusters, rejected = reference_resolve(
        rules, types, keys, links, cuts={frozenset(pair) for pair in cut}
    )
    found = resolve(rules, types, edges, cuts_of(cut), asked=rejected)

    assert partition(found.clusters) == clusters
    assert found.rejected == rejected
    assert set(found.refusals) == rejected
    return clusters


@given(graphs())
def test_resolving_is_what_the_rules_say(drawn):
    assert_as_reference(*drawn)


@given(graphs(), st.integers(2, 9))
def test_resolving_all_at_once_is_resolving(drawn, nodes_max):
    types, edges, cut = drawn
    rules = replace(DEFAULT, nodes_max=nodes_max)
    wanted = resolve(rules, types, edges, cuts_of(cut))
    found = resolve_all(rules, types, edges, cuts_of(cut))

    assert partition(found.clusters) == partition(wanted.clusters)
    assert found.rejected == wanted.rejected


@given(graphs(), st.integers(2, 5))
def test_no_cluster_grows_past_the_most(drawn, nodes_max):
    clusters = assert_as_reference(*drawn, replace(DEFAULT, nodes_max=nodes_max))

    assert max(map(len, clusters)) <= nodes_max


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_edges_is_not_seen(drawn, rng):
    types, edges, cut = drawn
    shuffled = edges[:]
    rng.shuffle(shuffled)
    found = resolve(DEFAULT, types, shuffled, cuts_of(cut))

    assert partition(found.clusters) == partition(
        resolve(DEFAULT, types, edges, cuts_of(cut)).clusters
    )


@given(graphs(), st.data())
def test_joining_edges_is_exact_until_it_says_that_it_is_not(drawn, data):
    types, edges, cut = drawn
    count = data.draw(st.integers(0, len(edges)))
    known, joining = edges[:count], joined(types, edges[:count], cut)
    for edge in edges[count:]:
        joining.add_edge(edge)
        if joining.unresolved or joining.refused:
            break
        known.append(edge)

    assert found_by(joining) == partition(resolve(DEFAULT, types, known, cuts_of(cut)).clusters)


def test_each_short_way_is_exact_in_a_dense_crowd():
    rng, taken_count, joined_count = random.Random(0), 0, 0
    for _ in range(6_000):
        types, edges, cut = dense_graph(rng)
        assert_as_reference(types, edges, cut)
        *known, edge = edges
        before = resolve(DEFAULT, types, known, cuts_of(cut))
        after = resolve(DEFAULT, types, edges, cuts_of(cut))
        joining = joined(types, known, cut)
        joining.add_edge(edge)
        if not joining.unresolved and not joining.refused:
            joined_count += 1
            assert found_by(joining) == partition(after.clusters)
        elif joining.refused:
            pairs = set(joining.rivals(edge)) - before.rejected
            rivals = [rival for rival in known if rival.pair in pairs]
            if joining.is_taken(edge, rivals):
                taken_count += 1
                assert partition(after.clusters) == partition(before.clusters)
                assert after.rejected == before.rejected | {edge.pair}

    assert joined_count > 1_000
    assert taken_count > 200


def dense_graph(rng):
    """Few nodes, many edges from the weak to the strong, in any order."""
    nodes = [f"n{n}" for n in range(rng.randint(2, 12))]
    types = {node: rng.choice(TYPES) for node in nodes}
    ranked = sorted(nodes, key=lambda node: (-DEFAULT.rank(types[node]), node))
    pairs = list(combinations(ranked, 2))
    chosen = rng.sample(pairs, rng.randint(1, min(len(pairs), 16)))
    cut = rng.sample(pairs, min(len(pairs), rng.choice([0, 0, 1, 3])))
    return types, [Edge(*pair, rng.choice(KEYS), rng.random() < 0.1) for pair in chosen], cut


def found_by(joining):
    """The clusters that joining has come to."""
    return partition(cluster.nodes for cluster in joining.clusters.distinct())


def joined(types, edges, cut):
    """Joining that starts where the edges lead."""
    joining = Joining()
    for pair in cut:
        joining.add_cut(*pair)
    for nodes in resolve(DEFAULT, types, edges, cuts_of(cut)).clusters:
        joining.add_cluster(DEFAULT, {node: types[node] for node in nodes})
    return joining
