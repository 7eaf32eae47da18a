"""The document of an export is lines of JSON, and says itself that it is whole."""

import json
from collections import Counter

from rapport.common.v1.subjects_pb2 import SubjectRecord
from services.identity.documents import first_line, last_line, record_line
from services.kernel.log.recorded import timestamp_of
from tests.identity_world import at


def read(line):
    """The object of a line; it is one line."""
    assert line.endswith("\n")
    assert 1 == line.count("\n")
    return json.loads(line)


def test_the_first_line_says_whom_it_is_about():
    line = read(first_line("profiles/email:a@x.com", "profiles/1", [("email", "a@x.com")], at(0)))

    assert "subject" == line["type"]
    assert [{"type": "email", "value": "a@x.com"}] == line["identifiers"]
    assert "2026-01-01T00:00:00+00:00" == line["export_time"]


def test_a_record_is_told_with_its_content_as_it_is():
    record = SubjectRecord(
        system="log",
        resource="contacts/ada",
        kind="ContactRenamed",
        occur_time=timestamp_of(at(1)),
        content='{"given_name": "Ad\\u00e4\\nLovelace"}',
    )

    line = read(record_line("contacts", record))

    assert {"given_name": "Adä\nLovelace"} == line["content"]
    assert ("contacts", "log", "ContactRenamed") == (line["service"], line["system"], line["kind"])
    assert "2026-01-01T00:01:00+00:00" == line["occur_time"]
    assert "record_time" not in line


def test_what_is_no_json_is_told_as_its_text():
    assert "no json" == read(record_line("events", SubjectRecord(content="no json")))["content"]


def test_the_last_line_counts_what_was_told():
    line = read(last_line(Counter({("events", "log"): 2, ("contacts", "contacts"): 1})))

    assert ("end", 3) == (line["type"], line["records"])
    assert [
        {"service": "contacts", "system": "contacts", "count": 1},
        {"service": "events", "system": "log", "count": 2},
    ] == line["counts"]
