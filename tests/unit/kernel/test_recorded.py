"""Recorded events: in whatever shape one was written, code meets today's or a named failure."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from rapport.common.v1.envelope_pb2 import Envelope
from services.kernel.recorded import (
    EventTypes,
    UndecodableEventError,
    short_type,
    timestamp_of,
    utc,
)

# A StringValue and an Int64Value as the first release wrote them.
GOLDEN_STRING = bytes.fromhex("0a0548656c6c6f")
GOLDEN_NUMBER = bytes.fromhex("082a")


def text_of(number):
    """The second shape: a number became a text."""
    return StringValue(value=f"{number.value}")


def struct_of(text):
    """The third and today's shape: a text became a structure."""
    struct = Struct()
    struct["text"] = text.value
    return struct


TODAY = EventTypes(
    wrappers_pb2,
    struct_pb2,
    upcasters={
        "google.protobuf.Int64Value": text_of,
        "google.protobuf.StringValue": struct_of,
    },
)


def envelope(full_name, data):
    return Envelope(
        partition=2,
        position=7,
        workspace="acme",
        stream="box-1",
        version=3,
        event_id="01938f0a-0000-7000-8000-000000000001",
        type=full_name,
        data=data,
        actor="api_keys/1",
        correlation_id="correlation",
        causation_id="causation",
        occur_time=Timestamp(seconds=1, nanos=999),
        record_time=Timestamp(seconds=2, nanos=1_000),
    )


@pytest.mark.parametrize(
    ("full_name", "data", "text"),
    [
        ("google.protobuf.StringValue", GOLDEN_STRING, "Hello"),
        ("google.protobuf.Int64Value", GOLDEN_NUMBER, "42"),
    ],
)
def test_an_old_shape_is_led_to_todays_step_by_step(full_name, data, text):
    recorded = TODAY.decode(envelope(full_name, data))

    assert {"text": text} == dict(recorded.event)
    assert "google.protobuf.Struct" == recorded.type


def test_todays_shape_stays_as_it_is():
    event = EventTypes(wrappers_pb2).message("google.protobuf.StringValue", GOLDEN_STRING)

    assert StringValue(value="Hello") == event


def test_metadata_is_decoded_with_aware_times_to_the_microsecond():
    recorded = EventTypes(wrappers_pb2).decode(
        envelope("google.protobuf.StringValue", GOLDEN_STRING)
    )

    assert (2, 7, "acme", "box-1", 3) == (
        recorded.partition,
        recorded.position,
        recorded.workspace,
        recorded.stream,
        recorded.version,
    )
    assert datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC) == recorded.occur_time
    assert datetime(1970, 1, 1, 0, 0, 2, 1, tzinfo=UTC) == recorded.record_time
    assert ("api_keys/1", "correlation", "causation") == (
        recorded.actor,
        recorded.correlation_id,
        recorded.causation_id,
    )


@pytest.mark.parametrize(
    ("full_name", "data"),
    [
        ("google.protobuf.Duration", b""),
        ("", b""),
        ("google.protobuf.StringValue", b"\x0a\x05Hel"),
        ("google.protobuf.StringValue", b"\x0a\x02\xff\xfe"),
    ],
)
def test_what_cannot_be_read_is_one_kind_of_failure(full_name, data):
    with pytest.raises(UndecodableEventError):
        TODAY.decode(envelope(full_name, data))


def test_an_envelope_without_a_proper_id_cannot_be_read():
    broken = envelope("google.protobuf.StringValue", GOLDEN_STRING)
    broken.event_id = "nonsense"

    with pytest.raises(UndecodableEventError):
        TODAY.decode(broken)


def fails(_):
    raise KeyError("missing")


@pytest.mark.parametrize(
    "upcasters",
    [
        {"google.protobuf.StringValue": fails},
        {"google.protobuf.StringValue": lambda text: text},
        {
            "google.protobuf.StringValue": lambda _: Int64Value(),
            "google.protobuf.Int64Value": lambda _: StringValue(),
        },
    ],
    ids=["that fails", "that stands still", "that leads in a circle"],
)
def test_an_upcaster_cannot_stop_the_reader(upcasters):
    with pytest.raises(UndecodableEventError):
        EventTypes(wrappers_pb2, upcasters=upcasters).message(
            "google.protobuf.StringValue", GOLDEN_STRING
        )


def test_a_module_without_events_is_no_mistake():
    empty = SimpleNamespace(DESCRIPTOR=SimpleNamespace(message_types_by_name={}))

    with pytest.raises(UndecodableEventError):
        EventTypes(empty).message("google.protobuf.StringValue", GOLDEN_STRING)


def test_the_short_name_of_a_type_is_its_last_word():
    assert "ContactCreated" == short_type("rapport.contacts.v1.ContactCreated")


def test_a_time_becomes_a_timestamp_and_back():
    moment = datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC)

    assert moment == utc(timestamp_of(moment))
