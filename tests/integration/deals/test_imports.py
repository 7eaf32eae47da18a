"""Deals are imported with their histories, each once, and exported as they were at one moment."""

import asyncio

import pytest

from deploy.deal_files.reading import read
from deploy.deal_files.sending import load_stages, send
from deploy.deal_files.stories import Reading
from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import exports_pb2, imports_pb2
from rapport.deals.v1.exports_pb2_grpc import DealExportsServiceStub
from rapport.deals.v1.imports_pb2_grpc import DealImportsServiceStub
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub
from rapport.deals.v1.service_pb2 import (
    DEAL_STATE_WON,
    DealDetails,
    DeleteDealRequest,
    GetDealRequest,
    ListDealChangesRequest,
    ListDealsRequest,
    UpdateDealRequest,
)
from services.deals.service import deal_exports, deal_imports
from services.kernel.errors import InvalidArgument, NotFound, ResourceExhausted, Unavailable
from tests.deals_world import PROPOSAL, WON_STAGE, ago

CHANGES = exports_pb2.DEAL_EXPORT_LAYOUT_CHANGES
DEALS = exports_pb2.DEAL_EXPORT_LAYOUT_DEALS


@pytest.fixture
def imports(asked):
    """Imports into the workspace `acme`."""
    return asked.stub(DealImportsServiceStub)


@pytest.fixture
def exports(asked):
    """Exports of the workspace `acme`."""
    return asked.stub(DealExportsServiceStub)


def deal(deal_id, *stages, **details):
    """A deal that entered a stage every ten days."""
    return imports_pb2.ImportedDeal(
        row=7,
        deal_id=deal_id,
        details=DealDetails(**{"display_name": deal_id} | details),
        open_time=ago(100),
        changes=[
            imports_pb2.ImportedDealChange(occur_time=ago(100 - 10 * place), stage=stage)
            for place, stage in enumerate(stages, start=1)
        ],
    )


async def imported(stub, *deals, **said):
    """The outcomes of a batch, and what was wrong."""
    request = imports_pb2.ImportDealsRequest(deals=deals, **said)
    results = (await stub.ImportDeals(request)).results
    name = imports_pb2.DealImportOutcome.Name
    assert [f"deals/{each.deal_id}" for each in deals] == [each.name for each in results]
    return (
        [name(each.outcome).removeprefix("DEAL_IMPORT_OUTCOME_") for each in results],
        [(error.reason, error.field) for each in results for error in each.errors],
    )


async def exported(stub, layout, page_size=2, **said):
    """The pages of a file."""
    request = exports_pb2.ExportDealsRequest(layout=layout, page_size=page_size, **said)
    pages = []
    while True:
        page = await stub.ExportDeals(request)
        pages.append(page)
        if not page.next_page_token:
            return pages
        request.page_token = page.next_page_token
        request.read_time.CopyFrom(page.read_time)


async def test_what_is_wrong_with_one_deal_is_not_the_others_matter(deals, imports):
    won = deal("won", PROPOSAL, WON_STAGE, amount=Money(amount_minor=5, currency="EUR"))

    outcomes, wrong = await imported(
        imports,
        won,
        deal("Bad id"),
        deal("null", next_step="a\0b"),
        deal("fields", custom_fields={"size": "\0"}),
        deal("unknown", "pipelines/none/stages/x"),
        won,
        deal("open"),
    )

    assert ["IMPORTED", *["REFUSED"] * 5, "IMPORTED"] == outcomes
    fields = ["deal_id", "", "", "changes[0].stage", "deal_id"]
    assert [("FIELD_INVALID", field) for field in fields] == wrong
    listed = (await deals.ListDeals(ListDealsRequest())).deals
    assert {"deals/won", "deals/open"} == {each.name for each in listed}
    changes = (await deals.ListDealChanges(ListDealChangesRequest(name="deals/won"))).changes
    assert [ago(80), ago(90), ago(100)] == [each.occur_time for each in changes]
    assert 1 == len({each.record_time.ToNanoseconds() for each in changes})
    assert DEAL_STATE_WON == changes[0].after.state


async def test_a_deal_that_is_there_is_never_changed(deals, imports):
    await imported(imports, deal("a", PROPOSAL), deal("b", PROPOSAL))
    await deals.UpdateDeal(UpdateDealRequest(name="deals/a", deal=DealDetails(next_step="call")))
    before = (await deals.GetDeal(GetDealRequest(name="deals/b"))).deal

    outcomes, wrong = await imported(
        imports, deal("a", PROPOSAL), deal("b", WON_STAGE), deal("b2", WON_STAGE)
    )

    assert ["UNCHANGED", "CONFLICT", "IMPORTED"] == outcomes
    assert [("RESOURCE_EXISTS", "deal_id")] == wrong
    assert before == (await deals.GetDeal(GetDealRequest(name="deals/b"))).deal
    longer, _ = await imported(imports, deal("b", PROPOSAL, WON_STAGE))
    assert ["CONFLICT"] == longer


async def test_a_check_records_nothing(deals, imports):
    outcomes, _ = await imported(imports, deal("a"), validate_only=True)

    assert ["IMPORTED"] == outcomes
    with pytest.raises(NotFound):
        await deals.GetDeal(GetDealRequest(name="deals/a"))


