"""Sources: what each may send, and write keys that are shown once and kept nowhere."""

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import SourceSettings
from rapport.events.v1.service_pb2 import GetCustomerEventRequest, ReceiptOutcome
from rapport.events.v1.sources_pb2 import (
    ConfigureSourceRequest,
    CreateSourceRequest,
    DisableSourceRequest,
    EnableSourceRequest,
    GetSourceRequest,
    ListSourcesRequest,
    RevokeWriteKeyRequest,
    RotateWriteKeyRequest,
    SourceState,
)
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from rapport.events.v1.write_keys_pb2 import ResolveWriteKeyRequest
from rapport.events.v1.write_keys_pb2_grpc import WriteKeysServiceStub
from services.events.__main__ import SERVICE
from services.events.projections import doors
from services.kernel.clock import FixedClock
from services.kernel.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PermissionDenied,
)
from services.kernel.testing import eventually

SHOP = "sources/shop"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ACCEPTED = ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED
REFUSED = ReceiptOutcome.RECEIPT_OUTCOME_REFUSED
SAMPLED_OUT = ReceiptOutcome.RECEIPT_OUTCOME_SAMPLED_OUT
PAGE = CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE


@pytest.fixture
def clock():
    """A clock that goes when it is told."""
    return FixedClock(NOON)


@pytest.fixture
async def asked(start_service, clock):
    """The service on that clock."""
    return await start_service(SERVICE, clock=clock)


@pytest.fixture
def sources(asked):
    """Sources as the workspace `acme` sees them."""
    return asked.stub(SourcesServiceStub)


@pytest.fixture
def create(sources):
    """Creates a source: `await create("shop", allowed_types=[...])`."""

    async def create(source_id="shop", request_id="", **settings):
        return await sources.CreateSource(
            CreateSourceRequest(
                source_id=source_id,
                display_name="Shop",
                settings=SourceSettings(**settings),
                request_id=request_id,
            )
        )

    return create


@pytest.fixture
def resolve(asked):
    """Whose a write key is, or None when it is believed no longer."""
    write_keys = asked.stub(WriteKeysServiceStub)

    async def resolve(write_key):
        _, key_id, secret = write_key.split("_")
        digest = hashlib.sha256(secret.encode()).digest()
        try:
            found = await write_keys.ResolveWriteKey(
                ResolveWriteKeyRequest(key_id=key_id, secret_hash=digest)
            )
        except NotFound:
            return None
        return found.workspace, found.source

    return resolve


async def test_a_source_is_created_with_a_key_that_is_shown_once(sources, create, resolve):
    created = await create(allowed_types=[PAGE], sampled_millionths=5)

    assert ("acme", SHOP) == await resolve(created.write_key)
    got = (await sources.GetSource(GetSourceRequest(name=SHOP))).source
    assert ("Shop", SourceState.SOURCE_STATE_ENABLED) == (got.display_name, got.state)
    assert (5, [PAGE]) == (got.settings.sampled_millionths, list(got.settings.allowed_types))
    [key] = got.write_keys
    assert created.write_key.split("_")[1] == key.key_id
    assert not key.HasField("expire_time")
    secret = created.write_key.split("_")[2]
    assert secret not in f"{got}{created.source}"


async def test_only_who_repeats_the_request_sees_the_key_again(sources, create):
    again = str(uuid.uuid4())

    created = await create(request_id=again)

    assert created == await create(request_id=again)
    with pytest.raises(AlreadyExists):
        await create(request_id=str(uuid.uuid4()))
    rotate = RotateWriteKeyRequest(name=SHOP, request_id=str(uuid.uuid4()))
    rotated = await sources.RotateWriteKey(rotate)
    assert rotated == await sources.RotateWriteKey(rotate)
    assert rotated.write_key != created.write_key
    # The first answer is the answer for ever, whatever became of the source.
    assert created == await create(request_id=again)


