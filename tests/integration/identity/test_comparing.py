"""The same profiles lead to the same suggestions, in whatever order they are read."""

import random

from services.identity import matching
from services.identity.match_rows import Compared, Row
from services.identity.matching import compare

GIVEN = ["ada", "grace", "alan", "edsger", "barbara", "donald", "frances", "john"]
FAMILY = ["lovelace", "hopper", "turing", "dijkstra", "liskov", "knuth", "allen", "backus"]


def test_the_same_profiles_weigh_the_same_and_the_likeliest_are_told(monkeypatch):
    rng = random.Random(7)
    rows = [
        Row(
            f"{number:032x}",
            Compared(
                given_name=rng.choice(GIVEN),
                family_name=rng.choice(FAMILY),
                birth_date=f"19{rng.randint(20, 99)}-0{rng.randint(1, 9)}-1{rng.randint(0, 9)}",
                postal_code=f"{rng.randint(10_000, 10_050)}",
            ),
        )
        for number in range(300)
    ]
    copies = [row._replace(profile=f"{number:032x}") for number, row in enumerate(rows[:40], 1_000)]
    rows += copies
    shuffled = rng.sample(rows, len(rows))

    found = compare(rows)
    monkeypatch.setattr(matching, "FOUND_MAX", 30)
    again = compare(shuffled)

    assert 30 < found.found == len(found.pairs)
    assert (found.pairs[:30], found[1:]) == (again.pairs, again[1:])
    pairs = {(pair.one, pair.other) for pair in found.pairs}
    expected = {(f"{number:032x}", f"{number + 1_000:032x}") for number in range(40)}
    assert expected <= pairs
