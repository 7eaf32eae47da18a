"""The chronicle: what facts of our own log say was so from when until when, batch by batch. Pure.

What a profile is made of, what is known of it and what it is as a whole are spans of record time. A
span that ends when it began was between the facts of one transaction: never to be seen, so it is
none, however a reader cuts the log into batches. What became of profiles are entries.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from rapport.identity.v1.events_pb2 import (
    ProfileActivityRecorded,
    ProfileCreated,
    ProfileIdentifiersChanged,
    ProfileMembershipsChanged,
    ProfileRecounted,
    ProfileRemoved,
    ProfilesMerged,
    ProfileSplit,
    ProfileTraitsChanged,
)
from rapport.identity.v1.history_pb2 import ProfileHistoryKind as Kind
from services.identity.changes import id_of
from services.identity.verdicts import Ruling, ruling_of
from services.kernel.log.recorded import Recorded, utc

V = TypeVar("V")

Place = tuple[str, str]  # workspace, profile
Ended = tuple[str, str, str, datetime]  # workspace, profile, what, when

_WHOLE = ""
"""The only thing of its kind that a profile has at a time."""


@dataclass(slots=True)
class Spans(Generic[V]):
    """Spans of one kind, by profile and by what they are about.

    `begun` go on after the batch, `done` both began and ended in it. `ended` and `all_ended` say
    when those ended that were there before: one by one, and all that a profile had. Profiles that
    are `new` had none.
    """

    begun: dict[Place, dict[str, tuple[datetime, V]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    done: list[tuple[Place, str, datetime, datetime, V]] = field(default_factory=list)
    ended: dict[tuple[Place, str], datetime] = field(default_factory=dict)
    all_ended: dict[Place, datetime] = field(default_factory=dict)
    new: set[Place] = field(default_factory=set)

    def begin(self, place: Place, about: str, time: datetime, value: V) -> None:
        """From now on it is so; what was so of the same before has ended."""
        self.end(place, about, time)
        self.begun[place][about] = time, value

    def end(self, place: Place, about: str, time: datetime) -> None:
        """From now on it is so no longer."""
        known = self.begun[place].pop(about, None)
        if known is not None:
            since, value = known
            if since < time:
                self.done.append((place, about, since, time, value))
        elif place not in self.all_ended and place not in self.new:
            self.ended.setdefault((place, about), time)

    def end_all(self, place: Place, time: datetime) -> None:
        """From now on nothing of a profile is so any longer."""
        for about in list(self.begun[place]):
            self.end(place, about, time)
        if place not in self.new:
            self.all_ended.setdefault(place, time)

    def added(self) -> Iterator[tuple[Place, str, datetime, datetime | None, V]]:
        """Yields the spans to add; without an end they go on."""
        yield from self.done
        for place, of_profile in self.begun.items():
            for about, (since, value) in of_profile.items():
                yield place, about, since, None, value


@dataclass(frozen=True, slots=True)
class Whole:
    """What a profile is as a whole after the fact at `version` of its stream.

    Activities that are told behind it count on.
    """

    create_time: datetime
    last_activity_time: datetime | None
    activity_count: int
    version: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that became of a profile, by an event, because of another."""

    place: Place
    kind: Kind.ValueType
    other: str | None
    event: Recorded
    cause: Cause | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """An activity because of which something became of a profile."""

    activity: str
    resource: str


