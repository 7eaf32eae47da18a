"""A row becomes the customer event that the mapping says, or says why it does not."""

from datetime import UTC, date, datetime
from decimal import Decimal

import orjson
import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.import_job_pb2 import (
    ImportEmptyValue,
    ImportField,
    ImportMapping,
    ImportValueType,
)
from services.events.import_files import EXCERPT_CHARACTERS_MAX, RowError
from services.events.import_mapping import Mapper, violations

TRACK = ImportField(target="type", constant="track")


def field(target, column="v", **options):
    options = {
        name: ImportValueType.Value(f"IMPORT_VALUE_TYPE_{value}")
        if name == "type"
        else ImportEmptyValue.Value(f"IMPORT_EMPTY_VALUE_{value}")
        if name == "when_empty"
        else value
        for name, value in options.items()
    }
    return ImportField(target=target, column=column, **options)


def mapped(*fields, number=1, **row):
    mapping = ImportMapping(fields=[TRACK, *fields])
    assert not list(violations(mapping))
    return Mapper.of(mapping, "imports/one").mapped(number, row)


def wrong(*fields):
    return [violation.field for violation in violations(ImportMapping(fields=fields))]


def test_columns_and_constants_fill_a_customer_event():
    event = mapped(
        field("name", "what"),
        field("user_id", "who"),
        ImportField(target="group_id", constant="g"),
        field("traits.address.city", "city"),
        field("traits.address.zip", "zip"),
        what=" Signed Up ",
        who="u-1",
        city="Graz",
        zip="8010",
    )

    assert CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK == event.type
    assert ("Signed Up", "u-1", "g") == (event.name, event.user_id, event.group_id)
    assert {"address": {"city": "Graz", "zip": "8010"}} == orjson.loads(event.traits)
    assert "" == event.properties


def test_a_row_without_a_message_id_gets_one_that_it_gets_again():
    assert "imports/one/7" == mapped(number=7).message_id
    assert "imports/one/7" == mapped(field("message_id"), number=7, v=" ").message_id
    assert "m-1" == mapped(field("message_id"), v="m-1").message_id


@pytest.mark.parametrize("word", ["identify", "IDENTIFY", "CUSTOMER_EVENT_TYPE_IDENTIFY"])
def test_the_type_may_come_from_a_column(word):
    mapper = Mapper.of(ImportMapping(fields=[field("type")]), "imports/one")

    event = mapper.mapped(1, {"v": word})

    assert CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY == event.type
    assert "VALUE_INVALID" == mapper.mapped(1, {"v": "click"}).reason


@pytest.mark.parametrize(
    ("value_type", "value", "made"),
    [
        ("UNSPECIFIED", "007", "007"),
        ("UNSPECIFIED", Decimal("2.50"), 2.5),
        ("UNSPECIFIED", date(2026, 1, 2), "2026-01-02"),
        ("UNSPECIFIED", {"a": [1, None]}, {"a": [1, None]}),
        ("STRING", 7, "7"),
        ("STRING", True, "true"),
        ("INTEGER", "17850.0", 17850),
        ("INTEGER", " -3 ", -3),
        ("INTEGER", 3.0, 3),
        ("INTEGER", str(2**64 - 1), 2**64 - 1),
        ("NUMBER", "2.55", 2.55),
        ("NUMBER", "1e3", 1000.0),
        ("BOOLEAN", "Yes", True),
        ("BOOLEAN", 0, False),
        ("TIME", "2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05Z"),
        ("JSON", '{"a": [1]}', {"a": [1]}),
        ("JSON", [1], [1]),
    ],
)
def test_a_value_is_made_into_its_type(value_type, value, made):
    event = mapped(field("properties.p", type=value_type), v=value)

    assert {"p": made} == orjson.loads(event.properties)


@pytest.mark.parametrize(
    ("value_type", "value"),
    [
        ("INTEGER", "1.5"),
        ("INTEGER", str(2**64)),
        ("INTEGER", float("inf")),
        ("NUMBER", "1,5"),
        ("NUMBER", "nan"),
        ("NUMBER", float("nan")),
        ("BOOLEAN", "perhaps"),
        ("TIME", "yesterday"),
        ("JSON", "{"),
        ("UNSPECIFIED", b"\xff"),
        ("UNSPECIFIED", object()),
    ],
)
def test_a_value_of_another_type_is_told_with_its_column(value_type, value):
    error = mapped(field("properties.p", type=value_type), v=value)

    assert isinstance(error, RowError)
    assert ("VALUE_INVALID", "v") == (error.reason, error.column)


NOON = "2010-12-01T12:00:00Z"


