"""Who is one person does not depend on the order in which that became known."""

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from services.identity.graph import Edge, cuts_of, hubs_of, most_within, resolve
from services.identity.joining import Joining
from services.identity.rules import DEFAULT
from tests.identity_reference import reference_hubs, reference_resolve

TYPES = sorted(DEFAULT.by_name)
KEYS = [n.to_bytes(8, "big") + bytes([n]) * 16 for n in range(6)]
TIMED_TYPES = {"email", "phone", "user_id"}
SPAN = timedelta(microseconds=2)
TIMED = replace(
    DEFAULT,
    types=tuple(
        replace(known, limit=1, window=SPAN)
        if known.name in {"email", "phone", "user_id"}
        else known
        for known in DEFAULT.types
    ),
)


@dataclass(frozen=True)
class Drawn:
    """A graph: nodes by type and first key, edges, and what people linked, cut and flagged."""

    types: dict
    edges: list
    cut: list = ()
    links: list = ()
    flags: dict = field(default_factory=dict)
    first: dict = field(default_factory=dict)

    def with_edges(self, edges):
        return replace(self, edges=edges)

    def resolved(self, rules=DEFAULT, asked=()):
        hubs = hubs_of(rules, self.types, self.edges, self.flags)
        return resolve(
            rules,
            self.types,
            self.edges,
            cuts_of(self.cut),
            asked,
            links=self.links,
            hubs=hubs,
            first=self.first,
        )

    def joining(self):
        """Joining that starts where the edges lead."""
        joining = Joining()
        for pair in self.cut:
            joining.add_cut(*pair)
        for nodes in self.resolved().clusters:
            joining.add_cluster(DEFAULT, {node: self.types[node] for node in nodes})
        return joining


@st.composite
def graphs(draw):
    """Few nodes of all types, many edges, and some of whatever people decide."""
    names = draw(st.lists(st.sampled_from(TYPES), min_size=1, max_size=9))
    types = {f"n{number}": name for number, name in enumerate(names)}
    ranked = sorted(types, key=lambda node: (-DEFAULT.rank(types[node]), node))
    pairs = list(combinations(ranked, 2))

    def some(most):
        return draw(st.lists(st.sampled_from(pairs), unique=True, max_size=most)) if pairs else []

    keys = st.sampled_from(KEYS)
    return Drawn(
        types=types,
        edges=[Edge(*pair, draw(keys), draw(st.integers(0, 5)) == 0) for pair in some(30)],
        cut=some(3),
        links=[Edge(*pair, draw(keys), is_link=True) for pair in some(2)],
        flags=draw(st.dictionaries(st.sampled_from(ranked), st.booleans(), max_size=3)),
        first={node: draw(keys) for node in types},
    )


def partition(clusters):
    return {frozenset(cluster) for cluster in clusters}


def assert_as_reference(drawn, rules=DEFAULT):
    """Clusters, what is shared and what is rejected are those that a slower way finds."""
    keys = {edge.pair: edge.key for edge in drawn.edges}
    hubs = reference_hubs(rules, drawn.types, keys, drawn.flags)
    clusters, rejected, refused = reference_resolve(
        rules,
        drawn.types,
        keys,
        {edge.pair for edge in drawn.edges if edge.is_link},
        {link.pair: link.key for link in drawn.links},
        {frozenset(pair) for pair in drawn.cut},
        hubs=hubs,
        first=drawn.first,
    )
    found = drawn.resolved(rules, asked=rejected | refused)

    assert hubs_of(rules, drawn.types, drawn.edges, drawn.flags) == hubs
    assert partition(found.clusters) == clusters
    assert (found.rejected | found.aside) & keys.keys() == rejected
    assert found.rejected & {link.pair for link in drawn.links} >= refused
    assert set(found.refusals) == rejected | refused
    return clusters


@given(graphs())
def test_resolving_is_what_the_rules_say(drawn):
    assert_as_reference(drawn)


@given(graphs())
def test_resolving_is_what_the_rules_say_where_limits_hold_per_time(drawn):
    assert_as_reference(drawn, TIMED)


@given(graphs(), st.integers(2, 5))
def test_no_cluster_grows_past_the_most(drawn, nodes_max):
    clusters = assert_as_reference(drawn, replace(DEFAULT, nodes_max=nodes_max))

    assert max(map(len, clusters)) <= nodes_max


@given(graphs(), st.randoms(use_true_random=False))
def test_the_order_of_edges_is_not_seen(drawn, rng):
    shuffled = drawn.edges[:]
    rng.shuffle(shuffled)
    found, same = drawn.with_edges(shuffled).resolved(), drawn.resolved()

    assert partition(found.clusters) == partition(same.clusters)
    assert (found.rejected, found.aside) == (same.rejected, same.aside)


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from("abc")), min_size=1), st.integers(0, 9)
)
def test_the_most_within_a_span_is_the_most_of_all_spans(seen, span):
    most = max(
        len({unit for time, unit in seen if start <= time <= start + span}) for start, _ in seen
    )

    assert most == most_within(span, sorted(seen))


@given(graphs(), st.data())
def test_joining_edges_is_exact_until_it_says_that_it_is_not(drawn, data):
    drawn = replace(drawn, flags={}, links=[])
    count = data.draw(st.integers(0, len(drawn.edges)))
    known = drawn.edges[:count]
    joining = drawn.with_edges(known).joining()
    for edge in drawn.edges[count:]:
        hubs = hubs_of(DEFAULT, drawn.types, [*known, edge], {})
        if hubs != hubs_of(DEFAULT, drawn.types, known, {}):
            break
        if hubs.isdisjoint(edge.pair):
            joining.add_edge(edge)
        if joining.unresolved or joining.refused:
            break
        known.append(edge)

    assert found_by(joining) == partition(drawn.with_edges(known).resolved().clusters)


def test_each_short_way_is_exact_in_a_dense_crowd():
    rng, taken_count, joined_count = random.Random(0), 0, 0
    for _ in range(6_000):
        drawn = dense_graph(rng)
        assert_as_reference(drawn)
        *known, edge = drawn.edges
        before, after = drawn.with_edges(known), drawn.resolved()
        hubs = hubs_of(DEFAULT, drawn.types, drawn.edges, {})
        if hubs != hubs_of(DEFAULT, drawn.types, known, {}) or not hubs.isdisjoint(edge.pair):
            continue
        joining = before.joining()
        joining.add_edge(edge)
        if not joining.unresolved and not joining.refused:
            joined_count += 1
            assert found_by(joining) == partition(after.clusters)
        elif joining.refused:
            old = before.resolved()
            pairs = set(joining.rivals(edge)) - old.rejected - old.aside
            rivals = [rival for rival in known if rival.pair in pairs]
            if joining.is_taken(edge, rivals):
                taken_count += 1
                assert partition(after.clusters) == partition(old.clusters)
                assert after.rejected == old.rejected | {edge.pair}

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
    return Drawn(types, [Edge(*pair, rng.choice(KEYS), rng.random() < 0.1) for pair in chosen], cut)


def found_by(joining):
    """The clusters that joining has come to."""
    return partition(cluster.nodes for cluster in joining.clusters.distinct())
