"""Streams of match runs and suggestions that older releases wrote lead to the same states today.

A state may have gained fields since; those it had are as they were. Such a file is written once, by
the release it is named for, and never edited.
"""

import json
from pathlib import Path

import msgspec
import pytest
from google.protobuf.json_format import ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.identity.v1 import events_pb2
from services.identity.__main__ import SERVICE
from services.identity.deciders import match_run, match_suggestion

FOLDER = Path(__file__).parent / "histories" / "identity" / "streams"
DECIDERS = {each.DECIDER.category: each.DECIDER for each in (match_run, match_suggestion)}
STREAMS = [
    pytest.param(history, id=history["events"][0]["stream"])
    for path in sorted(FOLDER.glob("*matching.json"))
    for history in json.loads(path.read_text(encoding="utf-8"))
]


def envelopes_of(history):
    return [ParseDict(event, Envelope()) for event in history["events"]]


@pytest.mark.parametrize("history", STREAMS)
def test_an_old_stream_leads_to_the_state_it_led_to(history):
    envelopes = envelopes_of(history)
    decider = DECIDERS[envelopes[0].stream.partition("-")[0]]

    state = decider.fold([SERVICE.event_types.decode(each).event for each in envelopes])

    today = json.loads(msgspec.json.encode(state))
    assert history["state"] == {field: today[field] for field in history["state"]}


def test_every_fact_of_matching_is_in_some_history():
    known = {
        fact.full_name
        for name, fact in events_pb2.DESCRIPTOR.message_types_by_name.items()
        if name.startswith("Match")
    }
    held = {each.type for param in STREAMS for each in envelopes_of(param.values[0])}

    assert known == held
