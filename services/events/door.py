"""What a workspace asks of the customer events that a source sends: the door they come in by. Pure.

In this order: is the source taken at all, may it send this type, is this person sampled, how is the
customer event to be changed, and does it keep the tracking plan.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from services.events.naming import named_in
from services.events.schema import Opened, Reason, Refusal, open_event
from services.events.suppressed import identifiers_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rapport.events.v1.customer_event_pb2 import CustomerEvent, Violation

MILLION = 1_000_000


class Verdict(Enum):
    """What a tracking plan makes of a customer event."""

    LET_IN = "let in"
    QUARANTINE = "quarantine"
    REFUSE = "refuse"


class Judgement(NamedTuple):
    """A verdict, and the rules that were broken, even if that was tolerated or mended."""

    verdict: Verdict
    violations: Sequence[Violation]


class Plan(Protocol):
    """A published tracking plan, ready to judge by."""

    def judge(self, opened: Opened) -> Judgement:
        """Judges a customer event, and leaves out of it what the plan says to leave out."""
        ...


class Transformations(Protocol):
    """What is changed on the way in, in order."""

    def apply(self, opened: Opened) -> Refusal | None:
        """Changes a customer event, or refuses it; flags on it what could not be done."""
        ...


@dataclass(frozen=True, slots=True)
class Door:
    """The rules for what one source sends; without any, everything passes.

    `source` is `sources/{id}`, or empty when whoever sends is none. `sampled_millionths` is the
    share of people that is recorded; 0 is all of them.
    """

    source: str = ""
    is_disabled: bool = False
    allowed_types: frozenset[CustomerEventType.ValueType] = frozenset()
    sampled_millionths: int = 0
    transformations: Transformations | None = None
    plan: Plan | None = None
    has_suppressions: bool = False
    has_erased_people: bool = False
    has_erased_messages: bool = False


class Admitted(NamedTuple):
    """A customer event that may be recorded, or kept in quarantine for the reason given.

    `carried` are the identifiers that came with it, where the workspace has suppressed some, and
    `named` all that could be one, where it has erased somebody.
    """

    opened: Opened
    quarantine: Refusal | None = None
    carried: Sequence[tuple[str, str]] = ()
    named: Sequence[tuple[str, str]] = ()


class SampledOut(NamedTuple):
    """A customer event of a person who is not among the sampled."""


def admit(door: Door, sent: CustomerEvent) -> Admitted | Refusal | SampledOut:
    """What becomes of a customer event at a door. It may be changed; its violations are on it."""
    opened = open_event(sent)
    if isinstance(opened, Refusal):
        return opened
    if door.allowed_types and sent.type not in door.allowed_types:
        name = CustomerEventType.Name(sent.type)
        return Refusal(Reason.TYPE_NOT_ALLOWED, f"{door.source} may not send {name}")
    if door.sampled_millionths and not is_sampled(door, sent):
        return SampledOut()
    return _let_in(door, opened)


def readmit(door: Door, kept: CustomerEvent) -> Admitted | Refusal:
    """What becomes of a customer event that was let in before and has waited in quarantine.

    The source could send it then, so neither that nor the sample is asked about again. It was
    changed then, too: who is hashed twice is somebody else.
    """
    opened = open_event(kept)
    if isinstance(opened, Refusal):
        return opened
    return _let_in(replace(door, transformations=None), opened)


def _let_in(door: Door, opened: Opened) -> Admitted | Refusal:
    # Before anything is changed, as below.
    named = tuple(named_in(opened)) if door.has_erased_people else ()
    found = _changed_and_judged(door, opened)
    if isinstance(found, Refusal) or not door.has_erased_people:
        return found
    return found._replace(named=(*named, *named_in(found.opened)))


def _changed_and_judged(door: Door, opened: Opened) -> Admitted | Refusal:
    carried: tuple[tuple[str, str], ...] = ()
    if door.has_suppressions:
        # Before anything is changed: who is hashed or masked on the way in must be known, too.
        carried = tuple(identifiers_of(opened))
    if door.transformations is not None:
        refusal = door.transformations.apply(opened)
        if refusal is not None:
            return refusal
        # What was made of it must still be a customer event, whatever was flagged on it.
        flagged = list(opened.event.violations)
        opened.event.ClearField("violations")
        found = open_event(opened.closed())
        if isinstance(found, Refusal):
            return found
        opened = found
        opened.event.violations.extend(flagged)
        if door.has_suppressions:
            carried += tuple(identifiers_of(opened))
    if door.plan is None:
        return Admitted(opened, carried=carried)
    return _judged(door.plan, opened, carried)


def _judged(plan: Plan, opened: Opened, carried: tuple[tuple[str, str], ...]) -> Admitted | Refusal:
    judgement = plan.judge(opened)
    opened.event.violations.extend(judgement.violations)
    if opened.changed:
        opened.closed()
    if judgement.verdict is Verdict.LET_IN:
        return Admitted(opened, carried=carried)
    first = judgement.violations[0]
    refusal = Refusal(Reason.PLAN_VIOLATED, f"{first.path}: {first.detail} ({first.rule})")
    if judgement.verdict is Verdict.REFUSE:
        return refusal
    return Admitted(opened, refusal, carried)


def is_sampled(door: Door, sent: CustomerEvent) -> bool:
    """Whether a person is among those a source records: for ever, and in every process alike.

    A browser keeps its anonymous id over a login, so that is who it is to the sample.
    """
    person = sent.anonymous_id or sent.user_id
    if not person:
        return True
    digest = hashlib.blake2b(f"{door.source}/{person}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % MILLION < door.sampled_millionths
