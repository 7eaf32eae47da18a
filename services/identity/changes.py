"""What profiles went through, as the facts that identity records. Pure.

Told is the way from one state to the next, not the steps in between: whoever folds these events in
order has the same partition of atoms and of identifiers, the same counts and the same traits. A
profile is created before anything moves into it, and an absorbed or removed one has nothing left by
then: what is taken back is told before anything moves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from uuid import UUID

import msgspec
from google.protobuf.message import Message

from rapport.identity.v1.events_pb2 import (
    ProfileActivityRecorded,
    ProfileActivityRetracted,
    ProfileCreated,
    ProfileIdentifiersChanged,
    ProfileRecounted,
    ProfileRemoved,
    ProfilesMerged,
    ProfileSplit,
    ProfileTraitsChanged,
    TraitChange,
)
from services.identity.facts import Activity, Fact
from services.identity.retraction import Lost
from services.identity.traits import Said
from services.kernel.log.log import Origin
from services.kernel.log.recorded import Recorded, set_timestamp, timestamp_of

ACTOR = "services/identity"

CHANGE_BYTES_MAX = 128 * 1024
"""What one fact of traits holds at the most, but for a single value that is longer."""

Cause = Callable[[str], Recorded | Origin]
Whole = tuple[datetime, datetime, int]  # when it began and was last active, how many activities
Node = tuple[str, str]  # with its type


class Change(msgspec.Struct, frozen=True):
    """An event of a profile's stream, and the fact that led to it, or who did without one.

    `account` is that of an event of an account's stream instead.
    """

    profile: str
    event: Message
    cause: Recorded | Origin
    occur_time: datetime | None = None
    account: str = ""

    @property
    def stream(self) -> str:
        """The stream it is an event of."""
        return f"account-{self.account}" if self.account else stream_of(self.profile)


def name_of(profile: str) -> str:
    """Returns the resource name of a profile."""
    return f"profiles/{profile}"


def stream_of(profile: str) -> str:
    """Returns the stream of a profile's facts."""
    return f"profile-{profile}"


def id_of(name: str) -> str:
    """`profiles/42` → `42`."""
    return name.partition("/")[2]


def creations(wholes: Mapping[str, Whole], cause: Cause) -> Iterable[Change]:
    """Tells which profiles came to be."""
    for profile in sorted(wholes):
        yield created(profile, wholes[profile][0], cause(profile))


def identifier_changes(
    types: Mapping[str, str],
    before: Mapping[str, str | None],
    after: Mapping[str, str | None],
    cause: Cause,
) -> Iterable[Change]:
    """Tells which nodes came from the profiles `before` to those `after`."""
    added: dict[str, list[str]] = defaultdict(list)
    removed: dict[str, list[str]] = defaultdict(list)
    for node, profile in after.items():
        old = before[node]
        if old != profile:
            if profile is not None:
                added[profile].append(node)
            if old is not None:
                removed[old].append(node)
    for profile in sorted(added.keys() | removed.keys()):
        came = [(node, types[node]) for node in added.get(profile, ())]
        left = [(node, types[node]) for node in removed.get(profile, ())]
        yield renamed(profile, came, left, cause(profile))


def renamed(
    profile: str, added: Iterable[Node], removed: Iterable[Node], cause: Recorded | Origin
) -> Change:
    """Tells which nodes lead to a profile that did not, and which do no longer."""
    event = ProfileIdentifiersChanged(profile=name_of(profile))
    for node, type_name in sorted(added):
        event.added.add(type=type_name, node=node)
    for node, type_name in sorted(removed):
        event.removed.add(type=type_name, node=node)
    return Change(profile, event, cause)


def moves(
    before: Mapping[str, str],
    after: Mapping[str, str],
    leads_to: Mapping[str, str | None],
    cause: Cause,
) -> Iterable[Change]:
    """Tells how atoms came from the profiles `before` to those `after`.

    An atom of `after` alone is new, one of `before` alone is no more. `leads_to` are the profiles
    of all nodes from now on: an id is the name of a node, so it leads on to wherever that went.
    """
    moved: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for atom, profile in after.items():
        old = before.get(atom, profile)
        if old != profile:
            moved[old][profile].append(atom)
    ended = set(before.values()) - set(after.values())
    for profile in sorted(moved.keys() | ended):
        survivor = leads_to.get(profile) if profile in ended else None
        yield from departures(profile, moved[profile], survivor, cause, is_ended=profile in ended)


def created(profile: str, create_time: datetime, cause: Recorded | Origin) -> Change:
    """Tells that a profile came to be."""
    event = ProfileCreated(profile=name_of(profile), create_time=timestamp_of(create_time))
    return Change(profile, event, cause)


