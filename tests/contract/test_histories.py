"""Streams that older releases wrote lead to the same states today, and hold the same claims.

`histories/*.json` are such streams as the log holds them, one each; those of a service with several
aggregates are in `histories/<service>/*streams.json`, many in one. record_history.py writes new
ones. A state may have gained fields since; those it had are as they were.
"""

import importlib
import json
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict

from rapport.common.v1.envelope_pb2 import Envelope
from services.kernel.log.recorded import UndecodableEventError
from tests.contract.record_history import event_types_of, replayed

FOLDER = Path(__file__).with_name("histories")
HISTORIES = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(FOLDER.glob("*.json"))
} | {
    f"{path.stem}/{history['events'][0]['stream']}": history
    for path in sorted((FOLDER / "deals").glob("*streams.json"))
    for history in json.loads(path.read_text(encoding="utf-8"))
}
SERVICES = sorted({history["service"] for history in HISTORIES.values()})


# A field that a state keeps otherwise today, and how it is found there.
KEPT_OTHERWISE = {
    "contact": lambda state: next((each["contact"] for each in state["contacts"]), "")
}


def told(state, field):
    return state[field] if field in state else KEPT_OTHERWISE[field](state)


def envelopes_of(history):
    return [ParseDict(event, Envelope()) for event in history["events"]]


@pytest.mark.parametrize("name", HISTORIES)
def test_an_old_stream_leads_to_the_state_it_led_to(name):
    history = HISTORIES[name]

    today = replayed(history["service"], envelopes_of(history))

    assert history["state"] == {field: told(today["state"], field) for field in history["state"]}
    assert history["claims"] == today["claims"]


@pytest.mark.parametrize("name", HISTORIES)
def test_an_old_stream_is_whole(name):
    envelopes = envelopes_of(HISTORIES[name])

    assert list(range(1, len(envelopes) + 1)) == [envelope.version for envelope in envelopes]
    assert 1 == len({(envelope.workspace, envelope.stream) for envelope in envelopes})


@pytest.mark.parametrize("service", SERVICES)
def test_every_fact_of_a_service_is_in_some_history(service):
    events = importlib.import_module(f"rapport.{service}.v1.events_pb2").DESCRIPTOR
    known = {descriptor.full_name for descriptor in events.message_types_by_name.values()}
    held = {
        envelope.type
        for history in HISTORIES.values()
        if history["service"] == service
        for envelope in envelopes_of(history)
    }

    assert known <= held, "record a stream with each fact: see record_history.py"


@pytest.mark.parametrize("name", HISTORIES)
def test_a_fact_that_code_forgot_is_noticed(name):
    history = HISTORIES[name]
    event_types = event_types_of(history["service"])
    forgotten = envelopes_of(history)[0]
    forgotten.type += "Forgotten"

    with pytest.raises(UndecodableEventError):
        event_types.decode(forgotten)