async def test_a_batch_that_is_sent_twice_at_once_is_recorded_once(imports):
    batch = [deal(f"d-{number}", PROPOSAL) for number in range(20)]

    both = await asyncio.gather(*(imported(imports, *batch) for _ in range(2)))

    assert [["IMPORTED"] * 20, ["UNCHANGED"] * 20] == sorted(outcomes for outcomes, _ in both)


async def test_a_batch_is_bounded(imports, monkeypatch):
    monkeypatch.setattr(deal_imports, "BATCH_FACTS_MAX", 3)

    outcomes, wrong = await imported(
        imports, deal("a", PROPOSAL), deal("b", PROPOSAL), deal("c"), deal("d")
    )

    assert ["IMPORTED", "REFUSED", "IMPORTED", "REFUSED"] == outcomes
    assert [("LIMIT_REACHED", "changes")] * 2 == wrong
    with pytest.raises(InvalidArgument):
        await imported(imports, *[deal("a")] * 501)


async def test_who_is_stopped_between_batches_begins_anew_and_every_deal_is_there_once(
    deals, imports, monkeypatch
):
    monkeypatch.setattr("deploy.deal_files.sending.BATCH_DEALS_MAX", 2)
    batch = [deal(f"d-{number}") for number in range(5)]
    told = []

    async def breaking(method, request):
        if told:
            raise Unavailable("gateway")
        return await method(request)

    async def ask(method, request):
        return await method(request)

    with pytest.raises(Unavailable):
        await send(imports, breaking, batch, told.append)
    await send(imports, ask, batch, told.append)

    unchanged = imports_pb2.DEAL_IMPORT_OUTCOME_UNCHANGED
    assert [7, 2] == [len(told), sum(each.outcome == unchanged for each in told)]
    assert 5 == len((await deals.ListDeals(ListDealsRequest())).deals)


@pytest.mark.parametrize("layout", [DEALS, CHANGES])
async def test_what_is_exported_and_imported_elsewhere_is_exported_the_same(
    asked, imports, exports, layout
):
    await imported(
        imports,
        deal("a", PROPOSAL, WON_STAGE, amount=Money(amount_minor=5, currency="JPY")),
        deal("b", next_step="=1+1", owner="members/kim"),
        deal("c", PROPOSAL, custom_fields={"size": "1,\n2"}),
    )
    text = "".join(page.csv for page in await exported(exports, layout))
    there = asked.stub(DealImportsServiceStub, workspace="other")

    async def ask(method, request):
        return await method(request)

    stages = await load_stages(asked.stub(PipelinesServiceStub, workspace="other"), ask)
    found = read(iter(text.splitlines(keepends=True)), Reading(stages))
    await send(there, ask, found.deals, lambda _: None)

    other = asked.stub(DealExportsServiceStub, workspace="other")
    again = "".join(page.csv for page in await exported(other, layout, page_size=100))
    assert sorted(text.splitlines()) == sorted(again.splitlines())
    assert "'=1+1" in text


async def test_the_pages_of_an_export_are_one_file_of_one_moment(deals, imports, exports):
    await imported(imports, deal("a"), deal("b"), deal("c"))
    first = await exports.ExportDeals(exports_pb2.ExportDealsRequest(page_size=2))
    await deals.DeleteDeal(DeleteDealRequest(name="deals/c"))
    await imported(imports, deal("d"))

    second = await exports.ExportDeals(
        exports_pb2.ExportDealsRequest(
            page_size=2, page_token=first.next_page_token, read_time=first.read_time
        )
    )

    assert [2, 1] == [first.deal_count, second.deal_count]
    rows = (first.csv + second.csv).splitlines()
    assert ["deal_id", "a", "b", "c"] == [row.partition(",")[0] for row in rows]
    assert not second.next_page_token
    now = await exported(exports, DEALS)
    assert 3 == sum(page.deal_count for page in now)
    with pytest.raises(InvalidArgument) as refused:
        await exports.ExportDeals(exports_pb2.ExportDealsRequest(page_token=first.next_page_token))
    assert ["read_time"] == [each.field for each in refused.value.violations]


async def test_a_page_is_bounded(imports, exports, monkeypatch):
    await imported(imports, *(deal(f"d-{number}", PROPOSAL) for number in range(3)))
    whole = await exported(exports, CHANGES, page_size=100)

    monkeypatch.setattr(deal_exports, "PAGE_CHARS_MAX", 1)
    pages = await exported(exports, CHANGES, page_size=100)
    assert [1, 1, 1] == [page.deal_count for page in pages]
    assert whole[0].csv == "".join(page.csv for page in pages)

    monkeypatch.setattr(deal_exports, "HISTORY_BYTES_MAX", 1)
    with pytest.raises(ResourceExhausted, match="deals/d-0"):
        await exported(exports, CHANGES)


async def test_an_empty_export_is_a_header(exports):
    (page,) = await exported(exports, CHANGES)

    assert ("deal_id,time,field,value\r\n", 0) == (page.csv, page.deal_count)
