"""Why identifiers are one person's, or are not: ways that lead from one to the other. Pure."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.identity.graph import Edge


@dataclass(frozen=True, slots=True)
class Way:
    """What connects two nodes: an edge of facts, or a link that somebody made.

    One that is rejected is not followed.
    """

    edge: Edge
    is_rejected: bool
    is_verdict: bool = False


def shortest(ways: Iterable[Way], start: str, goal: str) -> Sequence[Way] | None:
    """Returns the ways from a node to another with the fewest rejected, of those the fewest.

    Of those it is always the same; None when nothing leads there.
    """
    around: dict[str, list[tuple[str, Way]]] = defaultdict(list)
    for way in ways:
        around[way.edge.weak].append((way.edge.strong, way))
        around[way.edge.strong].append((way.edge.weak, way))
    came: dict[str, tuple[str, Way]] = {}
    best = {start: (0, 0)}
    left = [(0, 0, start)]
    while left:
        rejected, steps, node = heapq.heappop(left)
        if node == goal:
            return _walked(came, start, goal)
        if (rejected, steps) > best[node]:
            continue
        for following, way in sorted(around[node], key=_order):
            cost = rejected + way.is_rejected, steps + 1
            if cost < best.get(following, (cost[0] + 1, 0)):
                best[following] = cost
                came[following] = node, way
                heapq.heappush(left, (*cost, following))
    return None


def _order(step: tuple[str, Way]) -> tuple[str, bool, bytes]:
    """Sorts what leads on from a node: to the same one first by what somebody said."""
    node, way = step
    return node, not way.is_verdict, way.edge.key


def _walked(came: dict[str, tuple[str, Way]], start: str, goal: str) -> list[Way]:
    path = []
    while goal != start:
        goal, way = came[goal]
        path.append(way)
    return path[::-1]
