"""What files of deals say: which column means what, what a cell means, and what is wrong."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest

from deploy.deal_files import reading as reading_module
from deploy.deal_files.columns import field_of, layout_of
from deploy.deal_files.reading import read
from deploy.deal_files.sending import batches_of, facts_max_of
from deploy.deal_files.stories import Reading
from deploy.deal_files.values import contacts_of, id_of, moment_of, name_of
from rapport.deals.v1.imports_pb2 import ImportedDeal, ImportedDealChange
from rapport.deals.v1.values_pb2 import FORECAST_CATEGORY_BEST_CASE
from services.deals.pipeline import STARTING, STARTING_ID
from services.kernel.log.recorded import timestamp_of
from tests.deals_world import (
    LOST_STAGE,
    NEGOTIATION,
    PROPOSAL,
    QUALIFICATION,
    WON_STAGE,
    told_stages,
)

STAGES = told_stages({STARTING_ID: STARTING, "renewals": STARTING})
HUBSPOT = "Record ID,Deal Name,Deal Stage,Amount,Deal owner,Create Date,Close Date,Lead source"
SALESFORCE = "Opportunity ID,Opportunity Name,StageName,Amount,CreatedDate,CloseDate"


def found(*lines, **said):
    """What a file of these lines holds."""
    text = "\r\n".join(lines)
    return read(io.StringIO(text, newline=""), Reading(STAGES, **{"currency": "EUR"} | said))


def only(*lines, **said):
    """The one deal of a file in which nothing is wrong."""
    file = found(*lines, **said)
    assert [] == file.bad
    (deal,) = file.deals
    return deal


def wrong(*lines, **said):
    """What is wrong with the one deal of a file: the line, the column and the sentence."""
    (bad,) = found(*lines, **said).bad
    return bad.line, bad.column, bad.detail


def day(month, day_of_month):
    return timestamp_of(datetime(2026, month, day_of_month, tzinfo=UTC))


def test_a_row_of_another_crm_is_a_deal():
    deal = only(HUBSPOT, '42,Looms,Proposal,"1,234.5",Kim Lee,2026-01-01,2026-03-01,Web')

    assert ("42", PROPOSAL, day(1, 1)) == (deal.deal_id, deal.stage, deal.open_time)
    details = deal.details
    assert ("Looms", 123450, "EUR") == (
        details.display_name,
        details.amount.amount_minor,
        details.amount.currency,
    )
    assert ("members/kim-lee", day(3, 1)) == (details.owner, details.expected_close_time)
    assert {"lead_source": "Web"} == dict(details.custom_fields)
    assert (2, 0) == (deal.row, len(deal.changes))


def test_a_closed_deal_of_another_crm_ends_on_its_close_date():
    deal = only(SALESFORCE, "006A,Looms,Closed Lost,10,2026-01-01T09:00:00Z,2026-01-01")

    (change,) = deal.changes
    assert ("006a", QUALIFICATION) == (deal.deal_id, deal.stage)
    assert (LOST_STAGE, "not recorded in the source") == (change.stage, change.lost_reason)
    assert deal.open_time == change.occur_time
    assert not deal.details.HasField("expected_close_time")


def test_a_state_ends_a_deal_from_the_stage_that_is_told():
    deal = only(
        "deal_id,name,pipeline,stage,state,open_time,close_time,lost_reason",
        "a,Looms,renewals,negotiation,Lost,2026-01-01,2026-02-01,price",
    )

    (change,) = deal.changes
    assert "pipelines/renewals/stages/negotiation" == deal.stage
    assert ("pipelines/renewals/stages/lost", "price", day(2, 1)) == (
        change.stage,
        change.lost_reason,
        change.occur_time,
    )


def test_a_state_and_a_stage_do_not_contradict_each_other():
    header = "deal_id,stage,state,open_time,close_time"

    for state in ("lost", "open"):
        row = f"a,won,{state},2026-01-01,2026-02-01"
        assert (2, "state") == wrong(header, row)[:2]
    assert (2, "state") == wrong(header, "a,won,pending,2026-01-01,2026-02-01")[:2]


def test_changes_become_deals_in_the_order_of_time():
    deal = only(
        "Deal ID;Property;Value;Timestamp",
        "a;dealstage;Closed Won;2026-03-01",
        "a;dealname;Looms;2026-01-01",
        "a;amount;10;2026-01-01",
        "a;dealstage;Negotiation;2026-02-01",
        "a;Forecast category;Best case;2026-02-01",
        "a;Closed lost reason;;2026-03-01",
        "a;Lead source;Web;2026-03-01",
    )

    moved, won = deal.changes
    assert ("Looms", 1000, QUALIFICATION) == (
        deal.details.display_name,
        deal.details.amount.amount_minor,
        deal.stage,
    )
    assert (NEGOTIATION, ["forecast_category_override"]) == (
        moved.stage,
        list(moved.update_mask.paths),
    )
    assert FORECAST_CATEGORY_BEST_CASE == moved.details.forecast_category_override
    assert (WON_STAGE, ["custom_fields.lead_source"]) == (won.stage, list(won.update_mask.paths))


def test_a_deal_that_was_closed_from_the_start_was_opened_first():
    deal = only("deal_id,time,field,value", "a,2026-01-01,stage,won")

    assert ("a", QUALIFICATION) == (deal.details.display_name, deal.stage)
    assert (WON_STAGE, deal.open_time) == (deal.changes[0].stage, deal.changes[0].occur_time)


def test_why_a_deal_was_lost_may_be_told_afterwards():
    deal = only(
        "deal_id,time,field,value",
        "a,2026-01-01,name,Looms",
        "a,2026-01-02,state,lost",
        "a,2026-01-03,lost_reason,price",
    )

    (change,) = deal.changes
    assert (LOST_STAGE, "price") == (change.stage, change.lost_reason)


def test_what_is_emptied_is_cleared():
    deal = only(
        "deal_id,time,field,value",
        "a,2026-01-01,amount,10",
        "a,2026-01-01,owner,kim",
        "a,2026-01-02,amount,",
        "a,2026-01-02,owner,",
    )

    assert ["owner", "amount"] == list(deal.changes[0].update_mask.paths)
    assert not deal.changes[0].details.HasField("amount")


@pytest.mark.parametrize(
    ("row", "column", "told"),
    [
        ("a,Looms,proposal,1,,soon,", "open_time", "DATES="),
        ("a,Looms,proposal,1,,,", "open_time", "when"),
        ("a,Looms,discovery,1,,2026-01-01,", "stage", "AddStage"),
        ("a,Looms,won,1,,2026-01-01,", "close_time", "say when"),
        ("a,Looms,proposal,1.234,EUR,2026-01-01,", "amount", "finer than 2 digits"),
        ("a,Looms,proposal,1e3,EUR,2026-01-01,", "amount", "no amount"),
        ("a,Looms,proposal,1", "", "4 cells under 7 columns"),
        (",Looms,proposal,1,,2026-01-01,", "deal_id", "is empty"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_do(row, column, told):
    header = "deal_id,name,stage,amount,currency,open_time,close_time"

    assert (2, column) == wrong(header, row)[:2]
    assert told in wrong(header, row)[2]


def test_an_amount_needs_a_currency():
    rows = ("deal_id,open_time,amount", "a,2026-01-01,1")

    assert "CURRENCY=EUR" in wrong(*rows, currency="")[2]
    assert "USD" == only(*rows, currency="usd").details.amount.currency


def test_two_rows_of_one_id_are_not_both_taken():
    file = found(HUBSPOT, *(f"{name},Looms,,,,2026-01-01,," for name in ("A b", "a-b", "A b")))

    assert ["a-b"] == [deal.deal_id for deal in file.deals]
    assert [3, 4] == [bad.line for bad in file.bad]


def test_a_bad_change_costs_its_deal_only():
    file = found(
        "deal_id,time,field,value",
        "a,2026-01-01,name,A",
        "b,2026-01-01,name,B",
        "a,never,stage,proposal",
        "b,2026-01-02,close_time,2026-01-02",
    )

    assert [] == file.deals
    assert [(4, "time"), (5, "field")] == [(bad.line, bad.column) for bad in file.bad]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("name,open_time", "deal_id"),
        ("deal_id,name", "open_time"),
        ("deal_id,open_time,name,Deal Name", "name and Deal Name both mean name"),
        ("", "the file is empty"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(header, told):
    with pytest.raises(ValueError, match=told):
        found(header)


def test_a_file_is_bounded(monkeypatch):
    monkeypatch.setattr(reading_module, "ROWS_MAX", 2)
    rows = [f"{number},2026-01-01" for number in range(3)]

    assert 2 == len(found("deal_id,open_time", *rows[:2]).deals)
    with pytest.raises(ValueError, match="at most 2 rows"):
        found("deal_id,open_time", *rows)


def test_all_that_a_deal_can_have_fits_into_a_cell():
    fields = {f"field_{number}": "\x01" * 2000 for number in range(200)}
    text = io.StringIO()
    csv.writer(text).writerow(["a", "2026-01-01", json.dumps(fields)])

    deal = only("deal_id,open_time,custom_fields", text.getvalue())

    assert fields == deal.details.custom_fields


def test_a_cell_that_is_nested_without_end_costs_its_deal_only():
    line, column, detail = wrong("deal_id,open_time,custom_fields", f"a,2026-01-01,{'[' * 100_000}")

    assert (2, "custom_fields") == (line, column)
    assert "is no JSON object of texts" in detail


def test_a_broken_quote_is_told_with_its_line():
    with pytest.raises(ValueError, match="line 2"):
        found("deal_id,open_time", '"a"b,2026-01-01')


def test_our_own_columns_and_those_of_others_mean_the_same():
    assert layout_of(next(csv.reader(["Id,CreatedDate,Weird %"]))).columns == (
        ("Id", "deal_id"),
        ("CreatedDate", "open_time"),
        ("Weird %", "custom_fields.weird"),
    )
    assert "custom_fields.x_2nd_try" == field_of("2nd try")
    assert "custom_fields.leadSource" == field_of("custom_fields.leadSource")


@pytest.mark.parametrize(
    ("text", "known"),
    [("acme-1", "acme-1"), ("Açmé Corp.", "acme-corp"), ("株式会社", id_of("株式会社"))],
)
def test_a_name_becomes_an_id(text, known):
    assert known == id_of(text) == id_of(known)
    assert f"companies/{known}" == name_of("companies", f" {text} ")


def test_contacts_are_an_object_with_roles_or_a_list():
    roles = '{"contacts/ada": "decision maker", "Bob": ""}'
    expected = [("contacts/ada", "decision maker"), ("contacts/bob", "")]

    assert expected == [(each.contact, each.role) for each in contacts_of(roles)]
    assert ["contacts/ada", "contacts/bob"] == [each.contact for each in contacts_of("Ada; bob")]


@pytest.mark.parametrize(
    ("text", "date_format"),
    [
        ("2026-03-01", ""),
        ("2026-03-01 01:00:00+01:00", ""),
        ("1772323200000", ""),
        ("01.03.2026", "%d.%m.%Y"),
    ],
)
def test_a_moment_is_written_in_several_ways(text, date_format):
    assert datetime(2026, 3, 1, tzinfo=UTC) == moment_of(text, date_format)


def test_batches_are_bounded():
    small = ImportedDeal(deal_id="a")
    large = ImportedDeal(deal_id="b", changes=[ImportedDealChange(stage="x")] * 499)

    assert [500, 1] == [len(batch) for batch in batches_of([small] * 501)]
    assert 999 == facts_max_of(large)
    assert [2, 1] == [len(batch) for batch in batches_of([small, large, small])]
