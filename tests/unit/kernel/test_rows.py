"""Events as COPY reads them: the same values as the driver takes them, each with its length."""

import struct
from datetime import UTC, datetime, timedelta
from uuid import UUID

from google.protobuf.wrappers_pb2 import StringValue

from services.kernel.log.recorded import Recorded
from services.kernel.log.rows import COLUMNS, encoded, row

COPY_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 1, 1, 12, 30, 15, 123_456, tzinfo=UTC)
FIRST = Recorded(
    partition=0,
    position=41,
    workspace="acme",
    stream="box-1",
    version=1,
    event_id=UUID(int=1),
    type=StringValue.DESCRIPTOR.full_name,
    event=StringValue(value="Zoë"),
    actor="tests",
    correlation_id="correlation",
    causation_id="",
    occur_time=NOW,
    record_time=NOW,
)


def values_in(copy):
    """The values of all rows, as bytes."""
    rows, place = [], 0
    while place < len(copy):
        [count] = struct.unpack_from("!h", copy, place)
        place += 2
        values = []
        for _ in range(count):
            [size] = struct.unpack_from("!i", copy, place)
            values.append(bytes(copy[place + 4 : place + 4 + size]))
            place += 4 + size
        rows.append(values)
    return rows


def value_of(column, value):
    match value:
        case int():
            return value.to_bytes(4 if column == "partition" else 8)
        case datetime():
            return ((value - COPY_EPOCH) // timedelta(microseconds=1)).to_bytes(8, signed=True)
        case UUID():
            return value.bytes
        case str():
            return value.encode()
    return value


def expected(event):
    return [value_of(*pair) for pair in zip(COLUMNS, row(event), strict=True)]


def test_rows_are_copied_as_the_driver_takes_them_whatever_they_share():
    long_ago = NOW.replace(year=1969)
    events = [
        FIRST,
        FIRST._replace(position=42, version=2, event_id=UUID(int=2), causation_id="c"),
        FIRST._replace(position=43, stream="box-Ł", occur_time=long_ago),
        FIRST._replace(position=7, partition=3, event=StringValue()),
        FIRST._replace(workspace="other", actor="", correlation_id="Ω"),
        FIRST._replace(record_time=NOW + timedelta(seconds=1)),
        FIRST._replace(type="another"),
        FIRST,
    ]

    assert [expected(event) for event in events] == values_in(b"".join(encoded(events)))
