"""Whoever wants to be left alone is refused at the door, and nowhere is it written who that is."""

import json
import uuid

import pytest

from rapport.events.v1.service_pb2 import (
    GetCustomerEventRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.events.v1.suppressions_pb2 import (
    ListSuppressionsRequest,
    SuppressIdentifierRequest,
    UnsuppressIdentifierRequest,
)
from rapport.events.v1.suppressions_pb2_grpc import SuppressionsServiceStub
from services.kernel.errors import Aborted, InvalidArgument
from services.kernel.log.log import read_heads

ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED


@pytest.fixture
def suppressions(asked):
    """Suppressions of the workspace `acme`."""
    return asked.stub(SuppressionsServiceStub)


@pytest.fixture
def suppress(suppressions):
    """`await suppress("email", "ada@x.org")`."""

    async def suppress(type_name, value, **fields):
        request = SuppressIdentifierRequest(type=type_name, value=value, **fields)
        return await suppressions.SuppressIdentifier(request)

    return suppress


def told(response):
    return [(receipt.outcome, receipt.reason) for receipt in response.receipts]


@pytest.mark.parametrize(
    ("type_name", "value", "carrying"),
    [
        ("user_id", "u-9", {"user_id": "u-9"}),
        ("anonymous_id", "an-9", {"anonymous_id": "an-9"}),
        ("user_id", "u-9", {"type": 6, "previous_id": "u-9"}),
        ("group_id", "g-9", {"type": 5, "group_id": "g-9"}),
        ("email", " ADA@x.org", {"traits": '{"email":"Ada@X.org"}'}),
        ("email", "ada@x.org", {"context": '{"traits":{"email":"ada@x.org"}}'}),
        ("email", "ada@x.org", {"properties": '{"email":"ada@x.org"}'}),
        ("phone", "+49 (170) 12345", {"traits": '{"phone":4917012345}'}),
        ("phone", "004917012345", {"traits": '{"address":{"phone":"+49-170-12345"}}'}),
    ],
)
async def test_what_comes_with_a_suppressed_identifier_is_refused(
    asked, record, sent, suppress, type_name, value, carrying
):
    await suppress(type_name, value)

    response = await record(sent("a", **carrying), sent("b"), sent("a", **carrying))

    assert [(REFUSED, "SUPPRESSED"), (ACCEPTED, ""), (REFUSED, "SUPPRESSED")] == told(response)
    assert response.receipts[0].detail
    # Behind the suppression itself.
    assert [0, 2, 0] == [receipt.position for receipt in response.receipts]
    assert {0: 2} == await read_heads(asked.kernel.pool)


async def test_what_was_suppressed_is_taken_again_when_it_is_taken_back(
    record, sent, suppressions, suppress
):
    await suppress("user_id", "u-1")
    assert [(REFUSED, "SUPPRESSED")] == told(await record(sent("a")))

    await suppressions.UnsuppressIdentifier(
        UnsuppressIdentifierRequest(type="user_id", value="u-1")
    )

    # It was refused, so it was never there: the same message is new.
    assert [(ACCEPTED, "")] == told(await record(sent("a")))
    await suppress("user_id", "u-1")
    assert [(REFUSED, "SUPPRESSED")] == told(await record(sent("b")))


async def test_one_that_is_suppressed_stands_not_in_the_way_of_another_with_its_id(
    record, sent, suppress
):
    await suppress("user_id", "u-9")

    first = await record(sent("a", user_id="u-9"), sent("a"), sent("a", user_id="u-9"))

    assert [(REFUSED, "SUPPRESSED"), (ACCEPTED, ""), (REFUSED, "SUPPRESSED")] == told(first)


async def test_another_workspace_is_not_concerned(asked, sent, suppress, record):
    suppression = (await suppress("user_id", "u-1")).suppression
    others = asked.stub(EventsServiceStub, workspace="globex")

    response = await others.RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("a")])
    )

    assert [(ACCEPTED, "")] == told(response)
    theirs = asked.stub(SuppressionsServiceStub, workspace="globex")
    assert not (await theirs.ListSuppressions(ListSuppressionsRequest())).suppressions
    own = await theirs.SuppressIdentifier(SuppressIdentifierRequest(type="user_id", value="u-1"))
    # Nobody can tell by the names that both suppress the same person.
    assert suppression.name != own.suppression.name


async def test_no_table_holds_who_is_suppressed(asked, record, sent, suppressions, suppress):
    said = {"email": "leave-me@alone.org", "user_id": "leave-me-alone", "phone": "+49170999888"}
    for type_name, value in said.items():
        await suppress(type_name, value, request_id=str(uuid.uuid4()))
    await suppressions.UnsuppressIdentifier(
        UnsuppressIdentifierRequest(type="email", value=said["email"])
    )
    refused = sent(user_id="leave-me-alone", traits=json.dumps({"phone": "0049170999888"}))
    assert [(REFUSED, "SUPPRESSED")] == told(await record(refused))

    tables = await asked.kernel.pool.fetch(
        """select format('%I.%I', schemaname, tablename) as name from pg_tables
        where schemaname not in ('pg_catalog', 'information_schema')"""
    )
    for table in tables:
        for row in await asked.kernel.pool.fetch(f"select t.* from {table['name']} t"):
            for held in row.values():
                data = held if isinstance(held, bytes) else f"{held}".encode()
                assert not any(part in data for part in (b"leave-me", b"170999888")), table["name"]
    listed = (await suppressions.ListSuppressions(ListSuppressionsRequest())).suppressions
    assert ["email", "user_id", "phone"] == [each.type for each in listed]
    assert [False, True, True] == [each.is_suppressed for each in listed]


async def test_a_repeated_request_is_told_the_same_and_an_old_etag_is_refused(
    suppressions, suppress
):
    again = str(uuid.uuid4())
    first = await suppress("user_id", "u-1", request_id=again)

    assert first == await suppress("user_id", "u-1", request_id=again)
    taken_back = UnsuppressIdentifierRequest(type="user_id", value="u-1")
    await suppressions.UnsuppressIdentifier(taken_back)
    with pytest.raises(Aborted):
        await suppress("user_id", "u-1", etag=first.suppression.etag)


@pytest.mark.parametrize(
    ("type_name", "value"),
    [("colour", "red"), ("email", " "), ("phone", "none"), ("user_id", ""), ("", "u-1")],
)
async def test_what_is_no_identifier_is_refused(suppress, type_name, value):
    with pytest.raises(InvalidArgument):
        await suppress(type_name, value)


@pytest.mark.parametrize(
    "context",
    [
        '{"consent":{"categoryPreferences":{"marketing":true,"ads":false}}}',
        '{ "consent" : {"categoryPreferences": {}}, "n": 1.50, "big": 12345678901234567890 }',
        '{"consent":null}',
        '{"\\u0063onsent":{"categoryPreferences":{"\\u00fc":true}},"consent":{}}',
    ],
)
async def test_consent_is_kept_as_it_came(record, sent, events, suppress, context):
    # Somebody is suppressed, so that the door looks into what comes.
    await suppress("email", "ada@x.org")

    await record(sent("a", context=context))

    got = await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/a"))
    assert context == got.customer_event.context
