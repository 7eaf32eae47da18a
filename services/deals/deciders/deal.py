"""The rules of a deal: what may be asked of it, and the facts that follow.

There is one pipeline, a constant. A deal may move between its stages in any direction while it is
open; what was won or lost stays so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1.events_pb2 import DealLost, DealOpened, DealStageChanged, DealWon
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_LOST,
    DEAL_STATE_OPEN,
    DEAL_STATE_UNSPECIFIED,
    DEAL_STATE_WON,
    DealState,
    LoseDealRequest,
    MoveDealStageRequest,
    OpenDealRequest,
    WinDealRequest,
)
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.kernel.log.recorded import utc

Command = OpenDealRequest | MoveDealStageRequest | WinDealRequest | LoseDealRequest

PIPELINE = "pipelines/sales"
STAGES = tuple(
    f"{PIPELINE}/stages/{stage}" for stage in ("qualification", "proposal", "negotiation")
)
"""The open stages in their order; a deal starts in the first unless told otherwise."""

AMOUNT_MINOR_MAX = 10**15
"""Small enough that the sums of thousands of such deals are exact in 64 bits."""


@dataclass(frozen=True, slots=True)
class State:
    """A deal as its events leave it; before the first of them its state is not specified.

    Without a currency its amount is not known. `stage` of a closed deal is the last open one.
    """

    state: DealState.ValueType = DEAL_STATE_UNSPECIFIED
    display_name: str = ""
    contact: str = ""
    amount_minor: int = 0
    currency: str = ""
    stage: str = ""
    lost_reason: str = ""
    expected_close_time: datetime | None = None
    custom_fields: dict[str, str] = field(default_factory=dict)

    @property
    def amount(self) -> Money | None:
        """What it is worth, if that is known."""
        if not self.currency:
            return None
        return Money(amount_minor=self.amount_minor, currency=self.currency)


def decide(command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case OpenDealRequest():
            return open_deal(command, state)
        case MoveDealStageRequest():
            return move(command, existing(command.name, state))
        case WinDealRequest():
            return win(command, existing(command.name, state))
        case LoseDealRequest():
            return lose(command, existing(command.name, state))


def open_deal(command: OpenDealRequest, state: State) -> Sequence[Message]:
    """A new deal needs a free id, an amount that can be added up, and a stage of the pipeline."""
    if state.state != DEAL_STATE_UNSPECIFIED:
        raise AlreadyExists(f"deals/{command.deal_id}", "deal_id")
    opened = DealOpened(
        display_name=command.display_name,
        contact=command.contact,
        stage=known_stage(command.stage or STAGES[0]),
        custom_fields=command.custom_fields,
    )
    if command.HasField("amount"):
        opened.amount.CopyFrom(known_amount(command.amount))
    if command.HasField("expected_close_time"):
        opened.expected_close_time.CopyFrom(known_time(command.expected_close_time))
    return [opened]


def move(command: MoveDealStageRequest, state: State) -> Sequence[Message]:
    """A deal moves while it is open; the stage it is in already is no news."""
    stage = known_stage(command.stage)
    if state.state != DEAL_STATE_OPEN:
        raise closed(command.name, state)
    if stage == state.stage:
        return []
    return [DealStageChanged(stage=stage, previous_stage=state.stage)]


def win(command: WinDealRequest, state: State) -> Sequence[Message]:
    """Winning twice is winning once; what was lost stays lost."""
    if state.state == DEAL_STATE_WON:
        return []
    if state.state != DEAL_STATE_OPEN:
        raise closed(command.name, state)
    return [DealWon(stage=state.stage, amount=state.amount, contact=state.contact)]


def lose(command: LoseDealRequest, state: State) -> Sequence[Message]:
    """Losing twice is losing once, for the first reason; what was won stays won."""
    if state.state == DEAL_STATE_LOST:
        return []
    if state.state != DEAL_STATE_OPEN:
        raise closed(command.name, state)
    lost = DealLost(
        stage=state.stage, reason=command.reason, amount=state.amount, contact=state.contact
    )
    return [lost]


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a deal that nobody opened."""
    if state.state == DEAL_STATE_UNSPECIFIED:
        raise NotFound(name)
    return state


def closed(name: str, state: State) -> FailedPrecondition:
    """Says that a deal is closed, and how."""
    ending = DealState.Name(state.state).removeprefix("DEAL_STATE_")
    return FailedPrecondition(f"{name} is {ending.lower()}", resource=name, state=ending)


def known_stage(stage: str) -> str:
    """Refuses what is no stage of the pipeline."""
    if stage not in STAGES:
        raise InvalidArgument.of("stage", f"is none of {', '.join(STAGES)}")
    return stage


def known_amount(amount: Money) -> Money:
    """Refuses what could not be added up."""
    if not amount.currency:
        raise InvalidArgument.of("amount.currency", "an amount needs a currency")
    if not 0 <= amount.amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidArgument.of("amount.amount_minor", f"lies between 0 and {AMOUNT_MINOR_MAX}")
    return amount


def known_time(time: Timestamp) -> Timestamp:
    """Refuses a moment that no calendar has."""
    try:
        utc(time)
        return time
    except OverflowError as error:
        raise InvalidArgument.of("expected_close_time", "lies outside the calendar") from error


def evolve(state: State, event: Message) -> State:
    """Returns the deal after an event."""
    match event:
        case DealOpened():
            is_expected = event.HasField("expected_close_time")
            return State(
                state=DEAL_STATE_OPEN,
                display_name=event.display_name,
                contact=event.contact,
                amount_minor=event.amount.amount_minor,
                currency=event.amount.currency,
                stage=event.stage,
                expected_close_time=utc(event.expected_close_time) if is_expected else None,
                custom_fields=dict(event.custom_fields),
            )
        case DealStageChanged():
            return replace(state, stage=event.stage)
        case DealWon():
            return replace(state, state=DEAL_STATE_WON)
        case DealLost():
            return replace(state, state=DEAL_STATE_LOST, lost_reason=event.reason)
    return state


DECIDER = Decider(
    category="deal", collection="deals", initial=State(), decide=decide, evolve=evolve
)
