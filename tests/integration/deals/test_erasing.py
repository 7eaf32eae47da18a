"""A person is erased from deals, quotes and contracts; what was agreed and earned stays."""

import uuid
from datetime import timedelta
from pathlib import Path

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.common.v1.subjects_pb2 import (
    EraseSubjectRequest,
    ExportSubjectRequest,
    FactKey,
    PreviewSubjectErasureRequest,
    SubjectIdentifier,
)
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.deals.v1 import contracts_pb2, quotes_pb2
from rapport.deals.v1.contract_terms_pb2 import ContractTerms
from rapport.deals.v1.contracts_pb2_grpc import ContractsServiceStub
from rapport.deals.v1.lines_pb2 import LineItem, LineItems, QuoteDetails
from rapport.deals.v1.quotes_pb2_grpc import QuotesServiceStub
from rapport.deals.v1.reports_pb2 import GetSalesReportRequest, ReportScope
from rapport.deals.v1.reports_pb2_grpc import ReportsServiceStub
from rapport.deals.v1.service_pb2 import (
    DealDetails,
    GetDealRequest,
    OpenDealRequest,
    UpdateDealRequest,
    WinDealRequest,
)
from rapport.deals.v1.service_pb2_grpc import DealsServiceStub
from rapport.deals.v1.values_pb2 import DealContact
from services.deals.__main__ import SERVICE
from services.kernel.clock import SystemClock
from services.kernel.erasing.proof import find_in_files
from services.kernel.log.recorded import timestamp_of
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild

MARKER = "zanzibar-marker"
ADA = "contacts/ada-zanzibar-marker"
ADA_ID = SubjectIdentifier(type="contact_id", value="ada-zanzibar-marker")


@pytest.fixture
def subjects(asked):
    """What the platform asks the service about a person of the workspace `acme`."""
    return asked.stub(SubjectsServiceStub)


@pytest.fixture
async def ada(asked, deals, open_deal):
    """A person with a deal of her own, a part in another one, a quote and a contract."""
    quotes, contracts = asked.stub(QuotesServiceStub), asked.stub(ContractsServiceStub)
    await open_deal("looms", display_name=f"Looms for {MARKER}", contact=ADA, next_step=MARKER)
    await open_deal(
        "ropes",
        amount=Money(amount_minor=5, currency="EUR"),
        contacts=[
            DealContact(contact="contacts/bob", role="buyer"),
            DealContact(contact=ADA, role=MARKER),
        ],
    )
    item = LineItem(display_name="Loom", unit_price="1000.00")
    details = QuoteDetails(
        recipient=f"Ada {MARKER}\n1 Main Street",
        line_items=LineItems(currency="EUR", items=[item]),
    )
    made = await quotes.CreateQuote(
        quotes_pb2.CreateQuoteRequest(deal="deals/looms", quote_id="q", details=details)
    )
    terms = ContractTerms(
        reference="R-1",
        display_name=MARKER,
        contact=ADA,
        start_date="2026-01-01",
        end_date="2026-12-31",
    )
    await contracts.DraftContract(contracts_pb2.DraftContractRequest(contract_id="c", terms=terms))
    await deals.UpdateDeal(
        UpdateDealRequest(
            name="deals/looms",
            deal=DealDetails(custom_fields={"note": MARKER}),
            update_mask={"paths": ["custom_fields"]},
        )
    )
    await deals.WinDeal(WinDealRequest(name="deals/looms"))
    return made.quote


async def erase(subjects, name="erasures/1"):
    now = timestamp_of(SystemClock().now())
    key = FactKey(receive_time=now, event_id=str(uuid.uuid4()))
    request = EraseSubjectRequest(erasure=name, key=key, identifiers=[ADA_ID])

    async def finished():
        answer = await subjects.EraseSubject(request)
        assert answer.finished, answer
        return answer

    return await eventually(finished, within_s=30)


async def get(deals, name):
    return (await deals.GetDeal(GetDealRequest(name=name))).deal


async def test_what_was_earned_stays_and_nothing_tells_with_whom(
    asked, deals, subjects, ada, nats_server
):
    reports = asked.stub(ReportsServiceStub)
    before = await get(deals, "deals/looms")
    now = SystemClock().now()
    of_today = GetSalesReportRequest(
        scope=ReportScope(
            start_time=timestamp_of(now - timedelta(days=1)), end_time=timestamp_of(now)
        )
    )
    sales = await reports.GetSalesReport(of_today)
    answer = await erase(subjects)
    looms, ropes = await get(deals, "deals/looms"), await get(deals, "deals/ropes")
    quote = await asked.stub(QuotesServiceStub).GetQuote(quotes_pb2.GetQuoteRequest(name=ada.name))
    await asked.kernel.pool.execute("checkpoint")
    folder = Path(await asked.kernel.pool.fetchval("show data_directory"))

    assert (before.state, before.amount, before.stage) == (looms.state, looms.amount, looms.stage)
    assert sales == await reports.GetSalesReport(of_today)
    assert ("Erased", "", {}) == (looms.display_name, looms.next_step, dict(looms.custom_fields))
    assert ("ropes", "contacts/bob", "buyer") == (
        ropes.display_name,
        ropes.contact,
        ropes.contacts[0].role,
    )
    assert looms.contact == ropes.contacts[1].contact != ADA
    assert ("", ada.totals) == (quote.quote.details.recipient, quote.quote.totals)
    assert {"deals": 2, "quotes": 1, "contracts": 1} == {
        each.system: each.count
        for each in answer.counts
        if each.system in {"deals", "quotes", "contracts"}
    }
    assert [] == list(find_in_files(MARKER, [folder, nats_server.store]))


async def test_a_rebuild_makes_the_same_of_what_is_left(asked, subjects, ada):
    """Also one that was half done when the person was erased."""
    kernel = asked.kernel
    half = [Rebuild(kernel.pool, kernel.log, v, kernel.event_types, {}) for v in SERVICE.views]
    for rebuild in half:
        async for _ in rebuild.build():
            break
    await erase(subjects)

    for rebuild in half:
        async for _ in rebuild.build():
            pass
        assert (await rebuild.compare()).equal, rebuild.view.name


async def test_another_workspace_is_untouched_and_once_more_finds_nothing(asked, subjects, ada):
    elsewhere = asked.stub(DealsServiceStub, workspace="globex")
    await elsewhere.OpenDeal(OpenDealRequest(deal_id="looms", display_name="Looms", contact=ADA))
    await erase(subjects)
    again = await erase(subjects, name="erasures/2")

    assert ADA == (await get(elsewhere, "deals/looms")).contact
    assert {} == {each.system: each.count for each in again.counts if each.count}


async def test_a_preview_and_an_export_tell_of_what_names_the_person(subjects, ada):
    preview = await subjects.PreviewSubjectErasure(
        PreviewSubjectErasureRequest(identifiers=[ADA_ID])
    )
    answers = subjects.ExportSubject(ExportSubjectRequest(identifiers=[ADA_ID]))
    records = [record async for answer in answers for record in answer.records]

    counted = {each.system: each.count for each in preview.counts}
    assert (2, 1, 1) == (counted["deals"], counted["quotes"], counted["contracts"])
    assert counted["log"] == len(records)
    assert {"deals/looms", "deals/ropes", "quotes/q", "contracts/c"} == {
        record.resource for record in records
    }
