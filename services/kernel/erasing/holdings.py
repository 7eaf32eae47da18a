"""What a service declares so that people can be erased from it: what is theirs, and what goes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from asyncpg import Pool

    from rapport.common.v1.envelope_pb2 import Envelope
    from rapport.common.v1.subjects_pb2 import SubjectRecord
    from services.kernel.erasing.subjects import Erasure, Subject
    from services.kernel.log.log import Append
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

Identifier = tuple[str, str]
"""A type and a value."""


@dataclass(slots=True)
class Gone:
    """What a step took: how much of each system, and which identifiers went along unasked.

    `events` are others that shall be overwritten with those that were found: what came to a record
    of theirs since. `left` is what stays of some of all these, by partition and position: what
    happened, without who the person is. `ended` are streams of which nothing is left, so they hold
    no unique value any more. `appends` are the facts that say so to whoever listens; they must not
    say what was erased. Where the name of a stream may tell a person, `renamed` says what it is
    called from now on: `erased-` and 32 hexadecimal digits.
    """

    counts: Counter[str] = field(default_factory=Counter)
    also: set[Identifier] = field(default_factory=set)
    events: list[Envelope] = field(default_factory=list)
    left: dict[tuple[int, int], bytes] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    appends: list[Append] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


class Holdings(Protocol):
    """What a service holds about people.

    The kernel takes care of what is the same everywhere: of the log it overwrites what `find` says,
    and with that go the streams' states, remembered responses, parked events, the feed's
    messages, and the bytes that all of it leaves behind. Every method must do no harm when it is
    asked again, after a crash at whatever line.
    """

    async def find(self, pool: Pool, erasure: Erasure, limit: int) -> Sequence[Envelope]:
        """The next events that an erasure takes, at most `limit`; none when all are overwritten.

        Nothing is recorded at or before the erasure's key any more. It may take long.
        """
        ...

    async def forget(self, tx: Tx, erasure: Erasure, events: Sequence[Recorded]) -> Gone:
        """Drop what views made of events that are about to be overwritten, in one transaction.

        Nobody appends and no consumer applies anything meanwhile, and none goes on with what it has
        read before. A view has a schema for each of its generations: see `schemas_of`.
        """
        ...

    async def forget_rest(self, pool: Pool, erasure: Erasure) -> Gone | None:
        """Take the next step in what is neither log nor view; None when nothing is left of it."""
        ...

    async def preview(self, pool: Pool, subject: Subject) -> Gone:
        """What an erasure would take, without taking it."""
        ...

    def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        """Everything that is held about a person, in parts."""
        ...


@runtime_checkable
class Seeker(Protocol):
    """Holdings in which nothing tells at once what is a person's: they look before they find."""

    async def seek(self, pool: Pool, erasure: Erasure) -> bool:
        """Look on for what an erasure takes, for a moment; whether there is more to see.

        It is asked before `find` is, whenever events may be left.
        """
        ...
