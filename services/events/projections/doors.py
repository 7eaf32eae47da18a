"""The doors of workspaces, made of what their views say and kept for a moment.

A rule that changed holds at once in the process that changed it, and in its replicas after
RULES_AGE_S_MAX at the latest. The sum of the versions of what they are made of grows with every
change, so doors are only made anew when there is something new.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rapport.events.v1.events_pb2 import SourceSettings
from services.events.door import Door
from services.events.projections.tracking_plans import load_plans
from services.events.projections.transformations import hash_key_of, load_transformations

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncpg import Pool

    from services.events.plans import CompiledPlan
    from services.events.transforming import Transformations

RULES_AGE_S_MAX = 1.0
WORKSPACES_MAX = 10_000
"""Workspaces whose rules are kept; beyond it those that were asked for first are read anew."""

_CHANGED = """
select coalesce((select sum(version) from sources.sources where workspace = $1), 0) as versions,
       coalesce(
           (select sum(version) from tracking_plans.tracking_plans where workspace = $1), 0
       ) as plan_versions,
       coalesce(
           (select sum(version) from transformations.transformations where workspace = $1), 0
       ) as transformation_versions,
       exists (
           select from suppressions.suppressions where workspace = $1 and is_suppressed
       ) as has_suppressions,
       exists (select from kernel.erased_subjects where workspace = $1) as has_erased_people,
       exists (select from kernel.erasures where workspace = $1) as has_erased_messages
"""

_SOURCES = "select source_id, settings, is_disabled from sources.sources where workspace = $1"

Mark = tuple[Any, ...]


class Settings(NamedTuple):
    """How one source may send."""

    settings: SourceSettings
    is_disabled: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds at the doors of one workspace, as of one mark."""

    mark: Mark
    sources: dict[str, Settings]
    has_suppressions: bool
    has_erased_people: bool
    has_erased_messages: bool
    plans: dict[str, CompiledPlan]
    transformations: Transformations
    doors: dict[str, Door] = field(default_factory=dict)

    def door(self, source: str) -> Door:
        """The door of a source; one that nobody registered may send everything."""
        door = self.doors.get(source)
        if door is None:
            door = self._made(source)
            if source in self.sources:
                self.doors[source] = door
        return door

    def _made(self, source: str) -> Door:
        known = self.sources.get(source)
        transformations = self.transformations.of(source)
        if known is None:
            return Door(
                source=source,
                transformations=transformations,
                has_suppressions=self.has_suppressions,
                has_erased_people=self.has_erased_people,
                has_erased_messages=self.has_erased_messages,
            )
        return Door(
            source=source,
            is_disabled=known.is_disabled,
            allowed_types=frozenset(known.settings.allowed_types),
            sampled_millionths=known.settings.sampled_millionths,
            transformations=transformations,
            plan=self.plans.get(known.settings.tracking_plan),
            has_suppressions=self.has_suppressions,
            has_erased_people=self.has_erased_people,
            has_erased_messages=self.has_erased_messages,
        )


@dataclass(slots=True)
class Doors:
    """The doors of all workspaces, by source."""

    pool: Pool
    derive_key: Callable[[str], bytes]
    _known: dict[str, tuple[float, Rules]] = field(default_factory=dict, init=False)
    _changes: int = field(default=0, init=False)

    async def of(self, workspace: str, source: str) -> Door:
        """The door that a source of a workspace comes in by, `source` being empty for none."""
        return (await self._rules(workspace)).door(source)

    def forget(self, workspace: str) -> None:
        """Says that a rule of a workspace has changed."""
        self._known.pop(workspace, None)
        self._changes += 1

    async def _rules(self, workspace: str) -> Rules:
        now = asyncio.get_running_loop().time()
        checked_at, rules = self._known.get(workspace, (-RULES_AGE_S_MAX, None))
        if rules is not None and now - checked_at < RULES_AGE_S_MAX:
            return rules
        changes = self._changes
        async with self.pool.acquire() as connection:
            [changed] = await connection.fetch(_CHANGED, workspace)
            mark = tuple(changed)
            if rules is None or rules.mark != mark:
                key = hash_key_of(self.derive_key, workspace)
                rules = await _load(connection, workspace, changed, key)
        if changes == self._changes:  # else what was read may be from before a change
            self._keep(workspace, now, rules)
        return rules

    def _keep(self, workspace: str, now: float, rules: Rules) -> None:
        self._known.pop(workspace, None)
        while len(self._known) >= WORKSPACES_MAX:
            self._known.pop(next(iter(self._known)))
        self._known[workspace] = now, rules


async def _load(connection: Any, workspace: str, changed: Any, hash_key: bytes) -> Rules:
    rows = await connection.fetch(_SOURCES, workspace)
    return Rules(
        mark=tuple(changed),
        sources={
            f"sources/{row['source_id']}": Settings(
                SourceSettings.FromString(row["settings"]), row["is_disabled"]
            )
            for row in rows
        },
        has_suppressions=changed["has_suppressions"],
        has_erased_people=changed["has_erased_people"],
        has_erased_messages=changed["has_erased_messages"],
        plans=await load_plans(connection, workspace),
        transformations=await load_transformations(connection, workspace, hash_key=hash_key),
    )