def departures(
    profile: str,
    goals: Mapping[str, Iterable[str]],
    survivor: str | None,
    cause: Cause,
    *,
    is_ended: bool,
) -> Iterable[Change]:
    """Tells how atoms left a profile, by where they went, and whether it ended by that."""
    for other in sorted(goals, key=lambda other: (other == survivor, other)):
        atoms = sorted(goals[other])
        if other == survivor:
            yield Change(other, _merged(other, profile, atoms), cause(other))
        else:
            yield Change(profile, _split(profile, other, atoms), cause(other))
    if is_ended and survivor not in goals:
        yield Change(profile, ProfileRemoved(profile=name_of(profile)), cause(profile))


class Done(msgspec.Struct, frozen=True):
    """What somebody did, as it is told."""

    profile: str
    atom: str
    activity_id: UUID
    activity: str
    occur_time: datetime
    account: str = ""

    def recorded(
        self, cause: Recorded | Origin, activity: Activity, receive_time: datetime
    ) -> Change:
        """Tells that it happened."""
        event = ProfileActivityRecorded()
        self._tell(event)
        event.kind = activity.kind
        event.resource = activity.resource
        event.source = activity.source
        set_timestamp(event.receive_time, receive_time)
        return Change(self.profile, event, cause, self.occur_time)

    def retracted(self, cause: Recorded | Origin) -> Change:
        """Tells that it was taken back."""
        event = ProfileActivityRetracted()
        self._tell(event)
        return Change(self.profile, event, cause)

    def _tell(self, event: ProfileActivityRecorded | ProfileActivityRetracted) -> None:
        # Set one by one: a message made of its values takes twice as long, and each fact has one.
        event.profile = name_of(self.profile)
        event.atom = self.atom
        event.activity_id = str(self.activity_id)
        event.activity = self.activity
        event.account = self.account
        set_timestamp(event.occur_time, self.occur_time)


def recounts(wholes: Mapping[str, Whole], cause: Cause) -> Iterable[Change]:
    """Tells what profiles are as wholes where activities alone do not say so."""
    for profile in sorted(wholes):
        yield recounted(profile, wholes[profile], cause(profile))


def recounted(profile: str, whole: Whole, cause: Recorded | Origin) -> Change:
    """Tells what a profile is as a whole."""
    create_time, last_activity_time, activity_count = whole
    event = ProfileRecounted(
        profile=name_of(profile),
        create_time=timestamp_of(create_time),
        last_activity_time=timestamp_of(last_activity_time),
        activity_count=activity_count,
    )
    return Change(profile, event, cause)


def activities(facts: Iterable[Fact], profile_of: Mapping[str, str]) -> Iterable[Change]:
    """Tells what people did."""
    for fact in facts:
        atom, event, activity = fact.atom, fact.event, fact.activity
        done = Done(
            profile_of[atom], atom, event.event_id, activity.name, fact.occur_time, activity.account
        )
        yield done.recorded(event, activity, fact.receive_time)


def retractions(lost: Iterable[Lost], profile_of: Mapping[str, str]) -> Iterable[Change]:
    """Tells what was taken back; `profile_of` are the profiles of atoms until now."""
    for fact in lost:
        done = Done(
            profile=profile_of[fact.atom],
            atom=fact.atom,
            activity_id=fact.activity_id,
            activity=fact.activity,
            occur_time=fact.fact.occur_time,
            account=fact.account,
        )
        yield done.retracted(fact.event)


def trait_changes(
    profile: str, before: Mapping[str, Said], after: Mapping[str, Said], cause: Recorded | Origin
) -> Iterable[Change]:
    """Tells which traits of a profile have other values than before."""
    for part in other_values(before, after):
        event = ProfileTraitsChanged(profile=name_of(profile), changes=part)
        yield Change(profile, event, cause)


def other_values(
    before: Mapping[str, Said], after: Mapping[str, Said]
) -> Iterable[list[TraitChange]]:
    """Yields the traits that have other values than before, as many at a time as a fact holds."""
    part: list[TraitChange] = []
    size = 0
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        value = None if new is None else new.value
        if value == (None if old is None else old.value):
            continue
        change = TraitChange(trait=name, value=value or "")
        if new is not None:
            set_timestamp(change.occur_time, new.occur_time)
        change_size = change.ByteSize()
        if part and size + change_size > CHANGE_BYTES_MAX:
            yield part
            part, size = [], 0
        part.append(change)
        size += change_size
    if part:
        yield part


def _merged(survivor: str, absorbed: str, atoms: list[str]) -> ProfilesMerged:
    return ProfilesMerged(survivor=name_of(survivor), absorbed=name_of(absorbed), atoms=atoms)


def _split(profile: str, split_off: str, atoms: list[str]) -> ProfileSplit:
    return ProfileSplit(profile=name_of(profile), split_off=name_of(split_off), atoms=atoms)
