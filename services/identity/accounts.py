"""Accounts: what facts say of groups of people, and who is in them when. Pure.

A word is what one fact says of an account: what it is like, or that somebody joined or left it. The
latest trait wins, by (occur time, key), and so does the latest word of somebody in an account: they
are in it from where they joined to where they next left, whenever that was told. Who somebody is
can change, so the words of a profile are those of all its atoms; they go where those go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventRecorded
from rapport.identity.v1.events_pb2 import (
    AccountTraitsChanged,
    MembershipPeriod,
    MembershipsChange,
    ProfileMembershipsChanged,
)
from services.identity.changes import CHANGE_BYTES_MAX, Change, name_of, other_values
from services.identity.facts import EVENTS, Fact, key_of_sent, occurred_at, received_at, resource_of
from services.identity.identifiers import account_name, group
from services.identity.traits import Said, Traits, later, read_object, traits_of
from services.kernel.log.log import Origin
from services.kernel.log.recorded import Recorded, timestamp_of

PERIODS_TOLD_MAX = 100
"""How many periods of one profile in one account are told; the last ones."""

_GROUP = CustomerEventType.CUSTOMER_EVENT_TYPE_GROUP
_ACCOUNT = CustomerEventType.CUSTOMER_EVENT_TYPE_ACCOUNT
_ABOUT_ACCOUNTS = frozenset({_GROUP, _ACCOUNT})


class Kind(IntEnum):
    """What a word says. The numbers are stored."""

    DESCRIBED = 0
    JOINED = 1
    LEFT = 2


@dataclass(frozen=True, slots=True)
class Word:
    """What one fact says of an account; `atom` is who joined or left, if anybody did."""

    event: Recorded
    account: str
    group_id: str
    kind: Kind
    key: bytes
    occur_time: datetime
    receive_time: datetime
    atom: str | None
    source: str
    resource: str
    traits: Traits
    is_imported: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """That somebody joined an account, or left it."""

    kind: Kind
    occur_time: datetime
    key: bytes


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which somebody is or was in an account, with the keys of what began and ended it.

    It has no end while they are.
    """

    start_key: bytes
    start_time: datetime
    end_key: bytes | None = None
    end_time: datetime | None = None


@dataclass(slots=True)
class Account:
    """An account as its words leave it."""

    create_time: datetime | None = None
    words: int = 0
    traits: dict[str, Said] = field(default_factory=dict)

    def add(self, key: bytes, occur_time: datetime, traits: Traits) -> None:
        """Adds a word that was not added before."""
        received = received_at(key)
        self.create_time = min(self.create_time or received, received)
        self.words += 1
        for name, value in traits:
            self.traits[name] = later(self.traits.get(name), Said(value, occur_time, key))


Periods = Mapping[str, Sequence[Period]]  # by account, the earliest first


def words_of(events: Iterable[Recorded], facts: Iterable[Fact]) -> list[Word]:
    """Returns what events say of accounts; `facts` are what they say of people."""
    about = [event for event in events if _about_account(event) is not None]
    if not about:
        return []
    by_event = {fact.event.event_id: fact for fact in facts}
    words = (word_of(event, by_event.get(event.event_id)) for event in about)
    return [word for word in words if word is not None]


def word_of(event: Recorded, fact: Fact | None) -> Word | None:
    """Returns what an event says of an account; `fact` is what it says of a person, if it does."""
    sent = _about_account(event)
    if sent is None:
        return None
    named = group(event.workspace, sent.group_id)
    kind = _kind(sent)
    if named is None or (kind is not Kind.DESCRIBED and fact is None):
        return None
    key = key_of_sent(event, sent)
    return Word(
        event=event,
        account=named.account,
        group_id=named.group_id,
        kind=kind,
        key=key,
        occur_time=occurred_at(event, sent),
        receive_time=received_at(key),
        atom=fact.atom if fact is not None and kind is not Kind.DESCRIBED else None,
        source=sent.source or EVENTS,
        resource=resource_of(sent.message_id),
        traits=traits_of(read_object(sent.traits)),
        is_imported=bool(sent.import_name),
    )


def _about_account(event: Recorded) -> CustomerEvent | None:
    if not isinstance(event.event, CustomerEventRecorded):
        return None
    sent: CustomerEvent = event.event.customer_event
    return sent if sent.type in _ABOUT_ACCOUNTS else None


def _kind(sent: CustomerEvent) -> Kind:
    if sent.type == _ACCOUNT:
        return Kind.DESCRIBED
    return Kind.LEFT if sent.ends_membership else Kind.JOINED


def periods(turns: Iterable[Turn]) -> list[Period]:
    """Returns when somebody is or was in an account, the earliest first.

    To join where one is already changes nothing, and neither does to leave where one is not.
    """
    found: list[Period] = []
    start: Turn | None = None
    for turn in sorted(turns, key=lambda turn: (turn.occur_time, turn.key)):
        if turn.kind is Kind.JOINED:
            start = start or turn
        elif start is not None:
            found.append(Period(start.key, start.occur_time, turn.key, turn.occur_time))
            start = None
    if start is not None:
        found.append(Period(start.key, start.occur_time))
    return found


def account_traits_changes(
    account: str, before: Mapping[str, Said], after: Mapping[str, Said], cause: Recorded | Origin
) -> Iterable[Change]:
    """Tells which traits of an account have other values than before."""
    for part in other_values(before, after):
        event = AccountTraitsChanged(account=account_name(account), changes=part)
        yield Change("", event, cause, account=account)


def membership_changes(
    profile: str, before: Periods, after: Periods, cause: Recorded | Origin
) -> Iterable[Change]:
    """Tells in which accounts a profile is or was at other times than before."""
    event, size = ProfileMembershipsChanged(profile=name_of(profile)), 0
    for account in sorted(before.keys() | after.keys()):
        now = after.get(account, ())
        if _times(now) == _times(before.get(account, ())):
            continue
        change = _told(account, now)
        if event.changes and size + change.ByteSize() > CHANGE_BYTES_MAX:
            yield Change(profile, event, cause)
            event, size = ProfileMembershipsChanged(profile=name_of(profile)), 0
        event.changes.append(change)
        size += change.ByteSize()
    if event.changes:
        yield Change(profile, event, cause)


def _times(found: Iterable[Period]) -> list[Any]:
    return [(period.start_time, period.end_time) for period in found]


def _told(account: str, found: Sequence[Period]) -> MembershipsChange:
    told = [
        MembershipPeriod(
            start_time=timestamp_of(period.start_time),
            end_time=None if period.end_time is None else timestamp_of(period.end_time),
        )
        for period in found[-PERIODS_TOLD_MAX:]
    ]
    return MembershipsChange(
        account=account_name(account),
        periods=told,
        left_out_count=len(found) - len(told),
    )
