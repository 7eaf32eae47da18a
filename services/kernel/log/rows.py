"""Events as rows of the log: as PostgreSQL's binary COPY takes them, and as the driver does."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from services.kernel.errors import ResourceExhausted
from services.kernel.log.copying import LENGTH, text, timestamptz

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.log.recorded import Recorded

EVENT_BYTES_MAX = 512 * 1024

# What is the same for the events of an append comes first, in one piece.
COLUMNS = (
    "partition",
    "workspace",
    "type",
    "actor",
    "correlation_id",
    "record_time",
    "position",
    "version",
    "event_id",
    "occur_time",
    "stream",
    "causation_id",
    "data",
)

# Each value with its length before it: numbers of 8 bytes, an id of 16, and a text's length.
_PARTITION = struct.Struct("!hii").pack
_NUMBER = struct.Struct("!iq").pack
_OWN = struct.Struct("!iqiqi16siqi").pack


def data_of(event: Recorded) -> bytes:
    """The event's bytes as the log keeps them; raises ResourceExhausted beyond EVENT_BYTES_MAX."""
    data = event.event.SerializeToString(deterministic=True)
    if len(data) > EVENT_BYTES_MAX:
        raise ResourceExhausted(limit="EVENT_BYTES_MAX", maximum=EVENT_BYTES_MAX)
    return data


def encoded(events: Sequence[Recorded]) -> list[bytes]:
    """Their rows in pieces, with the values in the order of COLUMNS."""
    pieces: list[bytes] = []
    told: object = None
    common = b""
    record_us = 0
    for event in events:
        (
            partition,
            position,
            workspace,
            stream,
            version,
            event_id,
            type_name,
            _,
            actor,
            correlation_id,
            causation_id,
            occur_time,
            record_time,
        ) = event
        shared = (partition, workspace, type_name, actor, correlation_id, record_time)
        if shared != told:
            told, record_us = shared, timestamptz(record_time)
            common = _common(event, record_us)
        occur_us = record_us if occur_time is record_time else timestamptz(occur_time)
        of, cause, data = stream.encode(), causation_id.encode(), data_of(event)
        own = _OWN(8, position, 8, version, 16, event_id.bytes, 8, occur_us, len(of))
        pieces += (common, own, of, LENGTH(len(cause)), cause, LENGTH(len(data)), data)
    return pieces


def row(event: Recorded) -> tuple[object, ...]:
    """The same values as the driver takes them, in the same order."""
    return (
        event.partition,
        event.workspace,
        event.type,
        event.actor,
        event.correlation_id,
        event.record_time,
        event.position,
        event.version,
        event.event_id,
        event.occur_time,
        event.stream,
        event.causation_id,
        data_of(event),
    )


def _common(event: Recorded, record_us: int) -> bytes:
    """How a row begins: the number of its values, and those that its neighbours share."""
    texts = (event.workspace, event.type, event.actor, event.correlation_id)
    return b"".join(
        (
            _PARTITION(len(COLUMNS), 4, event.partition),
            *map(text, texts),
            _NUMBER(8, record_us),
        )
    )
