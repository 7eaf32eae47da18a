"""The way that explains best: with the fewest refusals, and then the shortest."""

from services.identity.explaining import Way, shortest
from services.identity.graph import Edge


def way(weak, strong, key=b"1", *, rejected=False, verdict=False):
    return Way(Edge(weak, strong, key), rejected, verdict)


def test_nothing_leads_where_nothing_is():
    assert shortest([way("a", "b"), way("c", "d")], "a", "d") is None


def test_of_several_ways_it_is_the_shortest_in_either_direction():
    ways = [way("a", "b"), way("b", "c"), way("a", "c")]

    assert shortest(ways, "a", "c") == [ways[2]]
    assert shortest(ways, "c", "a") == [ways[2]]


def test_a_long_way_that_was_followed_explains_better_than_a_short_one_that_was_refused():
    ways = [way("a", "d", rejected=True), way("a", "b"), way("b", "c"), way("c", "d")]

    assert shortest(ways, "a", "d") == ways[1:]


def test_what_somebody_said_explains_better_than_what_was_seen():
    ways = [way("a", "b"), way("a", "b", verdict=True)]

    assert shortest(ways, "a", "b") == [ways[1]]
