"""Streams of erasures that older releases wrote lead to the same states today.

A state may have gained fields since; those it had are as they were. Such a file is written once, by
the release it is named for, and never edited.
"""

import json
from pathlib import Path

import msgspec
import pytest
from google.protobuf.json_format import ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from services.identity.__main__ import SERVICE
from services.identity.deciders.erasure import DECIDER

FOLDER = Path(__file__).parent / "histories" / "identity" / "streams"
STREAMS = [
    pytest.param(history, id=history["events"][0]["stream"])
    for path in sorted(FOLDER.glob("*erasures.json"))
    for history in json.loads(path.read_text(encoding="utf-8"))
]
FACTS = {"ErasureCreated", "ErasureExtended", "ErasureRetried", "SystemErasureEnded"}


def envelopes_of(history):
    return [ParseDict(event, Envelope()) for event in history["events"]]


@pytest.mark.parametrize("history", STREAMS)
def test_an_old_stream_leads_to_the_state_it_led_to(history):
    facts = [SERVICE.event_types.decode(each).event for each in envelopes_of(history)]

    today = json.loads(msgspec.json.encode(DECIDER.fold(facts)))

    assert history["state"] == {field: today[field] for field in history["state"]}


def test_every_fact_of_erasures_is_in_some_history():
    held = {each.type for param in STREAMS for each in envelopes_of(param.values[0])}

    assert {f"rapport.identity.v1.{name}" for name in FACTS} == held
