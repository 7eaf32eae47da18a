"""The rules of a contract: what may be asked of it, and the facts that follow.

It is drafted, approved, signed by both parties and put into force. From then on its dates say how
it goes on, and only notice, termination and renewal change that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import CONTRACT_PARTY_CUSTOMER, ContractTerms
from rapport.deals.v1.contracts_pb2 import (
    CONTRACT_STATE_ACTIVE,
    CONTRACT_STATE_DRAFT,
    CONTRACT_STATE_EXPIRED,
    CONTRACT_STATE_IN_APPROVAL,
    CONTRACT_STATE_UNSPECIFIED,
    ContractState,
)
from services.deals.deciders.contract_state import (
    Signature,
    State,
    evolve,
    last_notice_date,
    notice_term,
    serialised,
    standing_of,
)
from services.deals.terms import DAY, FIRST_DAY, checked, known_day
from services.kernel.command.decider import Decider
from services.kernel.command.work import Claim
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)

AgreementCommand = (
    pb.UpdateContractRequest
    | pb.SubmitContractRequest
    | pb.ApproveContractRequest
    | pb.RejectContractRequest
    | pb.SignContractRequest
    | pb.ActivateContractRequest
)
Command = (
    pb.DraftContractRequest
    | AgreementCommand
    | pb.GiveContractNoticeRequest
    | pb.TerminateContractRequest
    | pb.RenewContractRequest
)

ALWAYS_OPEN = ("owner", "renewal_reminder_days", "custom_fields")
"""What may be changed of a contract that is no draft any more: nothing that was agreed on."""

_FIELDS = frozenset(ContractTerms.DESCRIPTOR.fields_by_name)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a decision knows beside command and state: the day, who asks, a new contract's id."""

    today: date
    actor: str = ""
    contract_id: str = ""


