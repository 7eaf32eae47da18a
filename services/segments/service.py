"""What segments answer: each RPC executes a command or asks a question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.segments.v1.events_pb2 import ProfileEnteredSegment, ProfileExitedSegment
from rapport.segments.v1.service_pb2 import (
    SEGMENT_DIRECTION_ENTERED,
    SEGMENT_DIRECTION_EXITED,
    ArchiveSegmentRequest,
    ArchiveSegmentResponse,
    CreateSegmentRequest,
    CreateSegmentResponse,
    GetSegmentRequest,
    GetSegmentResponse,
    ListProfileSegmentsRequest,
    ListProfileSegmentsResponse,
    ListSegmentMembersRequest,
    ListSegmentMembersResponse,
    ListSegmentsRequest,
    ListSegmentsResponse,
    SegmentTransition,
    WatchSegmentRequest,
    WatchSegmentResponse,
)
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceServicer
from services.kernel.command.decider import Decided
from services.kernel.errors import DeadlineExceeded
from services.kernel.log.recorded import Recorded, timestamp_of
from services.kernel.log.tokens import decode_write_token, encode_write_token
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller
from services.kernel.views.freshness import ANSWER_RESERVE_S, SAFETY_POLL_S, WAIT_DEFAULT_S
from services.segments.decider import DECIDER, MEMBERSHIP, Command, State
from services.segments.projections.agenda import is_filled
from services.segments.projections.facts import ProfileFactsView
from services.segments.projections.segments import (
    SEGMENT_ROWS,
    Row,
    SegmentsView,
    list_members,
    list_profile_segments,
    list_segments,
    segment_of,
)

M = TypeVar("M", bound=Message)


class SegmentsService(SegmentsServiceServicer):
    """Segments of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreateSegment(self, request: CreateSegmentRequest, _: Any) -> CreateSegmentResponse:
        segment_id = request.segment_id or str(self._kernel.new_id())
        return await self._execute(segment_id, request, CreateSegmentResponse)

    async def ArchiveSegment(
        self, request: ArchiveSegmentRequest, _: Any
    ) -> ArchiveSegmentResponse:
        segment_id = DECIDER.aggregate_id(request.name)
        return await self._execute(segment_id, request, ArchiveSegmentResponse)

    async def GetSegment(self, request: GetSegmentRequest, _: Any) -> GetSegmentResponse:
        await self._kernel.freshness.wait(SegmentsView.name, request.read_token)
        row = await self._existing(request.name)
        return GetSegmentResponse(segment=segment_of(row.aggregate_id, row))

    async def ListSegments(self, request: ListSegmentsRequest, _: Any) -> ListSegmentsResponse:
        await self._kernel.freshness.wait(SegmentsView.name, request.read_token)
        return await list_segments(self._kernel.pool, current_caller().workspace, request)

    async def ListSegmentMembers(
        self, request: ListSegmentMembersRequest, _: Any
    ) -> ListSegmentMembersResponse:
        await self._kernel.freshness.wait(ProfileFactsView.name, request.read_token)
        row = await self._existing(request.name)
        await self._until_filled(row, request.read_token)
        return await list_members(self._kernel.pool, row.workspace, row.aggregate_id, request)

    async def ListProfileSegments(
        self, request: ListProfileSegmentsRequest, _: Any
    ) -> ListProfileSegmentsResponse:
        await self._kernel.freshness.wait(ProfileFactsView.name, request.read_token)
        return await list_profile_segments(self._kernel.pool, current_caller().workspace, request)

    async def WatchSegment(
        self, request: WatchSegmentRequest, _: Any
    ) -> AsyncIterator[WatchSegmentResponse]:
        row = await self._existing(request.name)
        after = await self._kernel.follower.begin(self._kernel.log.service, request.resume_token)
        # Tells at once where the watch begins, so that who loses it early can resume, too.
        yield WatchSegmentResponse(resume_token=self._resume_token(after))
        async for events, reached in self._kernel.follower.follow(row.workspace, after):
            transitions = transitions_of(row.aggregate_id, events)
            if transitions:
                token = self._resume_token(reached)
                yield WatchSegmentResponse(transitions=transitions, resume_token=token)

    async def _execute(self, segment_id: str, command: Command, response: Callable[..., M]) -> M:
        """Executes a command on a segment and answers with what became of it."""

        def respond(decided: Decided[State]) -> M:
            segment = segment_of(segment_id, decided)
            return response(segment=segment, write_token=decided.write_token)

        return await self._kernel.commands.execute(DECIDER, segment_id, command, respond)

    async def _existing(self, name: str) -> Row:
        return await SEGMENT_ROWS.existing(self._kernel.pool, current_caller().workspace, name)

    async def _until_filled(self, row: Row, read_token: str) -> None:
        """Who hands in a write of ours, as after CreateSegment, sees the members that follow."""
        own = {landing.service for landing in decode_write_token(read_token)}
        if self._kernel.log.service not in own or row.state.is_archived:
            return
        remaining_s = current_caller().remaining_s
        wait_s = WAIT_DEFAULT_S if remaining_s is None else remaining_s - ANSWER_RESERVE_S
        try:
            async with asyncio.timeout(max(wait_s, 0.0)):
                with self._kernel.bell.listening() as heard:
                    while not await is_filled(self._kernel.pool, row.workspace, row.aggregate_id):
                        await _next_ring(heard)
        except TimeoutError:
            raise DeadlineExceeded.view_behind(SegmentsView.name) from None

    def _resume_token(self, reached: dict[int, int]) -> str:
        return encode_write_token(self._kernel.log.service, reached)


def transitions_of(segment_id: str, events: Sequence[Recorded]) -> list[SegmentTransition]:
    """Returns who entered and exited a segment, in order."""
    transitions = []
    for event in events:
        fact = event.event
        if event.stream != f"{MEMBERSHIP}-{segment_id}":
            continue
        assert isinstance(fact, ProfileEnteredSegment | ProfileExitedSegment)
        is_entry = isinstance(fact, ProfileEnteredSegment)
        transitions.append(
            SegmentTransition(
                profile=fact.profile,
                direction=SEGMENT_DIRECTION_ENTERED if is_entry else SEGMENT_DIRECTION_EXITED,
                occur_time=timestamp_of(event.occur_time),
            )
        )
    return transitions


async def _next_ring(heard: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(SAFETY_POLL_S):
            await heard.wait()
    except TimeoutError:
        return
    heard.clear()
