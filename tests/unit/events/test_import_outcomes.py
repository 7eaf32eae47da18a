"""A row counts as what it became, however often its batch was recorded."""

import pytest

from rapport.events.v1.import_job_pb2 import ImportCounts
from services.events.import_outcomes import (
    ACCEPTED,
    DUPLICATE,
    QUARANTINED,
    REFUSED,
    SAMPLED_OUT,
    added,
    counts_of,
    settle,
)


@pytest.mark.parametrize(
    ("ids", "outcomes", "landed", "settled"),
    [
        ("ab", [ACCEPTED, DUPLICATE], {}, [ACCEPTED, DUPLICATE]),
        # Recorded a second time: what landed the first time is no duplicate of itself.
        ("ab", [DUPLICATE, DUPLICATE], {"a": ACCEPTED}, [ACCEPTED, DUPLICATE]),
        ("aa", [DUPLICATE, DUPLICATE], {"a": QUARANTINED}, [QUARANTINED, DUPLICATE]),
        # A repeated id within a batch that was recorded once.
        ("aa", [ACCEPTED, DUPLICATE], {"a": ACCEPTED}, [ACCEPTED, DUPLICATE]),
        # The first row of an id broke a rule, the second did not.
        ("aa", [REFUSED, DUPLICATE], {"a": ACCEPTED}, [REFUSED, ACCEPTED]),
        # The rules have changed since it landed: still exactly one of its rows did.
        ("aab", [REFUSED, REFUSED, ACCEPTED], {"a": ACCEPTED}, [REFUSED, ACCEPTED, ACCEPTED]),
        ("a", [SAMPLED_OUT], {"a": ACCEPTED}, [ACCEPTED]),
    ],
)
def test_an_id_that_landed_is_counted_once(ids, outcomes, landed, settled):
    assert settled == settle(list(ids), outcomes, landed)


def test_every_row_is_counted_and_counts_add_up():
    one = counts_of([ACCEPTED, DUPLICATE, REFUSED, QUARANTINED, SAMPLED_OUT], unmapped=2)

    expected = ImportCounts(
        rows=7, accepted=1, duplicate=1, refused=1, quarantined=1, sampled_out=1, unmapped=2
    )
    assert expected == one
    assert ImportCounts(rows=8, accepted=2, duplicate=1, refused=1, quarantined=1) == added(
        counts_of([ACCEPTED] * 1, unmapped=0),
        ImportCounts(rows=7, accepted=1, duplicate=1, refused=1, quarantined=1),
    )
