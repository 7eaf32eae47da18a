"""What a command on a quote does to everybody it concerns, decided at once.

A quote, its deal and its other revisions are aggregates of their own. What follows for them from
one command is recorded in one transaction, or not at all; each function returns the facts of each
in the order in which it was given them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rapport.deals.v1.events_pb2 import (
    QuoteCreated,
    QuoteNumberAssigned,
    QuoteRevised,
    QuoteSuperseded,
)
from rapport.deals.v1.lines_pb2 import QuoteDetails, Totals
from rapport.deals.v1.quotes_pb2 import (
    QUOTE_STATE_ACCEPTED,
    QUOTE_STATE_APPROVED,
    QUOTE_STATE_DECLINED,
    QUOTE_STATE_DRAFT,
    QUOTE_STATE_PENDING_APPROVAL,
    QUOTE_STATE_SENT,
    QUOTE_STATE_SUPERSEDED,
    QUOTE_STATE_UNSPECIFIED,
    AcceptQuoteRequest,
    QuoteState,
    SendQuoteRequest,
)
from services.deals.deciders import deal, deal_moves, quote, quote_numbers
from services.deals.deciders.deal_worth import quoted
from services.deals.lines import products_of
from services.deals.quote import State, evolve, offered
from services.kernel.errors import AlreadyExists, FailedPrecondition, ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from rapport.deals.v1.quotes_pb2 import (
        CreateQuoteRequest,
        MakeQuotePrimaryRequest,
    )
    from services.deals import deal as deals

Facts = list["list[Message]"]

REVISIONS_MAX: Final = 50


def create(
    now: datetime,
    command: CreateQuoteRequest,
    name: str,
    own: State,
    of: deals.State,
    numbers: quote_numbers.State,
) -> Facts:
    """A new quote of an open deal, with the next number; the first of the deal is primary."""
    _open(command.deal, of)
    if own.state != QUOTE_STATE_UNSPECIFIED:
        raise AlreadyExists(name, "quote_id")
    details, totals = offered(command.details)
    details.contact = details.contact or of.contact
    details.company = details.company or of.company
    asked = QuoteNumberAssigned(quote=name)
    [assigned] = given = list(quote_numbers.decide(asked, numbers))
    created = QuoteCreated(
        number=assigned.number,  # type: ignore[attr-defined]  # a number is what is assigned
        revision=1,
        deal=command.deal,
        details=details,
        totals=totals,
    )
    worth = [] if of.primary_quote else quoted(now, of, name, details, totals)
    return [[created], worth, given]


def change(
    now: datetime, actor: str, name: str, command: quote.Command, own: State, of: deals.State
) -> Facts:
    """What a quote alone decides; a primary one that comes to something else tells its deal."""
    facts = list(quote.decide(now, actor, command, quote.existing(name, own)))
    after = _after(own, facts)
    is_other = (after.totals, _products(after)) != (own.totals, _products(own))
    if not is_other or of.primary_quote != name:
        return [facts, []]
    return [facts, _worth(now, name, after, of)]


def conclude(
    now: datetime,
    name: str,
    command: SendQuoteRequest | AcceptQuoteRequest,
    own: State,
    of: deals.State,
    earlier: Mapping[str, State],
) -> Facts:
    """A quote that is sent takes the place of those before it, except one that was accepted.

    Once it is accepted, it takes that one's place, too.
    """
    facts = list(quote.decide(now, "", command, quote.existing(name, own)))
    if not facts:
        return [[], [], *([] for _ in earlier)]
    is_accepted = isinstance(command, AcceptQuoteRequest)
    over = {QUOTE_STATE_APPROVED, QUOTE_STATE_SENT}
    if is_accepted:
        over.add(QUOTE_STATE_ACCEPTED)
    superseded: Facts = [
        [QuoteSuperseded(by=name)] if each.state in over else [] for each in earlier.values()
    ]
    before = earlier.get(of.primary_quote)
    if before is None or (before.state == QUOTE_STATE_ACCEPTED and not is_accepted):
        return [facts, [], *superseded]
    return [facts, _worth(now, name, own, of), *superseded]


def revise(name: str, new_name: str, own: State, of: deals.State, new: State) -> Facts:
    """A new draft says what the newest revision says, until it is changed."""
    quote.existing(name, own)
    if new.state != QUOTE_STATE_UNSPECIFIED:
        raise AlreadyExists(new_name, "quote_id")
    if own.next_revision:
        message = f"{own.next_revision} is a later revision of {name}: revise that one"
        raise FailedPrecondition(message, resource=name, state="REVISED")
    if own.state in {QUOTE_STATE_DRAFT, QUOTE_STATE_PENDING_APPROVAL}:
        said = QuoteState.Name(own.state).removeprefix("QUOTE_STATE_")
        message = f"{name} is {said}: change it as it is"
        raise FailedPrecondition(message, resource=name, state=said)
    _open(own.deal, of)
    if own.revision >= REVISIONS_MAX:
        raise ResourceExhausted("REVISIONS_MAX", REVISIONS_MAX)
    created = QuoteCreated(
        number=own.number,
        revision=own.revision + 1,
        deal=own.deal,
        earlier_revisions=[*own.earlier_revisions, name],
        details=QuoteDetails.FromString(own.details),
        totals=Totals.FromString(own.totals),
    )
    return [[QuoteRevised(next_revision=new_name)], [], [created]]


def make_primary(
    now: datetime, command: MakeQuotePrimaryRequest, own: State, of: deals.State
) -> Facts:
    """One quote of a deal is the primary one; the one that is already is no news."""
    quote.existing(command.name, own)
    if of.primary_quote == command.name:
        return [[], []]
    if own.state in {QUOTE_STATE_DECLINED, QUOTE_STATE_SUPERSEDED}:
        said = QuoteState.Name(own.state).removeprefix("QUOTE_STATE_")
        message = f"{command.name} is {said} and says nothing about its deal any more"
        raise FailedPrecondition(message, resource=command.name, state=said)
    return [[], _worth(now, command.name, own, of)]


def _worth(now: datetime, name: str, own: State, of: deals.State) -> list[Message]:
    _open(own.deal, of)
    details, totals = QuoteDetails.FromString(own.details), Totals.FromString(own.totals)
    return quoted(now, of, name, details, totals)


def _open(name: str, of: deals.State) -> None:
    """Refuses what needs an open deal: what a closed one was worth does not change any more."""
    deal_moves.still_open(name, deal.in_use(name, of))


def _after(state: State, facts: Sequence[Message]) -> State:
    for fact in facts:
        state = evolve(state, fact)
    return state


def _products(state: State) -> tuple[str, ...]:
    return products_of(QuoteDetails.FromString(state.details).line_items)
