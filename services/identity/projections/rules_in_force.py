"""The rules in force in a workspace; those of one that never said anything are the default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from rapport.identity.v1.events_pb2 import ResolutionRules
from services.identity.deciders.rule_set import PUBLISHED
from services.identity.rule_sets import rules_in
from services.identity.rules import DEFAULT, Rules

RULES_REMEMBERED_MAX = 1_000

_IN_FORCE = f"""
select workspace, rules from rule_sets.rule_sets
where workspace = any($1::text[]) and state = {PUBLISHED}
"""

# What `read_rules` reads, for a statement about the workspace $1.
WRITTEN_RULES = f"""(
    select rules from rule_sets.rule_sets where workspace = $1 and state = {PUBLISHED}
)"""

RulesInForce = Callable[[Any, str, Iterable[str]], Awaitable[Mapping[str, Rules]]]
"""Says what the rules of some workspaces are, for a schema."""


async def rules_in_force(tx: Any, _schema: str, workspaces: Iterable[str]) -> Mapping[str, Rules]:
    """Returns the rules of each of some workspaces, whatever generation they are asked for."""
    asked = sorted(workspaces)
    found = await tx.fetch(_IN_FORCE, asked)
    published = {row["workspace"]: row["rules"] for row in found}
    return {workspace: read_rules(published.get(workspace)) for workspace in asked}


async def rules_of(tx: Any, workspace: str) -> Rules:
    """Returns the rules by which the profiles that a workspace is answered with were made."""
    return (await rules_in_force(tx, "profiles", [workspace]))[workspace]


def read_rules(written: bytes | None) -> Rules:
    """Returns the rules that a workspace published; the default where it published none."""
    return DEFAULT if written is None else _rules_of(written)


# Parsing and hashing rules costs more than all else of a small batch; published ones never change.
@lru_cache(maxsize=RULES_REMEMBERED_MAX)
def _rules_of(written: bytes) -> Rules:
    return rules_in(ResolutionRules.FromString(written))
