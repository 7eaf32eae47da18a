"""Erasing people from the events service: nothing that names them is left, however it came in."""

import json
import uuid
from datetime import UTC
from pathlib import Path

import pytest

from rapport.common.v1.subjects_pb2 import (
    ERASURE_STAGE_FINISHED,
    ExportSubjectRequest,
    PreviewSubjectErasureRequest,
)
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventsErased
from rapport.events.v1.imports_pb2_grpc import ImportsServiceStub
from rapport.events.v1.orders_pb2 import GetOrderRequest
from rapport.events.v1.orders_pb2_grpc import OrdersServiceStub
from rapport.events.v1.products_pb2 import GetProductRequest
from rapport.events.v1.products_pb2_grpc import ProductsServiceStub
from rapport.events.v1.service_pb2 import (
    GetCustomerEventRequest,
    ListCustomerEventsRequest,
    ReceiptOutcome,
    RecordCustomerEventsRequest,
)
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from services.events.__main__ import EVENT_TYPES, SERVICE
from services.events.projections import counts, erased, importing, sought, uploads
from services.events.upkeep import holdings
from services.kernel.erasing import tombstones
from services.kernel.erasing.proof import find_in_files
from services.kernel.errors import NotFound, RapportError
from services.kernel.log.log import read_heads, read_partition
from services.kernel.log.tokens import encode_write_token
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild
from tests.erased_people import ask, erase, key_of, subject, tables_with
from tests.imports_world import CSV, JSONL, PARQUET, Imports, csv_file, jsonl_file, parquet_file

