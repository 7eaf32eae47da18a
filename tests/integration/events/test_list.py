"""A list shows what the view has of the workspace, a page at a time; a read token waits for it."""

import asyncio

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest, RecordCustomerEventsRequest
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.projections.customer_events import CustomerEventsView
from services.kernel.errors import DeadlineExceeded, InvalidArgument

PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
GROUP = CustomerEventType.CUSTOMER_EVENT_TYPE_GROUP


@pytest.fixture
def list_ids(events):
    """The message ids of a list: `await list_ids(token, filter='name = "x"')`."""

    async def list_ids(read_token, **asked):
        request = ListCustomerEventsRequest(read_token=read_token, **asked)
        response = await events.ListCustomerEvents(request)
        return [each.message_id for each in response.customer_events]

    return list_ids


async def test_a_list_shows_the_newest_first_and_whole(record, events, sent):
    await record(sent("a"), sent("b", properties='{"total":1}', context='{"ip":"::1"}'))
    token = (await record(sent("c"))).write_token

    listed = await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token))

    assert ["c", "b", "a"] == [each.message_id for each in listed.customer_events]
    shown = listed.customer_events[1]
    assert ('{"total":1}', '{"ip":"::1"}') == (shown.properties, shown.context)
    assert shown.HasField("receive_time")
    assert not listed.next_page_token


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ('user_id = "u-1"', "ab"),
        ('anonymous_id = "a-1"', "cd"),
        ('name = "Order*"', "ab"),
        ("type = CUSTOMER_EVENT_TYPE_PAGE", "c"),
        ('group_id = "acme"', "d"),
        ('message_id = "b" OR message_id = "d"', "bd"),
        ("NOT user_id:*", "cd"),
        ("occur_time < 2020-01-02T00:00:00Z", "b"),
        ("receive_time > 2020-01-02T00:00:00Z", "abcd"),
        ("position <= 2", "ab"),
        ("refunded", "b"),
        ('name = "nobody did this"', ""),
    ],
)
async def test_a_filter_asks_the_fields(record, sent, list_ids, filter_text, expected):
    token = (
        await record(
            sent("a"),
            sent("b", name="Order Refunded", original_time={"seconds": 1_577_836_800}),
            sent("c", type=PAGE, name="Home", user_id="", anonymous_id="a-1"),
            sent("d", type=GROUP, name="", user_id="", anonymous_id="a-1", group_id="acme"),
        )
    ).write_token

    assert list(expected) == sorted(await list_ids(token, filter=filter_text))


async def test_a_list_is_sorted_as_asked(record, sent, list_ids):
    token = (
        await record(
            sent("a", name="B", original_time={"seconds": 30}),
            sent("b", name="A", original_time={"seconds": 10}),
            sent("c", name="C", original_time={"seconds": 20}),
        )
    ).write_token

    assert ["b", "c", "a"] == await list_ids(token, order_by="occur_time")
    assert ["a", "c", "b"] == await list_ids(token, order_by="occur_time desc")
    assert ["b", "a", "c"] == await list_ids(token, order_by="name")
    assert ["c", "b", "a"] == await list_ids(token, order_by="message_id desc")


async def test_what_cannot_be_asked_is_refused(list_ids):
    for asked in (
        {"filter": 'properties = "x"'},
        {"order_by": "type"},
        {"page_token": "x"},
        {"page_size": -1},
    ):
        with pytest.raises(InvalidArgument):
            await list_ids("", **asked)
    with pytest.raises(InvalidArgument):
        await list_ids("no token")


async def test_a_walk_gives_each_row_once_while_others_write(record, events, sent):
    token = (await record(*[sent(f"m-{number:03}") for number in range(100)])).write_token
    walked, page_token = [], ""
    while True:
        request = ListCustomerEventsRequest(
            page_size=7, page_token=page_token, read_token=token, filter='user_id = "u-1"'
        )
        response = await events.ListCustomerEvents(request)
        walked += [each.message_id for each in response.customer_events]
        page_token = response.next_page_token
        if not page_token:
            break
        token = (await record(sent(), sent())).write_token

    assert [f"m-{number:03}" for number in reversed(range(100))] == walked


async def test_a_workspace_lists_only_its_own(asked, record, sent, list_ids):
    others = asked.stub(EventsServiceStub, workspace="globex")
    token = (await record(sent("mine"))).write_token
    theirs = await others.RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("theirs")])
    )

    assert ["mine"] == await list_ids(token)
    listed = await others.ListCustomerEvents(
        ListCustomerEventsRequest(read_token=theirs.write_token)
    )
    assert ["theirs"] == [each.message_id for each in listed.customer_events]


async def test_a_read_token_waits_for_the_view(record, sent, list_ids, monkeypatch):
    behind = asyncio.Event()
    apply = CustomerEventsView.apply

    async def held(self, tx, schema, events):
        await behind.wait()
        await apply(self, tx, schema, events)

    monkeypatch.setattr(CustomerEventsView, "apply", held)
    token = (await record(sent("a"))).write_token

    assert [] == await list_ids("")
    waiting = asyncio.create_task(list_ids(token))
    behind.set()

    assert ["a"] == await waiting


async def test_a_view_that_stays_behind_is_said_to_be_behind(record, sent, events, monkeypatch):
    async def held(self, tx, schema, events):
        await asyncio.Event().wait()

    monkeypatch.setattr(CustomerEventsView, "apply", held)
    token = (await record(sent("a"))).write_token

    with pytest.raises(DeadlineExceeded) as error:
        await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token), timeout=0.5)

    assert "VIEW_BEHIND" == error.value.reason
