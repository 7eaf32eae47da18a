"""Whoever breaks a rule of a proto reads a sentence, and no regular expression."""

import pytest
from google.protobuf.message import Message

from rapport.common.v1.money_pb2 import Money
from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.deals.v1.service_pb2 import OpenDealRequest
from rapport.segments.v1.service_pb2 import CreateSegmentRequest
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.validation import validate

BROKEN: list[tuple[Message, str]] = [
    (CreateContactRequest(contact_id="Ada"), "contact_id"),
    (CreateContactRequest(phone="call me"), "phone"),
    (CreateContactRequest(custom_fields={"Tier": "x"}), 'custom_fields["Tier"]'),
    (OpenDealRequest(display_name="d", deal_id="-"), "deal_id"),
    (OpenDealRequest(display_name="d", contact="ada"), "contact"),
    (OpenDealRequest(display_name="d", custom_fields={"a b": ""}), 'custom_fields["a b"]'),
    (OpenDealRequest(display_name="d", amount=Money(currency="eur")), "amount.currency"),
    (OpenDealRequest(display_name="d", amount=Money()), "amount.currency"),
    (CreateSegmentRequest(display_name="s", segment_id="a_b"), "segment_id"),
]


@pytest.mark.parametrize(("request_", "field"), BROKEN)
def test_a_broken_form_is_told_in_words(request_, field):
    with pytest.raises(InvalidArgument) as refused:
        validate(request_)
    [violation] = [it for it in refused.value.violations if it.field == field]

    assert violation.description.startswith("must be")
    assert not set("^$[]{}") & set(violation.description)
    assert violation.reason.startswith("string.")


@pytest.mark.parametrize(
    "request_",
    [
        CreateContactRequest(
            contact_id="ada-7", phone="+44 (1) 2/3.4-5", custom_fields={"a_1": ""}
        ),
        OpenDealRequest(display_name="d", contact="contacts/a", amount=Money(currency="EUR")),
        OpenDealRequest(display_name="d"),
    ],
)
def test_what_has_the_right_form_is_let_through(request_):
    validate(request_)
