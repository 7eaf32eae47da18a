"""A contract as its events leave it, and what follows from that on a day.

Nothing is recorded when a contract expires or renews itself: its dates say so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import NamedTuple

from google.protobuf.message import Message

from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import (
    CONTRACT_PARTY_CUSTOMER,
    CONTRACT_PARTY_UNSPECIFIED,
    CONTRACT_REMINDER_KIND_ENDING,
    CONTRACT_REMINDER_KIND_NOTICE_DUE,
    CONTRACT_REMINDER_KIND_RENEWAL_DUE,
    ContractParty,
    ContractReminderKind,
    ContractTerms,
)
from rapport.deals.v1.contracts_pb2 import (
    CONTRACT_STATE_ACTIVE,
    CONTRACT_STATE_DRAFT,
    CONTRACT_STATE_EXPIRED,
    CONTRACT_STATE_IN_APPROVAL,
    CONTRACT_STATE_TERMINATED,
    CONTRACT_STATE_UNSPECIFIED,
    ContractState,
)
from services.deals.terms import MONTH_DAYS_MIN, Course, Term, course_of


@dataclass(frozen=True, slots=True)
class Signature:
    """Who signed for a party, and when; nobody while there is no date."""

    signatory: str = ""
    sign_date: str = ""


@dataclass(frozen=True, slots=True)
class Reminder:
    """What somebody should be reminded of, when, and about the term that ends on which day."""

    kind: ContractReminderKind.ValueType
    due_date: str
    term_end_date: str


@dataclass(frozen=True, slots=True)
class State:
    """A contract as its events leave it; before the first of them its state is not specified.

    `state` is what was recorded: ACTIVE also after the last day, which `state_on` tells. `terms`
    are serialised. Dates are texts such as `2026-01-31`. `reminded` says for each kind of reminder
    about which term the last one was, by that term's last day.
    """

    state: ContractState.ValueType = CONTRACT_STATE_UNSPECIFIED
    terms: bytes = b""
    is_approved: bool = False
    approver: str = ""
    reject_reason: str = ""
    customer: Signature = Signature()
    company: Signature = Signature()
    activate_date: str = ""
    notice_party: ContractParty.ValueType = CONTRACT_PARTY_UNSPECIFIED
    notice_date: str = ""
    notice_end_date: str = ""
    terminate_date: str = ""
    terminate_reason: str = ""
    renews: str = ""
    renewed_by: str = ""
    renewed_end_date: str = ""
    reminded: dict[int, str] = field(default_factory=dict)
    last_reminder: Reminder | None = None

    def said(self) -> ContractTerms:
        """What it says."""
        return ContractTerms.FromString(self.terms)


class Standing(NamedTuple):
    """How a contract stands whatever day it is: what an answer on any day is made of.

    `last` is the day after which it is not in force any more, `ending` the state it then has;
    there is none while it is not in force or renews itself.
    """

    state: ContractState.ValueType
    course: Course
    last: date | None
    ending: ContractState.ValueType

    def state_on(self, day: date) -> ContractState.ValueType:
        """The state as it is shown on a day."""
        return self.state if self.last is None or day <= self.last else self.ending

    def term_on(self, day: date) -> Term:
        """The term that runs on a day, cut where the contract ends; the first before it is ACTIVE.

        The last one once it is over.
        """
        if self.state != CONTRACT_STATE_ACTIVE:
            return self.course.term(1)
        if self.last is None:
            return self.course.term_at(day)
        term = self.course.term_at(min(day, self.last))
        return replace(term, end=min(term.end, self.last))


def standing_of(state: State) -> Standing:
    """How a contract stands."""
    course = course_of(state.said())
    if state.state != CONTRACT_STATE_ACTIVE:
        return Standing(state.state, course, None, state.state)
    ends = [
        date.fromisoformat(day)
        for day in (state.notice_end_date, state.terminate_date, state.renewed_end_date)
        if day
    ]
    if not course.renewal_months:
        ends.append(course.term(1).end)
    last = min(ends, default=None)
    is_cut = last is not None and state.terminate_date == last.isoformat()
    ending = CONTRACT_STATE_TERMINATED if is_cut else CONTRACT_STATE_EXPIRED
    return Standing(state.state, course, last, ending)


def notice_term(state: State, day: date) -> Term | None:
    """The term with which notice of a day would end a contract; None if it ends anyway.

    It is the one of the day, too late for it or not; before the first day it is the first. Where
    notice may take longer than a term, it is the first term that notice is in time for.
    """
    terms, standing = state.said(), standing_of(state)
    is_over = state.state == CONTRACT_STATE_TERMINATED or standing.last is not None
    if is_over or not terms.auto_renew:
        return None
    if terms.notice_days < MONTH_DAYS_MIN * standing.course.renewal_months:
        return standing.term_on(day)
    return standing.course.term_at(day + timedelta(days=terms.notice_days))


def last_notice_date(state: State, day: date) -> date | None:
    """The last day on which notice ends a contract with its `notice_term`."""
    term = notice_term(state, day)
    return None if term is None else term.end - timedelta(days=state.said().notice_days)


def next_reminder(state: State) -> Reminder | None:
    """The reminder that comes next, unless something happens to the contract before.

    Of terms that were over when the contract was put into force there is none.
    """
    if state.state != CONTRACT_STATE_ACTIVE:
        return None
    terms, standing = state.said(), standing_of(state)
    ahead = timedelta(days=terms.renewal_reminder_days)
    activated = date.fromisoformat(state.activate_date)
    if standing.last is None:
        notice = timedelta(days=terms.notice_days)
        end = standing.course.term_at(activated + notice).end
        if reminded := state.reminded.get(CONTRACT_REMINDER_KIND_NOTICE_DUE):
            after = date.fromisoformat(reminded) + timedelta(days=1)
            end = max(end, standing.course.term_at(after).end)
        return _reminder(CONTRACT_REMINDER_KIND_NOTICE_DUE, end - notice - ahead, end)
    last = standing.last
    if last < activated:
        return None
    found = [_reminder(CONTRACT_REMINDER_KIND_ENDING, last, last)]
    if ahead and not (state.renewed_by or state.terminate_date):
        found.append(_reminder(CONTRACT_REMINDER_KIND_RENEWAL_DUE, last - ahead, last))
    missing = (each for each in found if state.reminded.get(each.kind, "") < each.term_end_date)
    return min(missing, key=lambda each: each.due_date, default=None)


def due_reminder(state: State, today: date) -> facts.ContractReminderCame | None:
    """The fact that a reminder came, when one is due."""
    reminder = next_reminder(state)
    if reminder is None or reminder.due_date > today.isoformat():
        return None
    terms = state.said()
    return facts.ContractReminderCame(
        kind=reminder.kind,
        due_date=reminder.due_date,
        term_end_date=reminder.term_end_date,
        reference=terms.reference,
        display_name=terms.display_name,
        owner=terms.owner,
        company=terms.company,
        contact=terms.contact,
    )


def evolve(state: State, event: Message) -> State:
    """Returns the contract after an event."""
    match event:
        case facts.ContractDrafted():
            terms = serialised(event.terms)
            return State(state=CONTRACT_STATE_DRAFT, terms=terms, renews=event.renews)
        case facts.ContractTermsChanged():
            return replace(state, terms=serialised(event.terms))
        case facts.ContractSubmitted():
            return replace(state, state=CONTRACT_STATE_IN_APPROVAL)
        case facts.ContractApproved():
            return replace(state, is_approved=True, approver=event.approver)
        case facts.ContractRejected():
            return State(
                state=CONTRACT_STATE_DRAFT,
                terms=state.terms,
                renews=state.renews,
                reject_reason=event.reason,
            )
        case facts.ContractSigned():
            signature = Signature(event.signatory, event.sign_date)
            if event.party == CONTRACT_PARTY_CUSTOMER:
                return replace(state, customer=signature)
            return replace(state, company=signature)
        case facts.ContractActivated():
            date_ = event.activate_date
            return replace(state, state=CONTRACT_STATE_ACTIVE, activate_date=date_)
    return _evolve_later(state, event)


def _evolve_later(state: State, event: Message) -> State:
    """Returns the contract after an event that mostly comes when it is in force."""
    match event:
        case facts.ContractNoticeGiven():
            return replace(
                state,
                notice_party=event.party,
                notice_date=event.notice_date,
                notice_end_date=event.end_date,
            )
        case facts.ContractTerminated():
            is_active = state.state == CONTRACT_STATE_ACTIVE
            return replace(
                state,
                state=CONTRACT_STATE_ACTIVE if is_active else CONTRACT_STATE_TERMINATED,
                terminate_date=event.terminate_date,
                terminate_reason=event.reason,
            )
        case facts.ContractRenewed():
            return replace(state, renewed_by=event.renewed_by, renewed_end_date=event.end_date)
        case facts.ContractReminderCame():
            return replace(
                state,
                reminded={**state.reminded, event.kind: event.term_end_date},
                last_reminder=Reminder(event.kind, event.due_date, event.term_end_date),
            )
    return state


def serialised(terms: ContractTerms) -> bytes:
    """The one form of terms that say the same."""
    return terms.SerializeToString(deterministic=True)


def _reminder(kind: ContractReminderKind.ValueType, due: date, term_end: date) -> Reminder:
    return Reminder(kind, due.isoformat(), term_end.isoformat())
