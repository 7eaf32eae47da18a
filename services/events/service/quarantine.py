"""What the events service answers about customer events in quarantine.

What is resubmitted is read and judged before the group commit, for the fact in quarantine never
changes; in it is only seen whether it is still there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rapport.events.v1 import quarantine_pb2 as pb
from rapport.events.v1.events_pb2 import CustomerEventRecorded, QuarantinedEventDiscarded
from rapport.events.v1.quarantine_pb2_grpc import QuarantineServiceServicer
from services.events.fixes import Fixes, judged_again, read_patch
from services.events.leaving import COLLECTION, Leaving
from services.events.projections.erased import erased_until
from services.events.projections.quarantine import (
    QuarantineView,
    count_matching,
    kept,
    list_quarantined,
    oldest_matching,
    quarantined_event_of,
)
from services.events.projections.suppressions import suppressed_among, suppression_key
from services.events.receipts import ERASED, SUPPRESSED, is_erased, traces_of
from services.events.schema import Refusal
from services.events.service.customer_events import message_id_in
from services.events.suppressed import hashes_of
from services.kernel.command.decider import request_of
from services.kernel.command.work import Outcome, Work
from services.kernel.erasing.subjects import hash_key_of
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.log import Origin
from services.kernel.log.recorded import utc
from services.kernel.log.tokens import encode_write_token
from services.kernel.rpc.caller import current_caller

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from google.protobuf.message import Message

    from services.events.door import Admitted
    from services.events.projections.doors import Doors
    from services.kernel.process.runtime import Kernel

    Command = pb.ResubmitQuarantinedEventsRequest | pb.DiscardQuarantinedEventsRequest

RESUBMIT_MAX = 1_000
DISCARD_MAX = 1_000
RESUBMISSIONS_AT_ONCE_MAX = 2
"""Each holds up to RESUBMIT_MAX customer events in memory; who comes then waits."""


class _Chosen(NamedTuple):
    """What a request is about; `matching` is how many match its filter, 0 if it has none."""

    message_ids: Sequence[str]
    next_page_token: str = ""
    matching: int = 0


class QuarantineService(QuarantineServiceServicer):
    """Customer events in quarantine in the caller's workspace."""

    def __init__(self, kernel: Kernel, doors: Doors) -> None:
        self._kernel = kernel
        self._doors = doors
        self._room = asyncio.Semaphore(RESUBMISSIONS_AT_ONCE_MAX)

    async def ListQuarantinedEvents(
        self, request: pb.ListQuarantinedEventsRequest, _: Any
    ) -> pb.ListQuarantinedEventsResponse:
        await self._kernel.freshness.wait(QuarantineView.name, request.read_token)
        workspace = current_caller().workspace
        found, token = await list_quarantined(self._kernel.pool, workspace, request)
        return pb.ListQuarantinedEventsResponse(quarantined_events=found, next_page_token=token)

    async def GetQuarantinedEvent(
        self, request: pb.GetQuarantinedEventRequest, _: Any
    ) -> pb.GetQuarantinedEventResponse:
        message_id = message_id_in(request.name, COLLECTION)
        await self._kernel.freshness.wait(QuarantineView.name, request.read_token)
        found = await kept(self._kernel.pool, current_caller().workspace, [message_id])
        if message_id not in found:
            raise NotFound(request.name)
        return pb.GetQuarantinedEventResponse(
            quarantined_event=quarantined_event_of(found[message_id])
        )

    async def ResubmitQuarantinedEvents(
        self, request: pb.ResubmitQuarantinedEventsRequest, _: Any
    ) -> pb.ResubmitQuarantinedEventsResponse:
        fixes = _fixes(request)
        async with self._room:
            chosen = await self._chosen(request, request.page_token, RESUBMIT_MAX)
            leaving = await self._judged(chosen.message_ids, fixes, _origin(request))

            def respond(outcome: Outcome) -> pb.ResubmitQuarantinedEventsResponse:
                left = chosen.matching - leaving.left_quarantine()
                return pb.ResubmitQuarantinedEventsResponse(
                    receipts=leaving.receipts(outcome.events),
                    left_count=max(left, 0) if request.filter else leaving.stayed(),
                    next_page_token=chosen.next_page_token,
                    write_token=self._token(leaving, outcome),
                )

            answer = await self._commit(request, leaving, respond)
        return cast("pb.ResubmitQuarantinedEventsResponse", answer)

    async def DiscardQuarantinedEvents(
        self, request: pb.DiscardQuarantinedEventsRequest, _: Any
    ) -> pb.DiscardQuarantinedEventsResponse:
        chosen = await self._chosen(request, "", DISCARD_MAX)
        fact = QuarantinedEventDiscarded(comment=request.comment)
        facts = dict.fromkeys(chosen.message_ids, fact)
        leaving = Leaving(_origin(request), chosen.message_ids, facts=facts)

        def respond(outcome: Outcome) -> pb.DiscardQuarantinedEventsResponse:
            return pb.DiscardQuarantinedEventsResponse(
                receipts=leaving.receipts(outcome.events),
                left_count=max(chosen.matching - leaving.left_quarantine(), 0),
                write_token=self._token(leaving, outcome),
            )

        answer = await self._commit(request, leaving, respond)
        return cast("pb.DiscardQuarantinedEventsResponse", answer)

    async def _chosen(self, request: Command, page_token: str, count: int) -> _Chosen:
        """What is named, or the oldest that match the filter."""
        if request.names:
            return _Chosen(
                [
                    message_id_in(name, COLLECTION, f"names[{place}]")
                    for place, name in enumerate(request.names)
                ]
            )
        pool, workspace = self._kernel.pool, current_caller().workspace
        matching = await count_matching(pool, workspace, request.filter)
        message_ids, next_page_token = await oldest_matching(
            pool, workspace, filter_text=request.filter, page_token=page_token, count=count
        )
        return _Chosen(message_ids, next_page_token, matching)

    async def _judged(self, message_ids: Sequence[str], fixes: Fixes, origin: Origin) -> Leaving:
        """Mends what is in quarantine and holds it against the rules in force."""
        found = await kept(self._kernel.pool, origin.workspace, message_ids)
        judged: dict[str, Admitted | Refusal] = {}
        for message_id, each in found.items():
            door = await self._doors.of(origin.workspace, each.customer_event.source)
            judged[message_id] = judged_again(door, fixes.mended(each.customer_event))
        suppressed = await self._suppressed(origin.workspace, judged)
        erased = await self._erased(origin.workspace, judged)
        refused = {
            message_id: refusal
            for message_id, each in judged.items()
            if (refusal := _why_it_stays(each)) is not None
        }
        refused |= dict.fromkeys(erased, ERASED) | dict.fromkeys(suppressed, SUPPRESSED)
        facts = {
            message_id: CustomerEventRecorded(customer_event=each.opened.event)
            for message_id, each in judged.items()
            if not isinstance(each, Refusal)
        }
        versions = {message_id: each.version for message_id, each in found.items()}
        return Leaving(origin, message_ids, facts=facts, refused=refused, versions=versions)

    async def _suppressed(
        self, workspace: str, judged: Mapping[str, Admitted | Refusal]
    ) -> list[str]:
        """Which of them come with an identifier that has been suppressed meanwhile."""
        key = suppression_key(self._kernel.derive_key, workspace)
        suspects = {
            message_id: hashes_of(key, each.carried)
            for message_id, each in judged.items()
            if not isinstance(each, Refusal) and each.carried
        }
        if not suspects:
            return []
        asked = set().union(*suspects.values())
        found = await suppressed_among(self._kernel.pool, workspace, asked)
        return [message_id for message_id, ids in suspects.items() if not ids.isdisjoint(found)]

    async def _erased(self, workspace: str, judged: Mapping[str, Admitted | Refusal]) -> list[str]:
        """Which of them name somebody who was erased since they happened: a fix may say who."""
        key = hash_key_of(self._kernel.derive_key, workspace)
        traces = {
            message_id: frozenset(traces_of(key, each.named))
            for message_id, each in judged.items()
            if not isinstance(each, Refusal) and each.named
        }
        until = await erased_until(self._kernel.pool, workspace, set().union(*traces.values()))
        return [
            message_id
            for message_id, each in judged.items()
            if not isinstance(each, Refusal)
            and message_id in traces
            and is_erased(utc(each.opened.event.occur_time), traces[message_id], until)
        ]

    def _token(self, leaving: Leaving, outcome: Outcome) -> str:
        """Covers what others did before, too: who hears of it must be able to read it."""
        log = self._kernel.log
        places = [
            (log.partition_of(leaving.workspace, stream), position)
            for stream, position in leaving.seen.items()
        ]
        places += [(event.partition, event.position) for event in outcome.events]
        reached: dict[int, int] = {}
        for partition, position in places:
            reached[partition] = max(position, reached.get(partition, 0))
        return encode_write_token(log.service, reached)

    async def _commit(
        self, request: Command, leaving: Leaving, respond: Callable[[Outcome], Message]
    ) -> Message:
        origin = _origin(request)
        work = Work(
            origin=origin,
            decide=leaving.decide,
            respond=respond,
            request=request_of(request, request.request_id),
            probed=leaving.streams,
        )
        return await self._kernel.group_commit.submit(work)


def _why_it_stays(judged: Admitted | Refusal) -> Refusal | None:
    return judged if isinstance(judged, Refusal) else judged.quarantine


def _origin(request: Command) -> Origin:
    caller = current_caller()
    return Origin(caller.workspace, caller.actor, caller.correlation_id, request.request_id)


def _fixes(request: pb.ResubmitQuarantinedEventsRequest) -> Fixes:
    """What a request says about mending; InvalidArgument when it mends what it does not name."""
    names = set(request.names)
    by_message_id = {}
    for place, fix in enumerate(request.fixes):
        field = f"fixes[{place}].quarantined_event"
        message_id = message_id_in(fix.quarantined_event, COLLECTION, field)
        if fix.quarantined_event not in names:
            raise InvalidArgument.of(field, "is none of the names")
        if message_id in by_message_id:
            raise InvalidArgument.of(field, "is mended twice")
        by_message_id[message_id] = fix
    return Fixes(by_message_id, read_patch(request.merge_patch))
