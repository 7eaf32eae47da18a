"""Registers are compared: who was erased once is erased again from whatever was restored since.

Every system registers whom it has erased. A database that was restored from an old backup lacks
some of it, and holds these people again: it is asked once more, by hashes, for nobody knows the
values any more. Where identity itself was restored, the others tell whom it has forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from rapport.common.v1 import subjects_pb2 as subjects
from rapport.identity.v1.erasure_state_pb2 import ERASURE_STATE_FINISHED
from services.identity.asking import ACTOR, SYSTEMS, Systems
from services.identity.deciders.erasure import DECIDER, Asked, created
from services.identity.projections.erasures import (
    Row,
    erasures_of,
    workspaces_to_compare,
)
from services.kernel.errors import Aborted, RapportError
from services.kernel.log.database import transaction
from services.kernel.log.log import NO_STREAM, Append, NewEvent, Origin
from services.kernel.process.runtime import Kernel
from services.kernel.views.view import append_with_views

_log = structlog.get_logger(__name__)

Registered = Mapping[str, subjects.RegisteredErasure]


async def reconcile(kernel: Kernel, systems: Systems, *, everywhere: bool = True) -> None:
    """Compares the registers of all systems; whoever does not answer is asked the next time.

    It is for the workspaces in which we know of an erasure, or `everywhere`.
    """
    for workspace in await workspaces_to_compare(kernel.pool, everywhere=everywhere):
        own = await erasures_of(kernel.pool, workspace)
        rows = {DECIDER.name(row.aggregate_id): row for row in own}
        for system in SYSTEMS:
            try:
                listed = await systems.registered(workspace, system)
            except RapportError:
                continue
            known = {each.erasure: each for each in listed}
            await _repeat(systems, system, rows, known)
            await _adopt(kernel, workspace, [it for name, it in known.items() if name not in rows])


async def _repeat(
    systems: Systems, system: str, rows: Mapping[str, Row], known: Registered
) -> None:
    """Lets a system go on with what it had finished, and knows nothing or little of now."""
    for name, row in rows.items():
        ours = row.state.systems.get(system)
        if ours is None or ours.state != ERASURE_STATE_FINISHED:
            continue
        theirs = known.get(name)
        if theirs is not None and theirs.finished and set(row.state.hashes) <= {*theirs.hashes}:
            continue
        _log.warning("erasure.repeated", erasure=name, system=system)
        request = subjects.EraseSubjectRequest(
            erasure=name,
            key=row.state.fact_key(),
            hashes=row.state.hashes,
            nodes=[node for _, node in row.state.subjects],
            anonymise=row.state.anonymises,
        )
        try:
            await systems.erase(row.workspace, system, request)
        except RapportError as error:  # the others are not kept from it
            _log.warning("erasure.not_repeated", erasure=name, system=system, error=repr(error))


async def _adopt(
    kernel: Kernel, workspace: str, forgotten: Sequence[subjects.RegisteredErasure]
) -> None:
    """Begins erasures anew of which only other systems know."""
    for known in forgotten:
        try:
            erasure_id = DECIDER.aggregate_id(known.erasure)
        except RapportError:  # no erasure of a person
            continue
        asked = Asked(
            name=known.erasure,
            subjects=[("", node) for node in known.nodes],
            hashes=list(known.hashes),
            key=known.key,
            systems=SYSTEMS,
        )
        _log.warning("erasure.adopted", erasure=known.erasure)
        origin = Origin(workspace, ACTOR, "", known.erasure)
        append = Append(origin, DECIDER.stream(erasure_id), [NewEvent(created(asked))], NO_STREAM)
        try:
            async with transaction(kernel.pool) as tx:
                await append_with_views(tx, kernel.log, kernel.views, [append])
        except Aborted:  # another process was faster
            continue
