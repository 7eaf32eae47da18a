"""Random rules by which histories may be resolved, narrow ones, so that they come to bear."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from services.identity.rules import DEFAULT, IdentifierType, Rules, check

KNOWING = 0.9
BLOCKED = ("u1", "a1", "e1@x.com", "x1", "+49301111")


def some_rules(rng):
    """Rules that anybody may have written: other ranks, limits, windows, and some types unknown."""
    known = [each for each in DEFAULT.types[1:] if rng.random() < KNOWING]
    if rng.random() < KNOWING / 2:
        known.append(IdentifierType("loyalty_id", rank=2))
    found = Rules(
        (DEFAULT.types[0], *(_some_type(rng, each) for each in known)),
        default_region=rng.choice(["", "US", "DE"]),
        nodes_max=rng.choice([3, 6, 1_000, 1_000]),
    )
    check(found)
    return found


def _some_type(rng, known):
    limit = rng.choice([None, 1, 2, 3])
    minutes = rng.choice([None, None, 5, 15])
    is_timed = limit is not None and minutes is not None
    return replace(
        known,
        rank=rng.choice([known.rank, known.rank, rng.randint(1, 6)]),
        limit=limit,
        window=timedelta(minutes=minutes) if is_timed else None,
        hub_over=rng.choice([None, 1, 2, 3]),
        blocked_values=frozenset(rng.sample(BLOCKED, rng.choice([0, 0, 1, 2]))),
        blocked_patterns=rng.choice([(), (), ("*3*",)]),
        is_numeric=rng.random() < 0.2,
    )
