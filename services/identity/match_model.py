"""How two profiles are weighed: what each field's agreement is worth. Pure.

This is Fellegi and Sunter's model. Of each level of agreement it knows the chance among pairs that
are one person (m) and among pairs that are not (u); the weight is the sum of log2(m / u) over the
fields, and of the odds before anything was seen. How often one person's details differ is about the
same everywhere, so m is ours. How often strangers agree is not, so u is learnt from a sample of the
profiles themselves, as far as these are enough, and a name that is rarer counts for more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from rapport.identity.v1.match_pb2 import MatchAgreement, MatchField

# Raised whenever what is below changes.
VERSION = 1
# One profile in so many is thought to have a duplicate.
PROFILES_PER_DUPLICATE = 20
# What we think of u counts as much as so many pairs that were seen.
PAIRS_THOUGHT = 10_000
PAIRS_SAMPLED_MAX = 500_000
# Chances are rounded to it, so that the same profiles weigh the same to the last digit.
CHANCE_DIGITS = 6
CHANCE_MIN = 1e-9


class Likeness(Enum):
    """What makes two texts alike that are not the same."""

    NAME = "their Jaro-Winkler similarity"
    MISSPELT = "one letter is missing, added, another, or in its neighbour's place"


@dataclass(frozen=True, slots=True)
class FieldModel:
    """How a field is weighed; chances are of the same, of what is alike, and of what is neither."""

    field: MatchField.ValueType
    likeness: Likeness
    same_person: tuple[float, float, float]
    strangers: tuple[float, float, float]
    similarity_min: float = 0.0
    counts_rarity: bool = False

    @property
    def name(self) -> str:
        """The column that holds it."""
        return MatchField.Name(self.field).removeprefix("MATCH_FIELD_").lower()


_NAME, _MISSPELT = Likeness.NAME, Likeness.MISSPELT

FIELDS = (
    FieldModel(
        MatchField.MATCH_FIELD_GIVEN_NAME,
        _NAME,
        (0.80, 0.08, 0.12),
        (0.004, 0.004, 0.992),
        similarity_min=0.88,
        counts_rarity=True,
    ),
    FieldModel(
        MatchField.MATCH_FIELD_FAMILY_NAME,
        _NAME,
        (0.80, 0.08, 0.12),
        (0.002, 0.003, 0.995),
        similarity_min=0.88,
        counts_rarity=True,
    ),
    # People have several addresses and numbers: another one says little.
    FieldModel(MatchField.MATCH_FIELD_EMAIL, _MISSPELT, (0.30, 0.10, 0.60), (1e-6, 1e-5, 0.999989)),
    FieldModel(MatchField.MATCH_FIELD_PHONE, _MISSPELT, (0.40, 0.05, 0.55), (1e-6, 1e-5, 0.999989)),
    FieldModel(
        MatchField.MATCH_FIELD_BIRTH_DATE, _MISSPELT, (0.80, 0.08, 0.12), (1e-4, 0.002, 0.9979)
    ),
    # People move.
    FieldModel(
        MatchField.MATCH_FIELD_STREET,
        _NAME,
        (0.45, 0.25, 0.30),
        (1e-4, 0.002, 0.9979),
        similarity_min=0.85,
    ),
    FieldModel(
        MatchField.MATCH_FIELD_CITY,
        _NAME,
        (0.65, 0.10, 0.25),
        (0.01, 0.005, 0.985),
        similarity_min=0.90,
        counts_rarity=True,
    ),
    FieldModel(
        MatchField.MATCH_FIELD_POSTAL_CODE, _MISSPELT, (0.70, 0.05, 0.25), (0.002, 0.02, 0.978)
    ),
)

LEVELS = (
    MatchAgreement.MATCH_AGREEMENT_EXACT,
    MatchAgreement.MATCH_AGREEMENT_ALIKE,
    MatchAgreement.MATCH_AGREEMENT_DIFFERENT,
)
"""In the order of the chances."""

Chances = Mapping[str, tuple[float, ...]]
"""By the name of the field, u of each level."""

THOUGHT: Chances = {field.name: field.strangers for field in FIELDS}
"""What is thought of u before anything was seen."""


def odds_before(profiles: int) -> float:
    """Returns the chance that two profiles are one person, when nothing else is known of them."""
    pairs = profiles * (profiles - 1) / 2
    return min(profiles / PROFILES_PER_DUPLICATE / pairs, 0.5) if pairs else 0.5


def learnt(
    seen: Mapping[str, Sequence[float | None]], shares: Mapping[str, float], profiles: int
) -> Chances:
    """Returns u of each field, from what is thought and what was seen of a sample of pairs.

    `seen` are the shares of each level among pairs that both tell the field; `shares` how many of
    the profiles tell it. What few pairs say counts for little.
    """
    sampled = min(profiles * (profiles - 1) / 2, PAIRS_SAMPLED_MAX)
    found: dict[str, tuple[float, ...]] = {}
    for name, thought in THOUGHT.items():
        pairs = sampled * shares.get(name, 0.0) ** 2
        mixed = [
            ((share or 0.0) * pairs + chance * PAIRS_THOUGHT) / (pairs + PAIRS_THOUGHT)
            for share, chance in zip(seen.get(name, thought), thought, strict=True)
        ]
        found[name] = tuple(max(_rounded(chance), CHANCE_MIN) for chance in mixed)
    return found


def version_of(chances: Chances, profiles: int) -> str:
    """Names the model that weighs by these chances: the same weighs alike."""
    said = {
        "version": VERSION,
        "odds_before": _rounded(odds_before(profiles)),
        "same_person": [list(field.same_person) for field in FIELDS],
        "strangers": {name: list(chances[name]) for name in sorted(chances)},
    }
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=6)
    return f"{VERSION}-{digest.hexdigest()}"


def hundredths(weight: float) -> int:
    """Rounds a weight: what differs after that is the machine's, not the people's."""
    return round(weight * 100)


def _rounded(chance: float) -> float:
    return float(f"{chance:.{CHANCE_DIGITS}g}")