async def test_no_table_holds_the_secret_of_a_key(asked, sources, create):
    created = await create(request_id=str(uuid.uuid4()))
    rotated = await sources.RotateWriteKey(
        RotateWriteKeyRequest(name=SHOP, request_id=str(uuid.uuid4()))
    )

    for answer in (created, rotated):
        secret = answer.write_key.split("_")[2]
        assert [] == await tables_with(asked.kernel.pool, secret)
        digest = hashlib.sha256(secret.encode()).digest()
        found = await tables_with(asked.kernel.pool, digest)
        assert ["kernel.events", "sources.write_keys"] == found


async def tables_with(pool, text):
    """The tables of the database any column of which holds a text, or bytes."""
    tables = await pool.fetch(
        """select format('%I.%I', schemaname, tablename) as name from pg_tables
        where schemaname not in ('pg_catalog', 'information_schema') order by 1"""
    )
    sought = text.encode() if isinstance(text, str) else text
    found = []
    for table in tables:
        rows = await pool.fetch(f"select t.* from {table['name']} t")
        values = [value for row in rows for value in row.values()]
        held = [value if isinstance(value, bytes) else f"{value}".encode() for value in values]
        if any(sought in each for each in held):
            found.append(table["name"])
    return found


async def test_a_key_that_was_rotated_is_believed_for_the_grace_it_was_given(
    clock, sources, create, resolve
):
    first = (await create()).write_key
    second = (
        await sources.RotateWriteKey(RotateWriteKeyRequest(name=SHOP, grace_s=3600))
    ).write_key

    clock.advance(timedelta(seconds=3599))
    assert [("acme", SHOP)] * 2 == [await resolve(first), await resolve(second)]
    clock.advance(timedelta(seconds=2))
    assert [None, ("acme", SHOP)] == [await resolve(first), await resolve(second)]
    keys = (await sources.GetSource(GetSourceRequest(name=SHOP))).source.write_keys
    assert [False, True] == [key.HasField("expire_time") for key in keys]
    third = (await sources.RotateWriteKey(RotateWriteKeyRequest(name=SHOP))).write_key
    clock.advance(timedelta(microseconds=1_000))
    assert [None, ("acme", SHOP)] == [await resolve(second), await resolve(third)]


async def test_a_key_that_was_revoked_is_believed_no_longer(clock, sources, create, resolve):
    write_key = (await create()).write_key
    revoke = RevokeWriteKeyRequest(name=SHOP, key_id=write_key.split("_")[1])

    await sources.RevokeWriteKey(revoke)

    clock.advance(timedelta(microseconds=1_000))
    assert await resolve(write_key) is None
    with pytest.raises(NotFound):
        await sources.RevokeWriteKey(revoke)


async def test_only_the_right_secret_is_believed_and_only_the_platform_asks(asked, create, resolve):
    write_key = (await create()).write_key

    assert await resolve(f"{write_key[:-1]}x") is None
    assert await resolve(f"wk_{'0' * 16}_{write_key.split('_')[2]}") is None
    outsider = asked.stub(WriteKeysServiceStub, scopes=frozenset({"*"}))
    with pytest.raises(PermissionDenied):
        await outsider.ResolveWriteKey(ResolveWriteKeyRequest(key_id="x", secret_hash=b"0" * 32))


async def test_sources_of_another_workspace_are_not_there(asked, create, resolve):
    created = await create()
    theirs = asked.stub(SourcesServiceStub, workspace="globex")
    key_id = created.write_key.split("_")[1]

    for refused in (
        theirs.GetSource(GetSourceRequest(name=SHOP)),
        theirs.DisableSource(DisableSourceRequest(name=SHOP)),
        theirs.RotateWriteKey(RotateWriteKeyRequest(name=SHOP)),
        theirs.RevokeWriteKey(RevokeWriteKeyRequest(name=SHOP, key_id=key_id)),
    ):
        with pytest.raises(NotFound):
            await refused
    assert not (await theirs.ListSources(ListSourcesRequest())).sources
    own = await theirs.CreateSource(CreateSourceRequest(source_id="shop", display_name="Theirs"))
    assert [("acme", SHOP), ("globex", SHOP)] == [
        await resolve(created.write_key),
        await resolve(own.write_key),
    ]


