"""Customer events that older releases recorded are read and listed today as they were then.

`histories/events/*.json` hold them as the log does, each with what it was read as and its row in
the view. Such a file is written once, by the release it is named for, and never edited.
"""

import json
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.events.v1 import events_pb2
from services.events.__main__ import EVENT_TYPES
from services.events.projections.customer_events import COLUMNS, row_of
from services.events.receipts import stream_of

HISTORIES = [
    pytest.param(entry, id=f"{path.stem}-{number}")
    for path in sorted((Path(__file__).parent / "histories" / "events").glob("*.json"))
    for number, entry in enumerate(json.loads(path.read_text(encoding="utf-8")))
]


def entry_of(envelope):
    """A history's entry: the envelope, and what today's code makes of it."""
    recorded = EVENT_TYPES.decode(envelope)
    # A column that is newer than a history is empty for what came before.
    row = dict(zip(COLUMNS, row_of(recorded), strict=True))
    for column in ("source", "import_name"):
        if row[column] is None:
            del row[column]
    for column in ("occur_time", "receive_time"):
        row[column] = row[column].isoformat()
    return {
        "envelope": MessageToDict(envelope),
        "customer_event": MessageToDict(recorded.event.customer_event),
        "row": row,
    }


@pytest.mark.parametrize("entry", HISTORIES)
def test_an_old_customer_event_is_what_it_was(entry):
    envelope = ParseDict(entry["envelope"], Envelope())

    assert entry == entry_of(envelope)
    assert 1 == envelope.version
    assert stream_of(entry["row"]["message_id"]) == envelope.stream


def test_every_fact_and_every_type_of_customer_event_is_in_some_history():
    entries = [parameter.values[0] for parameter in HISTORIES]
    facts = events_pb2.DESCRIPTOR.message_types_by_name.values()

    assert {fact.full_name for fact in facts} == {entry["envelope"]["type"] for entry in entries}
    assert {1, 2, 3, 4, 5, 6} == {entry["row"]["type"] for entry in entries}
