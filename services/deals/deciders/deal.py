"""The rules of a deal: what may be asked of it, and the facts that follow.

A deal moves between the open stages of a pipeline in any direction, is won or lost into one of its
closing stages, and may be opened again (`deal_moves`). What it is about is changed field by field
(`deal_changes`). What is asked of a deleted deal is refused until it is undeleted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial

from google.protobuf.message import Message

from rapport.deals.v1.events_pb2 import DealDeleted, DealOpened, DealUndeleted
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_UNSPECIFIED,
    DeleteDealRequest,
    LoseDealRequest,
    MoveDealStageRequest,
    MoveDealToPipelineRequest,
    OpenDealRequest,
    ReopenDealRequest,
    UndeleteDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.values_pb2 import STAGE_KIND_OPEN, DealContact
from services.deals.deal import State, evolve
from services.deals.deciders import deal_changes, deal_moves
from services.deals.deciders.deal_changes import (
    known_amount,
    known_contacts,
    known_name,
    known_time,
)
from services.deals.deciders.deal_moves import Placed, told_time, with_required_fields
from services.deals.pipeline import STARTING, STARTING_ID, Pipeline
from services.kernel.command.decider import Decider
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.kernel.log.recorded import timestamp_of

Command = (
    OpenDealRequest
    | UpdateDealRequest
    | deal_moves.Command
    | DeleteDealRequest
    | UndeleteDealRequest
)


def decide(
    now: datetime, pipelines: Mapping[str, Pipeline], command: Command, state: State
) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it.

    `pipelines` are those of the workspace, by id.
    """
    match command:
        case OpenDealRequest():
            return open_deal(now, pipelines, command, state)
        case UpdateDealRequest():
            return deal_changes.update(now, command, in_use(command.name, state))
        case DeleteDealRequest():
            return delete(now, existing(command.name, state))
        case UndeleteDealRequest():
            return undelete(now, existing(command.name, state))
        case (
            MoveDealStageRequest()
            | MoveDealToPipelineRequest()
            | WinDealRequest()
            | LoseDealRequest()
            | ReopenDealRequest()
        ):
            return deal_moves.decide(now, pipelines, command, in_use(command.name, state))


def open_deal(
    now: datetime, pipelines: Mapping[str, Pipeline], command: OpenDealRequest, state: State
) -> Sequence[Message]:
    """A new deal needs a free id, an amount that can be added up, and an open stage."""
    if state.state != DEAL_STATE_UNSPECIFIED:
        raise AlreadyExists(f"deals/{command.deal_id}", "deal_id")
    if command.contact and command.contacts:
        raise InvalidArgument.of("contacts", "give either contact or contacts")
    contacts = command.contacts or [DealContact(contact=command.contact)] * bool(command.contact)
    placed = (
        Placed.named(pipelines, command.stage, STAGE_KIND_OPEN)
        if command.stage
        else Placed.first(pipelines, STARTING_ID, STAGE_KIND_OPEN)
    )
    opened = DealOpened(
        display_name=known_name("display_name", command.display_name),
        contact=contacts[0].contact if contacts else "",
        contacts=known_contacts("contacts", contacts),
        company=command.company,
        owner=command.owner,
        team=command.team,
        stage=placed.name,
        next_step=command.next_step,
        custom_fields=command.custom_fields,
        forecast_category=command.forecast_category_override,
        occur_time=told_time(now, command, None),
    )
    if command.HasField("probability_bp_override"):
        opened.probability_bp = command.probability_bp_override
    if command.HasField("amount"):
        opened.amount.CopyFrom(known_amount("amount", command.amount))
    if command.HasField("expected_close_time"):
        known = known_time("expected_close_time", command.expected_close_time)
        opened.expected_close_time.CopyFrom(known)
    with_required_fields(placed, evolve(state, opened))
    return [opened]


def delete(now: datetime, state: State) -> Sequence[Message]:
    """Deleting twice is deleting once."""
    return [] if state.delete_time else [DealDeleted(occur_time=timestamp_of(now))]


def undelete(now: datetime, state: State) -> Sequence[Message]:
    """What is not deleted stays as it is."""
    return [DealUndeleted(occur_time=timestamp_of(now))] if state.delete_time else []


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a deal that nobody opened."""
    if state.state == DEAL_STATE_UNSPECIFIED:
        raise NotFound(name)
    return state


def in_use(name: str, state: State) -> State:
    """Refuses what is asked of a deleted deal, too."""
    if existing(name, state).delete_time:
        raise FailedPrecondition(f"{name} is deleted", resource=name, state="DELETED")
    return state


def decider_at(now: datetime, pipelines: Mapping[str, Pipeline]) -> Decider[Command, State]:
    """The rules at a moment, for a workspace with these pipelines."""
    return Decider(
        category="deal",
        collection="deals",
        initial=State(),
        decide=partial(decide, now, pipelines),
        evolve=evolve,
        shape=2,
    )


DECIDER = decider_at(datetime.min.replace(tzinfo=UTC), {STARTING_ID: STARTING})
"""The rules for who only reads."""