@pytest.mark.parametrize(
    ("written", "options", "read"),
    [
        ("2010-12-01 12:00:00", {"time_zone": "Europe/London"}, NOON),
        ("2010-07-01 12:00", {"time_zone": "Europe/London"}, "2010-07-01T11:00:00Z"),
        ("01.12.2010 12:00", {"time_format": "%d.%m.%Y %H:%M"}, NOON),
        ("2010-12-01T12:00:00Z", {}, NOON),
        ("2010-12-01", {}, "2010-12-01T00:00:00Z"),
        ("1291204800", {"time_format": "unix_s"}, NOON),
        (1291204800000, {"time_format": "unix_ms"}, NOON),
        (datetime(2010, 12, 1, 12, tzinfo=UTC), {}, NOON),
        (datetime(2010, 12, 1, 12), {}, NOON),  # noqa: DTZ001, as a file has it
        (date(2010, 12, 1), {}, "2010-12-01T00:00:00Z"),
    ],
)
def test_a_time_is_read_in_its_format_and_zone(written, options, read):
    event = mapped(field("original_time", **options), v=written)

    assert read == event.original_time.ToJsonString()


@pytest.mark.parametrize("written", ["0000-00-00", "1e30", True, "31.02.2026"])
@pytest.mark.parametrize("time_format", ["", "unix_s", "%d.%m.%Y"])
def test_what_is_no_time_is_told(written, time_format):
    if (written, time_format) == (True, "unix_s"):
        return
    error = mapped(field("original_time", time_format=time_format), v=written)

    assert "VALUE_INVALID" == error.reason


@pytest.mark.parametrize("empty", ["", "  ", None])
def test_an_empty_value_is_left_out_or_null_or_an_error_as_the_mapping_says(empty):
    assert "" == mapped(field("properties.p"), v=empty).properties
    assert '{"p":null}' == mapped(field("properties.p", when_empty="NULL"), v=empty).properties
    refused = mapped(field("user_id", when_empty="REFUSE"), v=empty)
    assert ("VALUE_EMPTY", "v") == (refused.reason, refused.column)
    assert "nobody" == mapped(field("user_id", constant="nobody"), v=empty).user_id


def test_a_whole_object_and_places_within_it_go_together():
    event = mapped(field("properties.more", "more"), field("properties"), v='{"a": 1}', more="here")

    assert {"a": 1, "more": "here"} == orjson.loads(event.properties)
    assert "VALUE_INVALID" == mapped(field("properties"), v="[1]").reason
    clash = mapped(field("properties.a.b", "more"), field("properties"), v='{"a": 1}', more="x")
    assert "VALUE_INVALID" == clash.reason


def test_a_dotted_column_leads_into_nested_objects():
    assert "u-1" == mapped(field("user_id", "user.id"), user={"id": "u-1"}).user_id
    assert "u-2" == mapped(field("user_id", "user.id"), **{"user.id": "u-2"}).user_id
    assert "" == mapped(field("user_id", "user.id"), user=7).user_id


def test_an_excerpt_is_short():
    error = mapped(field("properties.p", type="INTEGER"), v="x" * 1_000)

    assert EXCERPT_CHARACTERS_MAX == len(error.excerpt)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ([], "mapping.fields"),
        ([TRACK, TRACK], "mapping.fields[1].target"),
        ([TRACK, field("email")], "mapping.fields[1].target"),
        ([TRACK, field("user_id.x")], "mapping.fields[1].target"),
        ([TRACK, field("traits..x")], "mapping.fields[1].target"),
        ([TRACK, field("traits.a"), field("traits.a.b")], "mapping.fields[2].target"),
        ([TRACK, field("user_id", "")], "mapping.fields[1]"),
        ([TRACK, field("user_id", when_empty="NULL")], "mapping.fields[1].target"),
        ([TRACK, field("traits", type="STRING")], "mapping.fields[1].target"),
        ([TRACK, field("original_time", time_zone="Mars")], "mapping.fields[1].time_zone"),
        ([TRACK, field("original_time", time_zone="../x")], "mapping.fields[1].time_zone"),
        ([TRACK, field("original_time", time_format="%Q")], "mapping.fields[1].time_format"),
        ([ImportField(target="type", constant="click")], "mapping.fields[0].constant"),
        ([TRACK, field("user_id", "a\0")], "mapping.fields[1]"),
    ],
)
def test_a_mapping_that_maps_nothing_is_refused_by_its_place(fields, where):
    assert [where] == wrong(*fields)


def test_a_path_is_as_deep_as_the_limit_says():
    deep = ".".join(["traits", *"abcdefghijklmno"])

    assert [] == wrong(TRACK, field(deep))
    assert ["mapping.fields[1].target"] == wrong(TRACK, field(f"{deep}.p"))


def test_a_column_that_a_file_has_not_is_named():
    mapper = Mapper.of(ImportMapping(fields=[TRACK, field("user_id", "a.b")]), "imports/one")

    assert ["a.b"] == mapper.missing(["b"])
    assert [] == mapper.missing(["a"])
    assert [] == mapper.missing(["a.b"])