def decide(asked: Asked, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    match command:
        case pb.DraftContractRequest():
            return draft(asked, command.terms, state)
        case pb.GiveContractNoticeRequest():
            return give_notice(asked.today, command, existing(command.name, state))
        case pb.TerminateContractRequest():
            return terminate(asked.today, command, existing(command.name, state))
        case pb.RenewContractRequest():
            return renew(asked, command, existing(command.name, state))
    return _agree(asked, command, existing(command.name, state))


def _agree(asked: Asked, command: AgreementCommand, state: State) -> Sequence[Message]:
    today = asked.today
    match command:
        case pb.UpdateContractRequest():
            return change(today, command, state)
        case pb.SubmitContractRequest():
            return submit(today, command, state)
        case pb.ApproveContractRequest():
            return approve(asked, command, state)
        case pb.RejectContractRequest():
            return reject(today, command, state)
        case pb.SignContractRequest():
            return sign(today, command, state)
        case pb.ActivateContractRequest():
            return activate(today, command, state)


def draft(
    asked: Asked, terms: ContractTerms, state: State, *, renews: str = "", inside: str = "terms."
) -> Sequence[Message]:
    """A new contract needs a free id, a reference and dates; `inside` is where it was asked for."""
    if state.state != CONTRACT_STATE_UNSPECIFIED:
        raise AlreadyExists(f"contracts/{asked.contract_id}", "contract_id")
    return [facts.ContractDrafted(terms=checked(terms, inside), renews=renews)]


def change(today: date, command: pb.UpdateContractRequest, state: State) -> Sequence[Message]:
    """A draft may say anything else; what both parties are to agree on stays as it is."""
    paths = sorted(set(command.update_mask.paths))
    if not paths:
        paths = sorted(field.name for field, _ in command.terms.ListFields())
    if paths == ["*"]:
        paths = sorted(_FIELDS)
    if unknown := [path for path in paths if path not in _FIELDS]:
        raise InvalidArgument.of("update_mask", f"{unknown[0]} is no field of a contract's terms")
    before, after = state.said(), state.said()
    FieldMask(paths=paths).MergeMessage(command.terms, after, True, True)
    changed = [path for path in paths if _only(path, before) != _only(path, after)]
    fixed = [path for path in changed if path not in ALWAYS_OPEN]
    if fixed and state.state != CONTRACT_STATE_DRAFT:
        why = f": {', '.join(fixed)} can be changed in a draft only"
        raise forbidden(today, command.name, state, why)
    if not changed:
        return []
    return [facts.ContractTermsChanged(terms=checked(after), changed_fields=changed)]


def submit(today: date, command: pb.SubmitContractRequest, state: State) -> Sequence[Message]:
    """What is submitted already is no news."""
    if state.state == CONTRACT_STATE_IN_APPROVAL:
        return []
    in_state(today, command.name, state, CONTRACT_STATE_DRAFT)
    return [facts.ContractSubmitted()]


def approve(asked: Asked, command: pb.ApproveContractRequest, state: State) -> Sequence[Message]:
    """The first to approve is the one who did."""
    in_state(asked.today, command.name, state, CONTRACT_STATE_IN_APPROVAL)
    return [] if state.is_approved else [facts.ContractApproved(approver=asked.actor)]


def reject(today: date, command: pb.RejectContractRequest, state: State) -> Sequence[Message]:
    """Approval may be taken back while the contract is not in force."""
    in_state(today, command.name, state, CONTRACT_STATE_IN_APPROVAL)
    return [facts.ContractRejected(reason=command.reason)]


def sign(today: date, command: pb.SignContractRequest, state: State) -> Sequence[Message]:
    """What is approved is signed; a signature recorded wrongly is recorded again."""
    in_state(today, command.name, state, CONTRACT_STATE_IN_APPROVAL)
    if not state.is_approved:
        raise unready(command.name, "not approved yet")
    day = past_day(today, "sign_date", command.sign_date)
    signed = facts.ContractSigned(
        party=command.party, signatory=command.signatory, sign_date=day.isoformat()
    )
    held = state.customer if command.party == CONTRACT_PARTY_CUSTOMER else state.company
    is_known = held == Signature(signed.signatory, signed.sign_date)
    return [] if is_known else [signed]


def activate(today: date, command: pb.ActivateContractRequest, state: State) -> Sequence[Message]:
    """A contract comes into force once, approved and signed by both parties."""
    if state.state == CONTRACT_STATE_ACTIVE:
        return []
    in_state(today, command.name, state, CONTRACT_STATE_IN_APPROVAL)
    wanting = {
        "approved": state.is_approved,
        "signed by the customer": state.customer.sign_date,
        "signed by the company": state.company.sign_date,
    }
    if missing := [what for what, is_there in wanting.items() if not is_there]:
        raise unready(command.name, f"not {', not '.join(missing)} yet")
    return [facts.ContractActivated(activate_date=today.isoformat(), terms=state.said())]


def give_notice(
    today: date, command: pb.GiveContractNoticeRequest, state: State
) -> Sequence[Message]:
    """Notice in time ends a contract with the term it is about."""
    day = past_day(today, "notice_date", command.notice_date)
    if (state.notice_date, state.notice_party) == (day.isoformat(), command.party):
        return []
    in_state(today, command.name, state, CONTRACT_STATE_ACTIVE)
    term, latest = notice_term(state, day), last_notice_date(state, day)
    if term is None or latest is None:
        raise FailedPrecondition(
            f"{command.name} does not renew itself", resource=command.name, state="NOT_RENEWING"
        )
    end = term.end
    if day > latest:
        message = f"{command.name} renews itself after {end}: notice was possible until {latest}"
        refusal = FailedPrecondition(message, resource=command.name, state="ACTIVE")
        refusal.metadata["last_notice_date"] = latest.isoformat()
        raise refusal
    return [
        facts.ContractNoticeGiven(
            party=command.party, notice_date=day.isoformat(), end_date=end.isoformat()
        )
    ]


def terminate(today: date, command: pb.TerminateContractRequest, state: State) -> Sequence[Message]:
    """A contract ends early, never later; until the day comes another may be chosen."""
    day = known_day("terminate_date", command.terminate_date) or today
    if (state.terminate_date, state.terminate_reason) == (day.isoformat(), command.reason):
        return []
    before_force = CONTRACT_STATE_DRAFT, CONTRACT_STATE_IN_APPROVAL
    in_state(today, command.name, state, *before_force, CONTRACT_STATE_ACTIVE)
    if state.state in before_force and day > today:
        raise InvalidArgument.of("terminate_date", "what is not in force ends at once")
    otherwise = standing_of(replace(state, terminate_date="")).last
    if otherwise is not None and day > otherwise:
        raise InvalidArgument.of("terminate_date", f"it ends on {otherwise} by itself")
    return [facts.ContractTerminated(terminate_date=day.isoformat(), reason=command.reason)]


def renew(asked: Asked, command: pb.RenewContractRequest, state: State) -> Sequence[Message]:
    """A contract is followed by one other, which begins on a day that is said or after its term."""
    if state.renewed_by:
        message = f"{command.name} is renewed by {state.renewed_by}"
        raise AlreadyExists(state.renewed_by, "renewed_by", message=message)
    in_state(asked.today, command.name, state, CONTRACT_STATE_ACTIVE, CONTRACT_STATE_EXPIRED)
    standing = standing_of(state)
    start = known_day("start_date", command.start_date)
    if start is not None and start <= standing.course.start:
        raise InvalidArgument.of("start_date", f"lies after {standing.course.start}")
    end = standing.term_on(asked.today).end if start is None else start - DAY
    return [
        facts.ContractRenewed(renewed_by=f"contracts/{asked.contract_id}", end_date=end.isoformat())
    ]


def renew_by(
    asked: Asked, command: pb.RenewContractRequest, states: Sequence[State]
) -> tuple[Sequence[Message], Sequence[Message]]:
    """Returns the facts of a contract and of the one that follows it, decided on together."""
    renewed, follower = states
    events = decide(asked, command, renewed)
    terms = following_terms(command, DECIDER.fold(events, renewed))
    return events, draft(asked, terms, follower, renews=command.name, inside="")


def following_terms(command: pb.RenewContractRequest, renewed: State) -> ContractTerms:
    """What the contract says that follows one just renewed: what nobody says anew stays."""
    terms = renewed.said()
    months = terms.renewal_term_months or terms.term_months
    if not (command.end_date or command.term_months or months):
        raise InvalidArgument.of("term_months", "give a number of months or end_date")
    start = date.fromisoformat(renewed.renewed_end_date) + DAY
    terms.start_date = start.isoformat()
    terms.end_date = command.end_date
    terms.term_months = command.term_months or (0 if command.end_date else months)
    terms.renewal_term_months = months
    terms.reference, terms.deal, terms.quote = command.reference, command.deal, command.quote
    if command.HasField("value"):
        terms.value.CopyFrom(command.value)
    return terms


def past_day(today: date, name: str, text: str) -> date:
    """The day that a field says, today if it says none; refuses one that is still to come."""
    day = known_day(name, text) or today
    if day > today:
        raise InvalidArgument.of(name, "lies in the future")
    return day


def existing(name: str, state: State) -> State:
    """Refuses what is asked of a contract that nobody drafted."""
    if state.state == CONTRACT_STATE_UNSPECIFIED:
        raise NotFound(name)
    return state


def in_state(today: date, name: str, state: State, *allowed: ContractState.ValueType) -> None:
    """Refuses what is asked of a contract that is in none of these states today."""
    if standing_of(state).state_on(today) not in allowed:
        raise forbidden(today, name, state)


def forbidden(today: date, name: str, state: State, why: str = "") -> FailedPrecondition:
    """Says which state a contract is in today."""
    shown = ContractState.Name(standing_of(state).state_on(today)).removeprefix("CONTRACT_STATE_")
    spoken = shown.lower().replace("_", " ")
    return FailedPrecondition(f"{name} is {spoken}{why}", resource=name, state=shown)


def unready(name: str, why: str) -> FailedPrecondition:
    """Says what a contract in approval lacks."""
    return FailedPrecondition(f"{name} is {why}", resource=name, state="IN_APPROVAL")


def _only(path: str, terms: ContractTerms) -> bytes:
    """One field of terms, in the one form of those that say the same."""
    found = ContractTerms()
    FieldMask(paths=[path]).MergeMessage(terms, found, True, True)
    return serialised(found)


def claims(state: State) -> frozenset[Claim]:
    """Returns the reference, which a contract keeps for ever."""
    if state.state == CONTRACT_STATE_UNSPECIFIED:
        return frozenset()
    return frozenset({Claim("contract_reference", reference_key(state.said().reference))})


def reference_key(reference: str) -> str:
    """Returns what all spellings of one reference have in common."""
    return " ".join(reference.split()).casefold()


def decider_for(asked: Asked) -> Decider[Command, State]:
    """The rules on a day, for somebody."""
    return Decider(
        category="contract",
        collection="contracts",
        initial=State(),
        decide=partial(decide, asked),
        evolve=evolve,
        claims=claims,
    )


DECIDER = decider_for(Asked(FIRST_DAY))
"""For who only folds."""