IDENTIFY = CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
DUPLICATE = ReceiptOutcome.RECEIPT_OUTCOME_DUPLICATE
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
MARKER = "zq7marker"
STEPS = [
    (sought, "begin"),
    (sought, "end"),
    (sought, "keep"),
    (sought, "found_streams"),
    (sought, "forget_places"),
    (erased, "forget"),
    (tombstones, "overwrite"),
    (uploads, "put_in_place"),
    (importing, "fence"),
    (importing, "blank_errors"),
    (counts, "forget_names_turned_away"),
    (sought, "forget"),
]
ORDER = {"order_id": "o-1", "total": "12.50", "currency": "GBP", "coupon": MARKER}


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Waits for no door, where nobody sends anything after the erasure."""
    if "what_is_erased_does_not_come_back" not in request.node.name:
        monkeypatch.setattr(holdings, "DOORS_HEAR_S", 0.0)


async def rebuilt_as_live(kernel):
    """Whether each view, built anew from the log, equals the live one."""

    async def read(partition, after_position, limit):
        return await read_partition(kernel.pool, partition, after=after_position, limit=limit)

    rebuilds = [
        *(Rebuild(kernel.pool, kernel.log, view, EVENT_TYPES, {}) for view in SERVICE.views),
        *(
            Rebuild.of_consumer(kernel.pool, kernel.log, consumer, {"events": read})
            for consumer in SERVICE.consumers
        ),
    ]
    different = []
    for rebuild in rebuilds:
        async for _ in rebuild.build():
            pass
        comparison = await rebuild.compare()
        if not comparison.equal:
            different.append((rebuild.view.name, comparison))
    return different


async def told(kernel):
    """The event ids that were told to be gone."""
    logged = [
        envelope
        for partition in range(kernel.log.partitions)
        for envelope in await read_partition(kernel.pool, partition, after=0, limit=1000)
    ]
    facts = [e.event for e in EVENT_TYPES.decode_all(logged)]
    facts = [fact for fact in facts if isinstance(fact, CustomerEventsErased)]
    return [uuid.UUID(bytes=each) for fact in facts for each in fact.event_ids]


async def listed(events, **options):
    response = await events.ListCustomerEvents(ListCustomerEventsRequest(**options))
    return {each.message_id for each in response.customer_events}


async def test_nothing_of_a_person_is_left_in_any_row(asked, record, sent, events, quarantine):
    """Named in every place, in every state that a message may be in, and in files."""
    imports = Imports(asked.stub(ImportsServiceStub), events)
    order = json.dumps(ORDER | {"products": [{"product_id": "p-1", "name": MARKER}]})
    await record(
        sent(f"m-{MARKER}", user_id=MARKER, name=f"Met {MARKER}", properties=order),
        sent("order", user_id=MARKER, properties=order),
        sent("alias", type=6, name="", user_id="u-2", previous_id=MARKER),
        sent("traits", type=IDENTIFY, traits=f'{{"Email":"{MARKER}@Example.org","x":"{MARKER}"}}'),
        sent("context", context=f'{{"device":{{"id":"{MARKER}"}},"ip":"{MARKER}"}}'),
        sent("deep", properties=f'{{"a":[{{"emailAddress":"{MARKER}@example.org"}}]}}'),
        sent("escaped", properties='{"email":"zq7m\\u0061rker@example.org"}'),
        sent("refused", user_id=MARKER, name=f"No {MARKER}", traits="no JSON"),
        sent("other", user_id="u-2", name="Something Else"),
        sent("account", type=7, group_id="g-1", user_id="", name=""),
    )
    elsewhere = asked.stub(EventsServiceStub, workspace="other")
    await elsewhere.RecordCustomerEvents(
        RecordCustomerEventsRequest(customer_events=[sent("m-1", user_id="zq8")])
    )
    rows = [("who", "score"), ("u-2", "1"), (MARKER, "2"), ("u-3", "3")]
    for number, (file_type, made) in enumerate(
        [(CSV, csv_file), (JSONL, jsonl_file), (PARQUET, parquet_file)]
    ):
        await imports.ready(made(rows), import_id=f"waits-{number}", file_type=file_type)
    await imports.run(csv_file([*rows, (MARKER,)]), import_id="done")
    await imports.run(csv_file(rows), import_id="undone")
    await imports.ask("Undo", "imports/undone")
    await imports.until("imports/undone", "UNDONE")
    before = await listed(elsewhere)

    gone = await erase(asked, user_id=MARKER, email=f"{MARKER}@example.org", device_id=MARKER)

    assert [] == await tables_with(asked.kernel.pool, MARKER)
    assert 9 == gone["customer events"]
    assert 3 == gone["rows of imported files"]
    assert {"other", "account", "imports/done/1", "imports/done/3"} == await listed(events)
    assert before == await listed(elsewhere)
    assert [] == await rebuilt_as_live(asked.kernel)


async def test_nothing_is_left_of_what_was_in_quarantine(
    asked, record, sent, plan, resubmit, discard, waiting
):
    plan.needed = "total"
    ids = [f"m-{number}-{MARKER}" for number in range(4)]
    await record(*(sent(each, user_id=MARKER) for each in ids), sent("other"))
    await discard(ids[0], comment=f"not of {MARKER}", request_id=str(uuid.uuid4()))
    await resubmit(ids[1], ids[2], request_id=str(uuid.uuid4()))
    await resubmit(ids[3], merge_patch='{"properties":{"total":1}}', request_id=str(uuid.uuid4()))

    gone = await erase(asked, user_id=MARKER)

    assert 4 == gone["customer events"]
    assert [] == await tables_with(asked.kernel.pool, MARKER)
    assert ["other"] == await waiting()
    assert [] == await rebuilt_as_live(asked.kernel)


async def test_no_byte_of_any_file_has_the_person_when_it_has_finished(
    asked, record, sent, events, nats_server
):
    marker = f"zq{uuid.uuid4().hex}"
    pool = asked.kernel.pool
    folders = [Path(await pool.fetchval("show data_directory")), nats_server.store]
    await record(sent(marker, user_id=marker, traits=f'{{"name":"{marker}"}}', type=IDENTIFY))
    imports = Imports(asked.stub(ImportsServiceStub), events)
    await imports.ready(csv_file([("who", "score"), (marker, "1")]))
    erasure = {"user_id": marker, "name": "erasures/bytes", "key": key_of()}
    await erase(asked, **erasure)
    before = list(find_in_files(marker, folders))

    async def finished():
        assert ERASURE_STAGE_FINISHED == (await ask(asked, **erasure)).stage

    await eventually(finished, within_s=30)
    await pool.execute("checkpoint")

    assert before
    assert [] == list(find_in_files(marker, folders))


async def test_a_crash_at_any_line_leaves_what_the_next_attempt_finishes(
    start_service, sent, monkeypatch
):
    """Each of these steps is done once and lost, in a log of several partitions."""
    asked = await start_service(SERVICE, partitions=2)
    events = asked.stub(EventsServiceStub)
    people = [sent(f"m-{number}", user_id=(MARKER, "eve")[number % 2]) for number in range(20)]
    await events.RecordCustomerEvents(RecordCustomerEventsRequest(customer_events=people))
    imports = Imports(asked.stub(ImportsServiceStub), events)
    await imports.ready(csv_file([("who", "score"), (MARKER, "1"), ("eve", "2")]))
    lost = []

    def crash(module, name):
        real = getattr(module, name)

        async def crashing(*args, **kwargs):
            done = await real(*args, **kwargs)
            if name not in lost:
                lost.append(name)
                raise ConnectionResetError(name)
            return done

        monkeypatch.setattr(module, name, crashing)

    for module, name in STEPS:
        crash(module, name)
    erasure = {"name": "erasures/one", "key": key_of(), "user_id": MARKER}
    while True:
        try:
            gone = await erase(asked, **erasure)
            break
        except RapportError:
            pass

    assert {name for _, name in STEPS} == set(lost)
    assert (10, 1) == (gone["customer events"], gone["rows of imported files"])
    assert [] == await tables_with(asked.kernel.pool, MARKER)
    assert [] == await rebuilt_as_live(asked.kernel)
    assert {f"m-{number}" for number in range(1, 20, 2)} == await listed(events)
    assert 10 == len(await told(asked.kernel))


async def test_what_is_erased_does_not_come_back(asked, record, sent, events):
    """Neither by its message id, nor as what happened before; who comes later is somebody new."""
    long_ago = {"seconds": 1_600_000_000}
    first = (await record(sent("m-1", user_id="ada"), sent("m-2"))).receipts[0]
    await erase(asked, user_id="ada")

    again = await record(
        sent("m-1", user_id="somebody else"),
        sent("m-3", user_id="eve", properties='{"userId":"ada"}', original_time=long_ago),
        sent("m-4", user_id="ada"),
        sent("m-2"),
    )
    with pytest.raises(NotFound):
        await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/m-1"))

    assert [DUPLICATE, REFUSED, ACCEPTED, DUPLICATE] == [r.outcome for r in again.receipts]
    assert first.position == again.receipts[0].position
    assert "ERASED" == again.receipts[1].reason
    assert {"m-2", "m-4"} == await listed(events, read_token=again.write_token)
    assert 1 == len(await told(asked.kernel))


async def test_what_came_after_the_key_stays(asked, record, sent, events):
    await record(sent("m-1", user_id="ada"))
    [logged] = await read_partition(asked.kernel.pool, 0, after=0)
    received = EVENT_TYPES.decode(logged).event.customer_event.receive_time
    moment = received.ToDatetime(tzinfo=UTC)
    place = uuid.UUID(logged.event_id)
    before = uuid.UUID(int=place.int - 1)

    assert {} == await erase(asked, user_id="ada", key=key_of(moment, before))
    at = await erase(asked, user_id="ada", key=key_of(moment, place))
    assert 1 == at["customer events"]


async def test_a_person_is_anonymised_and_what_was_sold_is_still_sold(asked, record, sent, events):
    product = {"product_id": "p-1", "quantity": 2, "price": 6.25, "name": "Hat"}
    order = json.dumps(ORDER | {"products": [product]})
    await record(
        sent("m-1", user_id=MARKER, properties=order),
        sent("m-2", user_id=MARKER, type=IDENTIFY, traits='{"name":"Ada"}'),
    )
    gone = await erase(asked, user_id=MARKER, anonymise=True)
    token = encode_write_token("events", await read_heads(asked.kernel.pool))
    [left] = (
        await events.ListCustomerEvents(ListCustomerEventsRequest(read_token=token))
    ).customer_events
    name = f"orders/{json.loads(left.properties)['order_id']}"
    orders, products = asked.stub(OrdersServiceStub), asked.stub(ProductsServiceStub)
    order_left = (await orders.GetOrder(GetOrderRequest(name=name, read_token=token))).order
    sold = (await products.GetProduct(GetProductRequest(name="products/p-1"))).product

    assert (2, 1) == (gone["customer events"], gone["anonymised customer events"])
    assert ("Order Completed", "", "") == (left.name, left.user_id, left.anonymous_id)
    assert (1250, "") == (order_left.total.amount_minor, order_left.user_id)
    assert 2 == sold.ordered_units
    assert [] == await tables_with(asked.kernel.pool, MARKER)
    assert [] == await rebuilt_as_live(asked.kernel)


async def test_what_is_held_about_a_person_is_exported_and_counted(asked, record, sent):
    await record(sent("m-1", user_id="ada"), sent("m-2", context='{"userId":"ada"}'), sent("m-3"))
    stub = asked.stub(SubjectsServiceStub)
    preview = await stub.PreviewSubjectErasure(
        PreviewSubjectErasureRequest(identifiers=subject(user_id="ada"))
    )
    found = [
        record.resource
        async for response in stub.ExportSubject(
            ExportSubjectRequest(identifiers=subject(user_id="ada"))
        )
        for record in response.records
    ]

    assert [("customer events", 2)] == [(each.system, each.count) for each in preview.counts]
    assert ["customerEvents/m-1", "customerEvents/m-2"] == found
