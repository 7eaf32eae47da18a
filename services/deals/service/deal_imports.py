"""What imports of deals answer: each deal is judged by itself, the good ones are recorded at once.

What a deal leads to is decided before the transaction, of nothing but the import itself; in the
transaction it is only made sure that the deal is still not there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from rapport.deals.v1 import imports_pb2 as pb
from rapport.deals.v1.imports_pb2_grpc import DealImportsServiceServicer
from services.deals.deciders.deal import DECIDER
from services.deals.deciders.deal_import import Told, Wrong, recorder, telling, told_wrong
from services.deals.projections.deal_histories import load_beginnings
from services.deals.projections.pipelines import load_pipelines
from services.kernel.errors import Aborted, InvalidArgument, Reason
from services.kernel.rpc.caller import current_caller
from services.kernel.rpc.validation import validate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from services.deals.deal import State
    from services.deals.pipeline import Pipeline
    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel

# As many facts as are recorded in a few seconds, in which nobody else records any.
BATCH_FACTS_MAX: Final = 3_000
# How often a batch is judged anew because one of its deals came to be meanwhile.
ATTEMPTS_MAX: Final = 3
# How long nobody else is served while a batch is judged, but for the change that is at hand then.
JUDGING_S_MAX: Final = 0.02

_TOO_MANY: Final = Wrong(
    str(Reason.LIMIT_REACHED),
    "changes",
    f"a batch leads to at most {BATCH_FACTS_MAX} facts: send this deal in another one",
)
_IMPORTED: Final = pb.DEAL_IMPORT_OUTCOME_IMPORTED

T = TypeVar("T")


class DealImportsService(DealImportsServiceServicer):
    """Imports of deals into the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ImportDeals(self, request: pb.ImportDealsRequest, _: Any) -> pb.ImportDealsResponse:
        attempt = 1
        while True:
            try:
                return await self._import(request)
            except Aborted:
                if attempt == ATTEMPTS_MAX:
                    raise
            attempt += 1

    async def _import(self, request: pb.ImportDealsRequest) -> pb.ImportDealsResponse:
        workspace = current_caller().workspace
        pipelines = await load_pipelines(self._kernel.pool, workspace)
        told = await in_turns(judged(self._kernel.clock.now(), pipelines, request.deals))
        pairs = list(zip(request.deals, told, strict=True))
        lengths = {deal.deal_id: len(each.facts) for deal, each in pairs if each.facts}
        there = await load_beginnings(self._kernel.pool, workspace, lengths)
        results = [_result(deal, each, there) for deal, each in pairs]
        if request.validate_only:
            return pb.ImportDealsResponse(results=results)

        def respond(decided: Sequence[Decided[State]]) -> pb.ImportDealsResponse:
            token = decided[0].write_token if decided else ""
            return pb.ImportDealsResponse(results=results, write_token=token)

        new = [
            (deal, each)
            for (deal, each), result in zip(pairs, results, strict=True)
            if result.outcome == _IMPORTED
        ]
        return await self._kernel.commands.execute_all(
            recorder({deal.deal_id: each for deal, each in new}),
            {deal.deal_id: deal for deal, _ in new},
            request,
            respond,
        )


def judged(
    now: datetime, pipelines: Mapping[str, Pipeline], deals: Sequence[pb.ImportedDeal]
) -> Iterator[Told | None]:
    """What each deal leads to, or what is wrong with it; None where others may be served first.

    That its name stood in the batch already is wrong, too, and that there is no room for its facts.
    """
    seen: set[str] = set()
    count = 0
    for deal in deals:
        try:
            validate(deal)
            if _has_null(deal):
                raise InvalidArgument.of("", "has the character U+0000, which cannot be stored")
            if deal.deal_id in seen:
                raise InvalidArgument.of("deal_id", "stands twice in the batch: the first counts")
        except InvalidArgument as error:
            yield Told(wrong=told_wrong(error))
            continue
        seen.add(deal.deal_id)
        told = yield from telling(now, pipelines, deal)
        fits = count + len(told.facts) <= BATCH_FACTS_MAX
        count += len(told.facts) * fits
        yield told if fits else Told(wrong=(_TOO_MANY,))


async def in_turns(work: Iterator[T | None]) -> list[T]:
    """What comes of work, others being served in between."""
    loop = asyncio.get_running_loop()
    found: list[T] = []
    ends_at = loop.time() + JUDGING_S_MAX
    for each in work:
        if each is not None:
            found.append(each)
        if loop.time() >= ends_at:
            await asyncio.sleep(0)
            ends_at = loop.time() + JUDGING_S_MAX
    return found


def _has_null(message: Message) -> bool:
    """Whether a text in a message has a character that the database cannot store."""
    if b"\0" not in message.SerializeToString():
        return False
    for field, value in message.ListFields():
        if field.type == FieldDescriptor.TYPE_STRING:
            if any("\0" in text for text in ([value] if isinstance(value, str) else value)):
                return True
        elif field.message_type and field.message_type.GetOptions().map_entry:
            if any("\0" in text for pair in value.items() for text in pair):
                return True
        elif field.message_type and any(map(_has_null, _each(value))):
            return True
    return False


def _each(value: Any) -> Sequence[Message]:
    return [value] if isinstance(value, Message) else value


def _result(
    deal: pb.ImportedDeal, told: Told, there: Mapping[str, Sequence[State]]
) -> pb.ImportDealResult:
    """What becomes of a deal, by what is there of it."""
    name = DECIDER.name(deal.deal_id)
    result = pb.ImportDealResult(name=name, row=deal.row)
    if told.wrong:
        result.outcome = pb.DEAL_IMPORT_OUTCOME_REFUSED
        result.errors.extend(map(_error, told.wrong))
    elif deal.deal_id not in there:
        result.outcome = _IMPORTED
    elif tuple(there[deal.deal_id]) == told.states:
        result.outcome = pb.DEAL_IMPORT_OUTCOME_UNCHANGED
    else:
        result.outcome = pb.DEAL_IMPORT_OUTCOME_CONFLICT
        rule = f"{name} is there with another history, and is left as it is"
        result.errors.append(_error(Wrong(str(Reason.RESOURCE_EXISTS), "deal_id", rule)))
    return result


def _error(wrong: Wrong) -> pb.DealImportError:
    return pb.DealImportError(reason=wrong.reason, field=wrong.field, detail=wrong.detail)
