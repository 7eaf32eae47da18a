"""Streams of rule sets that older releases wrote lead to the same states and rules today.

A state may have gained fields since; those it had are as they were. Such a file is written once, by
the release it is named for, and never edited.
"""

import base64
import json
from pathlib import Path

import msgspec
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.identity.v1 import events_pb2
from rapport.identity.v1.events_pb2 import ResolutionRules
from services.identity.__main__ import SERVICE
from services.identity.deciders.rule_set import DECIDER
from services.identity.rule_sets import rules_in, written_as

FOLDER = Path(__file__).parent / "histories" / "identity" / "streams"
STREAMS = [
    pytest.param(history, id=history["events"][0]["stream"])
    for path in sorted(FOLDER.glob("*rule-sets.json"))
    for history in json.loads(path.read_text(encoding="utf-8"))
]


def envelopes_of(history):
    return [ParseDict(event, Envelope()) for event in history["events"]]


@pytest.mark.parametrize("history", STREAMS)
def test_an_old_stream_leads_to_the_state_and_the_rules_it_led_to(history):
    events = [SERVICE.event_types.decode(each).event for each in envelopes_of(history)]

    today = json.loads(msgspec.json.encode(DECIDER.fold(events)))

    assert history["state"] == {field: today[field] for field in history["state"]}
    kept = ResolutionRules.FromString(base64.b64decode(today["rules"]))
    assert MessageToDict(written_as(rules_in(kept))) == history["rules"]


def test_every_fact_of_rule_sets_is_in_some_history():
    known = {
        fact.full_name
        for name, fact in events_pb2.DESCRIPTOR.message_types_by_name.items()
        if name.startswith("RuleSet")
    }
    held = {each.type for param in STREAMS for each in envelopes_of(param.values[0])}

    assert known == held