async def test_an_old_etag_is_refused(sources, create):
    etag = (await create()).source.etag
    disabled = await sources.DisableSource(DisableSourceRequest(name=SHOP, etag=etag))

    for refused in (
        sources.EnableSource(EnableSourceRequest(name=SHOP, etag=etag)),
        sources.ConfigureSource(ConfigureSourceRequest(name=SHOP, display_name="x", etag=etag)),
        sources.RotateWriteKey(RotateWriteKeyRequest(name=SHOP, etag=etag)),
    ):
        with pytest.raises(Aborted) as refusal:
            await refused
        assert disabled.source.etag == refusal.value.metadata["etag"]


async def test_what_a_disabled_source_sends_is_refused_at_once(record, sent, sources, create):
    await create()
    await record(sent("a"), source=SHOP)

    await sources.DisableSource(DisableSourceRequest(name=SHOP))
    with pytest.raises(FailedPrecondition) as refusal:
        await record(sent("b"), source=SHOP)
    assert {"resource": SHOP, "state": "DISABLED"} == refusal.value.metadata

    await sources.EnableSource(EnableSourceRequest(name=SHOP))
    assert ACCEPTED == (await record(sent("b"), source=SHOP)).receipts[0].outcome


async def test_a_replica_hears_of_a_rule_after_its_age_at_the_latest(
    start_service, record, sent, sources, create, monkeypatch
):
    other = await start_service(SERVICE)
    theirs = other.stub(SourcesServiceStub)
    await create()
    await record(sent("a"), source=SHOP)
    await theirs.DisableSource(DisableSourceRequest(name=SHOP))

    async def refused():
        try:
            await record(sent("a"), source=SHOP)
        except FailedPrecondition:
            return
        raise AssertionError("it is taken yet")

    await eventually(refused, within_s=doors.RULES_AGE_S_MAX + 4)


async def test_a_source_may_only_send_its_types_and_is_named_on_what_it_sent(
    record, sent, sources, events, create
):
    await create(allowed_types=[PAGE])

    response = await record(sent("a"), sent("b", type=PAGE), source=SHOP)

    assert [(REFUSED, "TYPE_NOT_ALLOWED"), (ACCEPTED, "")] == [
        (receipt.outcome, receipt.reason) for receipt in response.receipts
    ]
    got = await events.GetCustomerEvent(GetCustomerEventRequest(name="customerEvents/b"))
    assert SHOP == got.customer_event.source
    await sources.ConfigureSource(ConfigureSourceRequest(name=SHOP, display_name="Shop"))
    assert ACCEPTED == (await record(sent("a"), source=SHOP)).receipts[0].outcome


async def test_a_sample_is_the_same_people_in_every_batch(record, sent, create):
    await create(sampled_millionths=250_000)

    async def outcomes(round_number):
        batch = [sent(f"m-{round_number}-{n}", user_id=f"u-{n}") for n in range(400)]
        return [receipt.outcome for receipt in (await record(*batch, source=SHOP)).receipts]

    first, again = await outcomes(1), await outcomes(2)

    assert first == again
    assert {ACCEPTED, SAMPLED_OUT} == set(first)
    assert 70 < first.count(ACCEPTED) < 130


async def test_sources_are_listed_by_what_they_are(sources, create):
    for source_id in ("shop", "app", "server"):
        await create(source_id)
    await sources.DisableSource(DisableSourceRequest(name="sources/app"))

    async def listed(**asked):
        page = await sources.ListSources(ListSourcesRequest(**asked))
        return [source.name.removeprefix("sources/") for source in page.sources]

    assert ["shop", "app", "server"] == await listed()
    assert ["app"] == await listed(filter="state = DISABLED")
    assert ["shop", "app"] == await listed(page_size=2)
    with pytest.raises(InvalidArgument):
        await listed(order_by="settings")
