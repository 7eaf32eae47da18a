"""Customer events that older releases recorded are read and listed today as they were then.

`histories/events/*.json` hold them as the log does, each with what it was read as and its row in
the view; those of `streams` hold whole streams of all facts, each with the state it leads to. Such
a file is written once, by the release it is named for, and never edited.
"""

import json
from pathlib import Path

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.events.v1 import events_pb2
from services.events.__main__ import EVENT_TYPES
from services.events.deciders import (
    import_job,
    product,
    retention_rule,
    source,
    suppression,
    tracking_plan,
    transformation,
    webhook,
)
from services.events.projections.customer_events import COLUMNS, row_of
from services.events.receipts import stream_of

FOLDER = Path(__file__).parent / "histories" / "events"
STREAMS = [
    pytest.param(entry, id=entry["events"][0]["envelope"]["stream"])
    for path in sorted(FOLDER.glob("*streams.json"))
    for entry in json.loads(path.read_text(encoding="utf-8"))
]
DECIDERS = {
    decider.category: decider
    for decider in (
        import_job.DECIDER,
        product.DECIDER,
        retention_rule.DECIDER,
        source.DECIDER,
        suppression.DECIDER,
        tracking_plan.DECIDER,
        transformation.DECIDER,
        webhook.DECIDER,
    )
}
HISTORIES = [
    pytest.param(entry, id=f"{path.stem}-{number}")
    for path in sorted(FOLDER.glob("*.json"))
    if "streams" not in path.stem
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


def replayed(envelopes):
    """The state that a stream leads to today; that of a customer event is its last fact."""
    decider = DECIDERS.get(envelopes[0].stream.partition("-")[0])
    if decider is None:
        return {}
    state = decider.fold([EVENT_TYPES.decode(envelope).event for envelope in envelopes])
    return {"state": json.loads(msgspec.json.encode(state))}


@pytest.mark.parametrize("entry", STREAMS)
def test_an_old_stream_says_what_it_said_and_leads_where_it_led(entry):
    envelopes = [ParseDict(each["envelope"], Envelope()) for each in entry["events"]]
    said = [MessageToDict(EVENT_TYPES.decode(envelope).event) for envelope in envelopes]
    today = replayed(envelopes).get("state", {})

    assert [each["fact"] for each in entry["events"]] == said
    assert list(range(1, len(envelopes) + 1)) == [envelope.version for envelope in envelopes]
    # A state may have gained fields since; those it had are as they were.
    state = entry.get("state", {})
    assert state == {field: today[field] for field in state}


def test_every_fact_and_every_type_of_customer_event_is_in_some_history():
    of_streams = [
        each["envelope"] for parameter in STREAMS for each in parameter.values[0]["events"]
    ]
    envelopes = [parameter.values[0]["envelope"] for parameter in HISTORIES] + of_streams
    messages = events_pb2.DESCRIPTOR.message_types_by_name.values()
    parts = {field.message_type for message in messages for field in message.fields}
    facts = {message.full_name for message in messages if message not in parts}
    types = {
        EVENT_TYPES.decode(ParseDict(envelope, Envelope())).event.customer_event.type
        for envelope in envelopes
        if envelope["type"].endswith("CustomerEventRecorded")
    }

    assert facts == {envelope["type"] for envelope in envelopes}
    assert {1, 2, 3, 4, 5, 6, 7} == types
