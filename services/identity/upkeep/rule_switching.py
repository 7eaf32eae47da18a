"""Whenever a rule set is to be previewed or published then profiles are built by it.

A loop per process, in any number of processes; a worker owns the build of a workspace by lease.
What was built is kept until it is published or nobody wants it, so publishing only catches up. The
switch is one transaction, in which the live view stands still: what lies between is told, the rows
that differ are exchanged, and from then on the view is folded by the new rules. A crash before its
end leaves all as it was.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rapport.identity.v1.events_pb2 import (
    ResolutionRules,
    RuleSetFailed,
    RuleSetPreviewed,
    RuleSetPublished,
    RuleSetSuperseded,
)
from services.identity.changes import ACTOR
from services.identity.deciders.rule_set import DECIDER, PREVIEWING, PUBLISHING
from services.identity.policies import append_of
from services.identity.projections import ProfilesView, rule_builds
from services.identity.projections.rule_sets import RULE_SET_ROWS, rule_set_in_force
from services.identity.rule_sets import rules_in
from services.identity.upkeep.rule_building import LEASE_S, Builder
from services.kernel.errors import Aborted, Unavailable
from services.kernel.log.bell import heard_within
from services.kernel.log.database import is_conflict, is_passing, transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.tables import SCHEMA_LOCK_KEY
from services.kernel.views.checkpoint import ADVANCED_CHANNEL, FencedError
from services.kernel.views.projection import reason_of
from services.kernel.views.view import BUILDING, append_with_views

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from services.identity.projections.rule_builds import Build
    from services.identity.projections.rule_sets import Row
    from services.kernel.log.recorded import EventTypes
    from services.kernel.log.sql import Tx
    from services.kernel.process.runtime import Kernel

CANDIDATES_MAX = 20
# Failures in a row that no waiting helps against.
FAILURES_MAX = 3
SAFETY_POLL_S = 5.0
# The bell rings with each append: it is not looked for rule sets more often than this.
LOOK_PAUSE_S = 0.5
# How long one that made trouble, or waits for something, has to wait.
TROUBLE_PAUSE_S = 5.0

_IS_REBUILT = """
select exists (select from kernel.generations where view = $1 and status = $2)
"""

_NOTIFY = f"select pg_notify('{ADVANCED_CHANNEL}', $1)"

_log = structlog.get_logger(__name__)


class RebuildGoesOn(Exception):
    """When the view is being rebuilt by the rules in force: these wait until that is over."""


@dataclass(frozen=True, slots=True)
class RuleSetUpkeep:
    """Builds profiles by rule sets and puts these into force. `run` it as a task."""

    kernel: Kernel
    event_types: EventTypes

    async def run(self) -> None:
        """Works on one rule set after the other, whenever there is one."""
        owner = str(self.kernel.new_id())
        with self.kernel.bell.listening() as heard:
            while True:
                heard.clear()
                wait_s = SAFETY_POLL_S
                try:
                    if await self.step(owner):
                        wait_s = 0.0
                except Exception as error:  # noqa: BLE001, whatever it was, others must go on
                    _log.warning("rule_set.waits", error=repr(error))
                    wait_s = TROUBLE_PAUSE_S * random.uniform(0.5, 1.0)
                await asyncio.sleep(min(LOOK_PAUSE_S, wait_s))
                await heard_within(heard, wait_s)

    async def step(self, owner: str) -> bool:
        """Works on one rule set; tells whether there was anything to do."""
        pool = self.kernel.pool
        workspace = await rule_builds.unwanted(pool)
        if workspace is not None:
            await self._drop(workspace, owner)
            return True
        for workspace, rule_set_id in await rule_builds.waiting(pool, CANDIDATES_MAX):
            claimed = await rule_builds.claim(pool, workspace, rule_set_id, owner, LEASE_S)
            if claimed is not None:
                await self._work(claimed)
                return True
        return False

    async def _drop(self, workspace: str, owner: str) -> None:
        claimed = await rule_builds.claim(self.kernel.pool, workspace, "", owner, LEASE_S)
        if claimed is not None:
            async with transaction(self.kernel.pool) as tx:
                await claimed.drop(tx)

    async def _work(self, claimed: Build) -> None:
        """Does what is to be done, and leaves the build to whoever goes on with it."""
        pause_s, waits_for = 0.0, ""
        try:
            await self._advance(claimed)
        except (FencedError, Aborted) as error:
            _log.info("rule_set.left", workspace=claimed.workspace, reason=str(error))
        except RebuildGoesOn:
            pause_s, waits_for = TROUBLE_PAUSE_S, "the view profiles is being rebuilt"
        except Exception as error:
            pause_s, waits_for = TROUBLE_PAUSE_S, type(error).__name__
            if not (isinstance(error, Unavailable) or is_passing(error) or is_conflict(error)):
                claimed.failures += 1
                if claimed.failures >= FAILURES_MAX:
                    await self._fail(claimed, error)
            raise
        finally:
            with suppress(Exception):  # else the lease ends by itself
                await claimed.release(self.kernel.pool, pause_s, waits_for)

    async def _advance(self, claimed: Build) -> None:
        """Builds, and does with what was built what the rule set is about."""
        row = await self._row(claimed)
        rules = rules_in(ResolutionRules.FromString(row.state.rules))
        builder = Builder(self.kernel, self.event_types, claimed, rules)
        async with builder.renewing():
            if row.state.state in (PREVIEWING, PUBLISHING):
                await builder.level()
            if row.state.state == PREVIEWING:
                await self._preview(builder, row)
            elif row.state.state == PUBLISHING:
                await self._publish(builder, row)

    async def _preview(self, builder: Builder, row: Row) -> None:
        async with builder.both() as moment:
            shift = await builder.shift(moment)
        async with transaction(self.kernel.pool) as tx:
            await builder.claimed.show(tx, shift.examples())
            await self._append(tx, [_fact(row, RuleSetPreviewed(shift=shift.counts))])

    async def _publish(self, builder: Builder, row: Row) -> None:
        """Puts the rules into force: all of it in one transaction."""
        claimed = builder.claimed
        async with builder.held() as tx:
            await tx.execute("select pg_advisory_xact_lock($1)", SCHEMA_LOCK_KEY)
            if await tx.fetchval(_IS_REBUILT, ProfilesView.name, BUILDING):
                raise RebuildGoesOn
            await self.kernel.log.lock_heads(tx, set(range(self.kernel.log.partitions)))
            shift = await builder.shift(tx)
            origin = _origin(row)
            async for part in builder.difference(tx, lambda _: origin).parts():
                await self._append(tx, [append_of(change) for change in part])
            await rule_builds.switch_rows(tx, claimed.workspace, claimed.schema)
            name, facts = DECIDER.name(row.aggregate_id), []
            before = await rule_set_in_force(tx, claimed.workspace)
            if before is not None:
                facts.append(_fact(before, RuleSetSuperseded(by=name)))
            # One after the other: there are never two in force.
            for fact in (*facts, _fact(row, RuleSetPublished(shift=shift.counts))):
                await self._append(tx, [fact])
            await claimed.drop(tx)
            await tx.execute(_NOTIFY, ProfilesView.name)

    async def _fail(self, claimed: Build, error: Exception) -> None:
        """Gives a rule set up by which nothing can be built."""
        _log.exception("rule_set.failed", workspace=claimed.workspace)
        row = await self._row(claimed)
        async with transaction(self.kernel.pool) as tx:
            await self._append(tx, [_fact(row, RuleSetFailed(reason=reason_of(error)))])

    async def _row(self, claimed: Build) -> Row:
        name = DECIDER.name(claimed.rule_set_id)
        return await RULE_SET_ROWS.existing(self.kernel.pool, claimed.workspace, name)

    async def _append(self, tx: Tx, appends: Sequence[Append]) -> None:
        await append_with_views(tx, self.kernel.log, self.kernel.views, appends)


def _origin(row: Row) -> Origin:
    name = DECIDER.name(row.aggregate_id)
    return Origin(row.workspace, ACTOR, correlation_id=name, causation_id="")


def _fact(row: Row, fact: Message) -> Append:
    """Appends to a rule set's stream, unless something has happened to it meanwhile."""
    return Append(
        _origin(row),
        DECIDER.stream(row.aggregate_id),
        [NewEvent(fact)],
        expected_version=row.version,
    )
