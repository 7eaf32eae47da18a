"""A moment goes into an envelope and comes back, to the microsecond."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from services.kernel.log.recorded import set_timestamp, utc


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2026, 1, 1, 12, 30, 15, 123_456, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=3))),
    ],
)
def test_a_moment_is_written_as_the_library_writes_it(moment):
    ours, theirs = Timestamp(), Timestamp()
    set_timestamp(ours, moment)
    theirs.FromDatetime(moment)

    assert theirs == ours
    assert moment == utc(ours)
