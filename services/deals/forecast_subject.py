"""What a quota or a submission is about: an owner, a team or all, and a period. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from services.deals.forecast_periods import known_period
from services.kernel.errors import InvalidArgument


class Said(Protocol):
    """A request or a fact that says what it is about."""

    owner: str
    team: str
    period: str
    pipeline: str


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose: `members/{id}` or `teams/{id}`, or neither. Without a pipeline it is about all."""

    owner: str = ""
    team: str = ""
    period: str = ""
    pipeline: str = ""

    @classmethod
    def of(cls, said: Said) -> Subject:
        """What a request or a fact is about."""
        return cls(said.owner, said.team, said.period, said.pipeline)

    @property
    def id(self) -> str:
        """Its natural key: no part of it holds the `_` between them."""
        whose = "all"
        if self.owner:
            whose = f"owner_{_last(self.owner)}"
        elif self.team:
            whose = f"team_{_last(self.team)}"
        about = f"{whose}_{self.period}"
        return f"{about}_{_last(self.pipeline)}" if self.pipeline else about


NOTHING: Final = Subject()
"""What is said before anything is."""


def known_subject(said: Said) -> Subject:
    """Refuses what is about an owner and a team, or about no period of the calendar."""
    if said.owner and said.team:
        raise InvalidArgument.of("team", "is said beside an owner: it is one or the other")
    known_period(said.period)
    return Subject.of(said)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
