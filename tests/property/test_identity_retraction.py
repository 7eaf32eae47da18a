"""However a log is cut into batches, the same facts are still true behind it."""

from hypothesis import given
from hypothesis import strategies as st

from rapport.events.v1.events_pb2 import CustomerEventRecorded
from services.identity.retraction import settle
from tests.identity_histories import DenseHistory, another_order
from tests.identity_reference import still_true
from tests.identity_world import batches


@given(st.randoms(use_true_random=False), st.integers(1, 60), st.sampled_from([1, 3, 12, 100]))
def test_any_batching_leaves_the_facts_that_nothing_behind_them_takes_back(rng, size, largest):
    history = DenseHistory(rng, "acme").some(size, retracting=12)
    ordered = another_order(rng, history)

    known = {}
    for batch in batches(rng, ordered, largest):
        found, retractions = settle(batch)
        known = {key: event for key, event in known.items() if imported(event) not in retractions}
        known |= {e.event_id: e for e in found if isinstance(e.event, CustomerEventRecorded)}

    wanted = {e.event_id for e in still_true(ordered) if isinstance(e.event, CustomerEventRecorded)}
    assert known.keys() == wanted


def imported(event):
    """The message that an event came with, if it can be taken back."""
    sent = event.event.customer_event
    return (event.workspace, sent.message_id) if sent.import_name else None
