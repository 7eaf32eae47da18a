"""Whenever profiles change, their streams say so: on identity's own log, and so on its feed."""

from __future__ import annotations

from collections.abc import Sequence

from services.identity.changes import ACTOR, Change
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx


class TellProfileChanges:
    """Appends each change to its profile's stream; the fact that led to it is its cause."""

    async def react(
        self, _tx: Tx, _events: Sequence[Recorded], applied: Sequence[Change]
    ) -> Sequence[Append]:
        return [append_of(change) for change in applied]


def append_of(change: Change) -> Append:
    """Returns what a change adds to the log."""
    event = NewEvent(change.event, change.occur_time)
    return Append(_origin(change.cause), change.stream, (event,))


def _origin(cause: Recorded | Origin) -> Origin:
    if isinstance(cause, Origin):
        return cause
    return Origin(cause.workspace, ACTOR, cause.correlation_id, str(cause.event_id))
