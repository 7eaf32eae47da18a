"""News: what a stretch of identity's own log says of profiles, for those who watch them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapport.identity.v1.events_pb2 import (
    ProfileActivityRecorded,
    ProfileActivityRetracted,
    ProfilesMerged,
    ProfileSplit,
)
from services.kernel.log.recorded import Recorded

# The fields by which facts name profiles.
_NAMING = ("profile", "survivor", "absorbed", "split_off")


@dataclass(frozen=True, slots=True)
class News:
    """What happened: `touched` are the names of all profiles it is about.

    `regrouped` are those that merged or parted, `recorded` and `retracted` what came and went.
    """

    touched: frozenset[str]
    regrouped: frozenset[str]
    recorded: Sequence[ProfileActivityRecorded]
    retracted: Sequence[ProfileActivityRetracted]

    @classmethod
    def of(cls, events: Iterable[Recorded]) -> News:
        """Reads facts of our own."""
        touched: set[str] = set()
        regrouped: set[str] = set()
        recorded, retracted = [], []
        for event in events:
            fact = event.event
            named = _profiles_of(event)
            touched.update(named)
            match fact:
                case ProfilesMerged() | ProfileSplit():
                    regrouped.update(named)
                case ProfileActivityRecorded():
                    recorded.append(fact)
                case ProfileActivityRetracted():
                    retracted.append(fact)
        return cls(frozenset(touched), frozenset(regrouped), recorded, retracted)


def _profiles_of(event: Recorded) -> list[str]:
    """Returns the names of the profiles that a fact is about."""
    known = event.event.DESCRIPTOR.fields_by_name
    names = [getattr(event.event, field) for field in _NAMING if field in known]
    return [name for name in names if name]
