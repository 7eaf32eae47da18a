"""What identity is told and asked about erasing people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from asyncpg import Pool
from google.protobuf.message import Message

from rapport.common.v1.subjects_pb2 import FactKey
from rapport.identity.v1 import erasures_pb2 as pb
from rapport.identity.v1.erasures_pb2_grpc import ErasuresServiceServicer
from rapport.identity.v1.service_pb2 import Identifier as Named
from services.identity.asking import SUPPRESSION, SYSTEMS, Systems, nodes_of, said, spellings
from services.identity.changes import name_of
from services.identity.deciders.erasure import DECIDER, OPEN, Asked, Command, State, decider_about
from services.identity.projections.erasure_work import Sealed, try_at_once
from services.identity.projections.erasures import (
    ErasuresView,
    erasure_of,
    get_erasure,
    list_erasures,
)
from services.identity.projections.profiles import find_profile_id
from services.identity.projections.rules_in_force import rules_of
from services.identity.rules import Rules
from services.identity.service.verdicts import identified
from services.kernel.command.decider import Decided, Decider
from services.kernel.errors import NotFound, RapportError, ResourceExhausted
from services.kernel.log.bell import heard_within
from services.kernel.log.recorded import timestamp_of
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller, draining

# What an erasure may be about: a profile cannot be larger.
IDENTIFIERS_PER_ERASURE_MAX = 1_000
TAKES_LONG = "to tell takes longer than this call may: ask with a later deadline"
WATCH_PAUSE_S = 0.2
WATCH_INTERVAL_S = 2.0

M = TypeVar("M", bound=Message)

_VALUES = """
select type, value from profiles.nodes where workspace = $1 and profile = $2 limit $3
"""


class ErasuresService(ErasuresServiceServicer):
    """Erasures of people of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._systems = Systems(kernel)

    async def CreateErasure(
        self, request: pb.CreateErasureRequest, _: Any
    ) -> pb.CreateErasureResponse:
        workspace = current_caller().workspace
        rules = await rules_of(self._kernel.pool, workspace)
        erasure_id = request.erasure_id or str(self._kernel.new_id())
        try:
            profile, identifiers = await self._subject(workspace, rules, request)
        except NotFound:
            if not request.request_id or request.validate_only:
                raise
            # Who asks once more asks about somebody who is erased by now.
            nobody = Asked(DECIDER.name(erasure_id), (), (), FactKey(), ())
            return await self._execute(
                decider_about(nobody), erasure_id, request, pb.CreateErasureResponse
            )
        spelled = spellings(rules, identifiers)
        previews = await self._previews(workspace, spelled)
        for _preview, also in previews:
            identifiers |= also
        if request.validate_only:
            preview = pb.ErasurePreview(
                profile=name_of(profile) if profile else "",
                identifiers=[Named(type=name, value=value) for name, value in sorted(identifiers)],
                systems=[told for told, _ in previews],
            )
            return pb.CreateErasureResponse(preview=preview)
        identifiers |= spelled
        if len(identifiers) > IDENTIFIERS_PER_ERASURE_MAX:
            raise ResourceExhausted("IDENTIFIERS_PER_ERASURE_MAX", IDENTIFIERS_PER_ERASURE_MAX)
        asked = self._asked(workspace, rules, erasure_id, identifiers, suppress=request.suppress)
        # Kept first: the fact that begins the erasure holds no value.
        sealed = Sealed(self._kernel.derive_key, workspace, erasure_id)
        if not await self._exists(workspace, erasure_id):
            await sealed.keep(self._kernel.pool, identifiers, self._kernel.clock.now())
        return await self._execute(
            decider_about(asked), erasure_id, request, pb.CreateErasureResponse
        )

    async def RetryErasure(
        self, request: pb.RetryErasureRequest, _: Any
    ) -> pb.RetryErasureResponse:
        asked = Asked(request.name, (), (), FactKey(), ())
        erasure_id = DECIDER.aggregate_id(request.name)
        retried = await self._execute(
            decider_about(asked), erasure_id, request, pb.RetryErasureResponse
        )
        await try_at_once(self._kernel.pool, current_caller().workspace, erasure_id)
        return retried

    async def GetErasure(self, request: pb.GetErasureRequest, _: Any) -> pb.GetErasureResponse:
        await self._kernel.freshness.wait(ErasuresView.name, request.read_token)
        return pb.GetErasureResponse(erasure=await self._shown(request.name))

    async def ListErasures(
        self, request: pb.ListErasuresRequest, _: Any
    ) -> pb.ListErasuresResponse:
        await self._kernel.freshness.wait(ErasuresView.name, request.read_token)
        return await list_erasures(self._kernel.pool, current_caller().workspace, request)

    async def WatchErasure(
        self, request: pb.WatchErasureRequest, _: Any
    ) -> AsyncIterator[pb.WatchErasureResponse]:
        told = None
        with self._kernel.bell.listening() as heard:
            while not draining().is_set():
                heard.clear()
                shown = await self._shown(request.name)
                if shown != told:
                    yield pb.WatchErasureResponse(erasure=shown)
                if shown.state not in OPEN:
                    return
                told = shown
                # Whatever is recorded rings the bell: that alone is no reason to look at once.
                await asyncio.sleep(WATCH_PAUSE_S)
                await heard_within(heard, WATCH_INTERVAL_S)

    async def _subject(
        self, workspace: str, rules: Rules, request: pb.CreateErasureRequest
    ) -> tuple[str, set[tuple[str, str]]]:
        """The profile, if there is one, and all that the person is known by."""
        pool = self._kernel.pool
        if request.HasField("identifier"):
            known = identified(rules, workspace, request.identifier, "identifier")
            own = {(known.type, known.value)}
            try:
                profile = await find_profile_id(pool, workspace, name_of(known.node))
            except NotFound:
                return "", own
            return profile, own | await _values_of(pool, workspace, profile)
        profile = await find_profile_id(pool, workspace, request.profile)
        return profile, await _values_of(pool, workspace, profile)

    async def _previews(
        self, workspace: str, identifiers: set[tuple[str, str]]
    ) -> list[tuple[pb.SystemPreview, set[tuple[str, str]]]]:
        """What each system would lose, and what would go with it."""
        return await asyncio.gather(
            *(self._preview(workspace, system, identifiers) for system in SYSTEMS)
        )

    async def _preview(
        self, workspace: str, system: str, identifiers: set[tuple[str, str]]
    ) -> tuple[pb.SystemPreview, set[tuple[str, str]]]:
        try:
            async with asyncio.timeout(_half_of_the_time_left()):
                found = await self._systems.preview(workspace, system, identifiers)
        except TimeoutError:
            return pb.SystemPreview(system=system, problem=TAKES_LONG), set()
        except RapportError as error:
            # Who does not answer now tells when it erases: nothing is missed.
            return pb.SystemPreview(system=system, problem=error.message), set()
        return pb.SystemPreview(system=system, counts=found.counts), said(found.also)

    def _asked(
        self,
        workspace: str,
        rules: Rules,
        erasure_id: str,
        identifiers: set[tuple[str, str]],
        *,
        suppress: bool,
    ) -> Asked:
        key = FactKey(
            receive_time=timestamp_of(self._kernel.clock.now()),
            event_id=str(self._kernel.new_id()),
        )
        return Asked(
            name=DECIDER.name(erasure_id),
            subjects=sorted(set(nodes_of(rules, workspace, identifiers).values())),
            hashes=sorted({self._systems.hash(workspace, *known) for known in identifiers}),
            key=key,
            systems=[*([SUPPRESSION] if suppress else []), *SYSTEMS],
        )

    async def _execute(
        self,
        decider: Decider[Command, State],
        erasure_id: str,
        command: Command,
        response: Callable[..., M],
    ) -> M:
        def respond(decided: Decided[State]) -> M:
            shown = erasure_of(erasure_id, decided, {})
            return response(erasure=shown, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, erasure_id, command, respond)

    async def _exists(self, workspace: str, erasure_id: str) -> bool:
        try:
            await get_erasure(self._kernel.pool, workspace, DECIDER.name(erasure_id))
        except NotFound:
            return False
        return True

    async def _shown(self, name: str) -> pb.Erasure:
        return await get_erasure(self._kernel.pool, current_caller().workspace, name)


def _half_of_the_time_left() -> float | None:
    """How long others may look for what would go: an erasure is begun even if they take longer."""
    remaining_s = current_caller().remaining_s
    return None if remaining_s is None else remaining_s / 2


async def _values_of(pool: Pool, workspace: str, profile: str) -> set[tuple[str, str]]:
    """All that a profile is known by."""
    rows = await pool.fetch(_VALUES, workspace, profile, IDENTIFIERS_PER_ERASURE_MAX + 1)
    return {(row["type"], row["value"]) for row in rows}
