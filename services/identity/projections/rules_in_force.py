"""The rules in force in a workspace; those of one that never said anything are the default."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from services.identity.rules import DEFAULT, Rules

RulesInForce = Callable[[Any, str, Iterable[str]], Awaitable[Mapping[str, Rules]]]
"""Says, from the tables of a schema, what the rules of some workspaces are."""


async def rules_in_force(_tx: Any, _schema: str, workspaces: Iterable[str]) -> Mapping[str, Rules]:
    """Returns the rules of each of some workspaces."""
    return dict.fromkeys(workspaces, DEFAULT)


async def rules_of(tx: Any, workspace: str) -> Rules:
    """Returns the rules by which the profiles that a workspace is answered with were made."""
    return (await rules_in_force(tx, "profiles", [workspace]))[workspace]
