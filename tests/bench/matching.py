"""How many of those who are one person matching finds, and how many of those it finds are.

    python -m tests.bench.matching people.csv.gz …     files of FEBRL's form, with true duplicates
    python -m tests.bench.matching --people 100000     people made up, the same for the same seed

A file has the columns rec_id (`rec-7-org`, `rec-7-dup-0`: the number says who it is), given_name,
surname, street_number, address_1, suburb, postcode, date_of_birth; files are compared as one.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import random
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from services.identity.deciders.match_suggestion import VERY_LIKELY_HUNDREDTHS
from services.identity.match_rows import Row, compared_of
from services.identity.matching import ROWS_PER_LINE, FoundPair, Told, line_of_rows

THRESHOLDS = (0, 500, VERY_LIKELY_HUNDREDTHS)
DUPLICATES = 0.1
TYPO, MISSING, MOVED, SAME_EMAIL = 0.15, 0.2, 0.25, 0.3

Truth = set[tuple[str, str]]


def main(arguments: Sequence[str]) -> None:
    """Compares what was asked for, as a run does, and prints what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.matching")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--people", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    if chosen.files:
        people = list(read_files(chosen.files))
    else:
        people = list(made_up(chosen.people, random.Random(chosen.seed)))
    rows = []
    by_person: dict[str, list[str]] = defaultdict(list)
    for person, name, traits in people:
        compared = compared_of([], {trait: json.dumps(text) for trait, text in traits.items()})
        if compared is not None:
            rows.append(Row(name, compared))
            by_person[person].append(name)
    truth = {
        pair for names in by_person.values() for pair in itertools.combinations(sorted(names), 2)
    }
    began = time.monotonic()
    told, pairs = compared_apart(rows)
    seconds = time.monotonic() - began
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{told.profiles:,} profiles, {len(truth):,} true pairs, {told.compared:,} compared,")
    print(
        f"{told.found:,} found in {seconds:.1f} s with {peak_mib:,} MiB, model {told.model_version}"
    )
    if told.found > len(pairs):
        print(f"only the likeliest {len(pairs):,} are told, so recall is of these")
    print("\n| weight | precision | recall | F1 |\n|--:|--:|--:|--:|")
    for threshold in THRESHOLDS:
        print(scored(threshold, pairs, truth))


def compared_apart(rows: Sequence[Row]) -> tuple[Told, list[FoundPair]]:
    """Compares rows in a process of its own, as a run does."""
    parts = (rows[start : start + ROWS_PER_LINE] for start in range(0, len(rows), ROWS_PER_LINE))
    done = subprocess.run(
        [sys.executable, "-m", "services.identity.matching"],
        input=b"".join(map(line_of_rows, parts)),
        stdout=subprocess.PIPE,
        check=True,
    )
    lines = [msgspec.json.decode(line, type=Told) for line in done.stdout.splitlines()]
    return lines[-1], [pair for line in lines for pair in line.pairs]


def scored(threshold: int, pairs: Iterable[FoundPair], truth: Truth) -> str:
    """A line of the table."""
    found = {(pair.one, pair.other) for pair in pairs if pair.weight_hundredths >= threshold}
    right = len(found & truth)
    precision, recall = right / max(len(found), 1), right / max(len(truth), 1)
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    return f"| {threshold / 100:g} | {precision:.4f} | {recall:.4f} | {f1:.4f} |"


def read_files(paths: Iterable[Path]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Who each row is, its name, and what it tells."""
    for path in paths:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file, skipinitialspace=True):
                said = {name: text.strip() for name, text in row.items() if text}
                traits = {
                    "given_name": said.get("given_name", ""),
                    "family_name": said.get("surname", ""),
                    "birth_date": said.get("date_of_birth", ""),
                    "street": f"{said.get('street_number', '')} {said.get('address_1', '')}",
                    "city": said.get("suburb", ""),
                    "postal_code": said.get("postcode", ""),
                }
                yield said["rec_id"].split("-")[1], said["rec_id"], traits


def made_up(count: int, rng: random.Random) -> Iterator[tuple[str, str, dict[str, str]]]:
    """People with names as rare as real ones are, some of them twice, misspelt and moved."""
    syllables = [a + b for a in "bdfgklmnprstvw" for b in ("a", "e", "i", "o", "an", "er", "in")]
    given = ["".join(rng.sample(syllables, 2)) for _ in range(2_000)]
    family = ["".join(rng.sample(syllables, 3)) for _ in range(20_000)]
    cities = ["".join(rng.sample(syllables, 3)) for _ in range(500)]
    for person in range(count):
        traits = {
            "given_name": _rare(given, rng),
            "family_name": _rare(family, rng),
            "birth_date": _day(rng),
            "city": _rare(cities, rng),
            "postal_code": f"{rng.randint(1, 8_000) + 10_000}",
            "phone": f"+49 {rng.randint(10**8, 10**9)}",
        }
        traits["email"] = (
            f"{traits['given_name']}.{traits['family_name']}{rng.randint(1, 99)}@x.com"
        )
        yield f"{person}", f"{person}-0", _partly(traits, rng)
        if rng.random() < DUPLICATES:
            again = {
                name: _misspelt(text, rng) if rng.random() < TYPO else text
                for name, text in traits.items()
            }
            if rng.random() < MOVED:
                again |= {"city": _rare(cities, rng), "postal_code": f"{rng.randint(10**4, 10**5)}"}
            # Had they a number or an address in common, facts would have joined them.
            again["phone"] = f"+49 {rng.randint(10**8, 10**9)}"
            again["email"] = _misspelt(traits["email"], rng) if rng.random() < SAME_EMAIL else ""
            yield f"{person}", f"{person}-1", _partly(again, rng)


def _day(rng: random.Random) -> str:
    return f"{rng.randint(1930, 2008)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _rare(words: Sequence[str], rng: random.Random) -> str:
    """Some are frequent, most are not: of 20 000 the first is one in 140."""
    return words[int(len(words) * rng.random() ** 2)]


def _partly(traits: dict[str, str], rng: random.Random) -> dict[str, str]:
    return {name: text for name, text in traits.items() if text and rng.random() >= MISSING}


def _misspelt(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text))
    return text[:place] + rng.choice("aeinrst0123") + text[place + 1 :]


if __name__ == "__main__":
    main(sys.argv[1:])
