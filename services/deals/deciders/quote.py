"""The rules of a quote: from a draft over approval to the customer, and what the customer said.

What it does to its deal and to its other revisions is decided with them, in `quoting.py`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.events_pb2 import (
    QuoteAccepted,
    QuoteApproved,
    QuoteDeclined,
    QuoteDrafted,
    QuoteRejected,
    QuoteSent,
    QuoteSubmitted,
)
from rapport.deals.v1.lines_pb2 import QuoteDetails
from rapport.deals.v1.quotes_pb2 import (
    QUOTE_STATE_ACCEPTED,
    QUOTE_STATE_APPROVED,
    QUOTE_STATE_DECLINED,
    QUOTE_STATE_DRAFT,
    QUOTE_STATE_PENDING_APPROVAL,
    QUOTE_STATE_SENT,
    QUOTE_STATE_UNSPECIFIED,
    AcceptQuoteRequest,
    ApproveQuoteRequest,
    CreateQuoteRequest,
    DeclineQuoteRequest,
    MakeQuotePrimaryRequest,
    QuoteState,
    RejectQuoteRequest,
    ReviseQuoteRequest,
    SendQuoteRequest,
    SubmitQuoteRequest,
    UpdateQuoteRequest,
)
from services.deals.lines import serialised
from services.deals.moments import known_moment
from services.deals.quote import State, evolve, offered
from services.kernel.command.decider import Decider
from services.kernel.errors import FailedPrecondition, InvalidArgument, NotFound
from services.kernel.log.recorded import timestamp_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from google.protobuf.message import Message

Command = (
    CreateQuoteRequest
    | UpdateQuoteRequest
    | SubmitQuoteRequest
    | ApproveQuoteRequest
    | RejectQuoteRequest
    | SendQuoteRequest
    | AcceptQuoteRequest
    | DeclineQuoteRequest
    | ReviseQuoteRequest
    | MakeQuotePrimaryRequest
)

FIELDS: Final = frozenset(QuoteDetails.DESCRIPTOR.fields_by_name)


def decide(now: datetime, actor: str, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts about the quote itself that follow from a command, or refuses it."""
    match command:
        case UpdateQuoteRequest():
            return update(command, state)
        case SubmitQuoteRequest() | ApproveQuoteRequest() | SendQuoteRequest():
            return go_on(now, actor, command, state)
        case RejectQuoteRequest():
            in_state(command.name, state, now, QUOTE_STATE_PENDING_APPROVAL)
            return [QuoteRejected(reason=command.reason)]
        case AcceptQuoteRequest():
            return accept(now, command, state)
        case DeclineQuoteRequest():
            return decline(command, state)
    return []


def go_on(
    now: datetime,
    actor: str,
    command: SubmitQuoteRequest | ApproveQuoteRequest | SendQuoteRequest,
    state: State,
) -> Sequence[Message]:
    """One step towards the customer; one that was made already is no news."""
    match command:
        case SubmitQuoteRequest():
            before, after = QUOTE_STATE_DRAFT, QUOTE_STATE_PENDING_APPROVAL
            fact: Message = QuoteSubmitted()
        case ApproveQuoteRequest():
            before, after = QUOTE_STATE_PENDING_APPROVAL, QUOTE_STATE_APPROVED
            fact = QuoteApproved(approver=actor)
        case SendQuoteRequest():
            before, after = QUOTE_STATE_APPROVED, QUOTE_STATE_SENT
            fact = QuoteSent(occur_time=timestamp_of(now))
    if state.state == after:
        return []
    in_state(command.name, state, now, before)
    return [fact]


def update(command: UpdateQuoteRequest, state: State) -> Sequence[Message]:
    """A draft says something else; what it says already is no news."""
    if state.state != QUOTE_STATE_DRAFT:
        said = _said(state.state)
        message = f"{command.name} is {said} and not a draft any more: revise it"
        raise FailedPrecondition(message, resource=command.name, state=said)
    before = QuoteDetails.FromString(state.details)
    details, totals = offered(merged(before, command))
    if serialised(details) == state.details:
        return []
    return [QuoteDrafted(details=details, totals=totals)]


def merged(before: QuoteDetails, command: UpdateQuoteRequest) -> QuoteDetails:
    """Details after a change of the fields that are meant: those that are set without a mask."""
    paths = set(command.update_mask.paths)
    if not paths:
        paths = {descriptor.name for descriptor, _ in command.details.ListFields()}
    if "*" in paths:
        return command.details
    for path in sorted(paths - FIELDS):
        raise InvalidArgument.of("update_mask", f"{path} is no field of a quote's details")
    after, given = QuoteDetails(), QuoteDetails()
    after.CopyFrom(before)
    given.CopyFrom(command.details)
    for name in FIELDS:
        (after if name in paths else given).ClearField(name)  # type: ignore[arg-type]
    after.MergeFrom(given)
    return after


def accept(now: datetime, command: AcceptQuoteRequest, state: State) -> Sequence[Message]:
    """Accepting twice is accepting once; it may be told late, of a day on which it was valid."""
    if state.state == QUOTE_STATE_ACCEPTED:
        return []
    accept_time = max(now, state.send_time or now)
    if command.HasField("accept_time"):
        accept_time = known_moment("accept_time", command.accept_time)
        if accept_time > now:
            raise InvalidArgument.of("accept_time", "lies in the future")
    in_state(command.name, state, accept_time, QUOTE_STATE_SENT)
    if state.send_time is not None and accept_time < state.send_time:
        raise InvalidArgument.of("accept_time", "lies before the quote was sent")
    accepted = QuoteAccepted(accepted_by=command.accepted_by, occur_time=timestamp_of(accept_time))
    return [accepted]


def decline(command: DeclineQuoteRequest, state: State) -> Sequence[Message]:
    """Declining twice is declining once, for the first reason; even what is out of date can be."""
    if state.state == QUOTE_STATE_DECLINED:
        return []
    if state.state != QUOTE_STATE_SENT:
        raise _refused(command.name, state.state, QUOTE_STATE_SENT)
    return [QuoteDeclined(reason=command.reason)]


def in_state(name: str, state: State, moment: datetime, wanted: QuoteState.ValueType) -> None:
    """Refuses what a quote cannot do at a moment, and says where it is in its life."""
    found = state.state_on(moment.date())
    if found != wanted:
        raise _refused(name, found, wanted)


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a quote that nobody created."""
    if state.state == QUOTE_STATE_UNSPECIFIED:
        raise NotFound(name)
    return state


def _refused(
    name: str, found: QuoteState.ValueType, wanted: QuoteState.ValueType
) -> FailedPrecondition:
    message = f"{name} is {_said(found)}, not {_said(wanted)}"
    return FailedPrecondition(message, resource=name, state=_said(found))


def _said(state: QuoteState.ValueType) -> str:
    return QuoteState.Name(state).removeprefix("QUOTE_STATE_")


def decider_at(now: datetime, actor: str) -> Decider[Command, State]:
    """The rules at a moment, for somebody."""
    return Decider(
        category="quote",
        collection="quotes",
        initial=State(),
        decide=partial(decide, now, actor),
        evolve=evolve,
    )


DECIDER = decider_at(datetime.min.replace(tzinfo=UTC), "")
"""The rules for who only reads."""