@dataclass(slots=True)
class Chronicle:
    """What a batch of facts says.

    `causes` are the activities that the batch tells, by workspace and the id of their fact, and
    `late_causes` those of its first transaction, which may have begun in the batch before.
    """

    nodes: Spans[str] = field(default_factory=Spans)
    traits: Spans[tuple[str, datetime]] = field(default_factory=Spans)
    accounts: Spans[None] = field(default_factory=Spans)
    wholes: Spans[Whole] = field(default_factory=Spans)
    rulings: list[Ruling] = field(default_factory=list)
    causes: dict[tuple[str, str], Cause] = field(default_factory=dict)
    late_causes: dict[tuple[str, str], Cause] = field(default_factory=dict)
    _entries: list[Entry] = field(default_factory=list)

    @classmethod
    def of(cls, events: Sequence[Recorded]) -> Chronicle:
        """Reads facts of our own, in their order."""
        found = cls()
        for event in events:
            if not found.late_causes and event.record_time != events[0].record_time:
                found.late_causes = dict(found.causes)
            found.read(event)
        found.late_causes = found.late_causes or found.causes
        return found

    def entries(self) -> list[Entry]:
        """Returns what became of profiles, with the causes that the batch tells."""
        return [
            replace(entry, cause=self.causes.get((entry.event.workspace, entry.event.causation_id)))
            for entry in self._entries
        ]

    def read(self, event: Recorded) -> None:
        """Reads the next fact."""
        match event.event:
            case ProfileActivityRecorded() as fact:
                cause = Cause(fact.activity, fact.resource)
                self.causes[event.workspace, fact.activity_id] = cause
            case ProfileIdentifiersChanged() as fact:
                place = event.workspace, id_of(fact.profile)
                for known in fact.removed:
                    self.nodes.end(place, known.node, event.record_time)
                for known in fact.added:
                    self.nodes.begin(place, known.node, event.record_time, known.type)
            case ProfileTraitsChanged() as fact:
                self._read_traits(event, fact)
            case ProfileMembershipsChanged() as fact:
                self._read_memberships(event, fact)
            case ProfileCreated() | ProfileRecounted() as fact:
                self._read_whole(event, fact)
            case ProfilesMerged() | ProfileSplit() | ProfileRemoved():
                self._regroup(event)
            case _:
                ruling = ruling_of(event)
                if ruling is not None:
                    self.rulings.append(ruling)

    def _read_traits(self, event: Recorded, fact: ProfileTraitsChanged) -> None:
        place = event.workspace, id_of(fact.profile)
        for change in fact.changes:
            if change.value:
                value = change.value, utc(change.occur_time)
                self.traits.begin(place, change.trait, event.record_time, value)
            else:
                self.traits.end(place, change.trait, event.record_time)

    def _read_memberships(self, event: Recorded, fact: ProfileMembershipsChanged) -> None:
        place = event.workspace, id_of(fact.profile)
        for change in fact.changes:
            account = id_of(change.account)
            if change.periods and not change.periods[-1].HasField("end_time"):
                self.accounts.begin(place, account, event.record_time, None)
            else:
                self.accounts.end(place, account, event.record_time)

    def _read_whole(self, event: Recorded, fact: ProfileCreated | ProfileRecounted) -> None:
        place = event.workspace, id_of(fact.profile)
        begun = utc(fact.create_time) if fact.HasField("create_time") else event.record_time
        if isinstance(fact, ProfileCreated):
            for spans in self._all():
                spans.new.add(place)
            whole = Whole(begun, None, 0, event.version)
            self._note(event, Kind.PROFILE_HISTORY_KIND_CREATED, fact.profile)
        else:
            last = utc(fact.last_activity_time)
            whole = Whole(begun, last, fact.activity_count, event.version)
        self.wholes.begin(place, _WHOLE, event.record_time, whole)

    def _regroup(self, event: Recorded) -> None:
        match event.event:
            case ProfilesMerged() as fact:
                self._note(event, Kind.PROFILE_HISTORY_KIND_MERGED, fact.survivor, fact.absorbed)
                self._note(event, Kind.PROFILE_HISTORY_KIND_ABSORBED, fact.absorbed, fact.survivor)
                self._end(event, fact.absorbed)
            case ProfileSplit() as fact:
                self._note(event, Kind.PROFILE_HISTORY_KIND_SPLIT, fact.profile, fact.split_off)
                self._note(event, Kind.PROFILE_HISTORY_KIND_SPLIT_OFF, fact.split_off, fact.profile)
            case ProfileRemoved() as fact:
                self._note(event, Kind.PROFILE_HISTORY_KIND_REMOVED, fact.profile)
                self._end(event, fact.profile)

    def _end(self, event: Recorded, profile: str) -> None:
        place = event.workspace, id_of(profile)
        for spans in self._all():
            spans.end_all(place, event.record_time)

    def _all(self) -> Sequence[Spans[Any]]:
        return self.nodes, self.traits, self.accounts, self.wholes

    def _note(
        self, event: Recorded, kind: Kind.ValueType, profile: str, other: str | None = None
    ) -> None:
        place = event.workspace, id_of(profile)
        other_id = None if other is None else id_of(other)
        self._entries.append(Entry(place, kind, other_id, event))
