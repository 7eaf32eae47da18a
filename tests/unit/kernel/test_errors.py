"""The family of errors and the proto enum of reasons say the same words."""

from __future__ import annotations

import inspect

from rapport.common.v1 import errors_pb2
from services.kernel import errors
from services.kernel.errors import FieldViolation, InvalidArgument, RapportError, Reason
from services.kernel.rpc.wire_errors import CODES

FAMILY = {
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RapportError) and kind is not RapportError
}


def test_the_reasons_are_those_of_the_proto():
    said = {name.removeprefix("ERROR_REASON_") for name, _ in errors_pb2.ErrorReason.items()}

    assert {reason.value for reason in Reason} == said - {"UNSPECIFIED"}


def test_the_name_of_a_reason_is_its_value():
    assert [reason.name for reason in Reason] == [reason.value for reason in Reason]


def test_the_tree_in_the_docstring_shows_the_whole_family():
    shown = {line.split()[1] for line in errors.__doc__.splitlines() if line[:1] in "├└" and line}

    assert shown == {kind.__name__ for kind in FAMILY}


def test_every_member_of_the_family_has_its_own_status():
    assert set(CODES) == FAMILY
    assert len(set(CODES.values())) == len(CODES)


def test_the_message_of_an_invalid_argument_names_each_field():
    error = InvalidArgument([FieldViolation("name", "is empty"), FieldViolation("", "is no JSON")])

    assert str(error) == "name: is empty; is no JSON"
    assert error.reason is Reason.FIELD_INVALID


def test_metadata_that_is_empty_is_left_out():
    error = errors.FailedPrecondition("it is archived", resource="contacts/1")

    assert error.metadata == {"resource": "contacts/1"}


def test_an_error_from_the_wire_is_of_its_kind_and_keeps_what_it_said():
    error = errors.NotFound.restored("A_NEWER_REASON", "gone", {"resource": "contacts/1"})

    assert isinstance(error, errors.NotFound)
    assert (error.reason, str(error)) == ("A_NEWER_REASON", "gone")
