"""Each row of a log, a list of deals or a list of people is sent, or refused with its reason."""

from datetime import UTC, datetime

import orjson
import pytest

from deploy.demo import access_log, b2b_deals, b2b_history, people, pipeline
from deploy.demo.cargo import Source, total
from rapport.contacts.v1.service_pb2 import Contact
from rapport.deals.v1.service_pb2 import Deal, DealState
from services.deals.deal_cells import change_cells, history_of
from services.deals.pipeline import STARTING, STARTING_ID
from services.kernel.log.recorded import timestamp_of, utc
from tests.deals_world import tell

VISIT = (
    '10.0.0.1 - - [17/May/2015:10:05:03 +0200] "GET /a?b=1 HTTP/1.1" 200 203 '
    '"http://x.example/" "Mozilla/5.0 (X11)"'
)
PEOPLE = (
    "rec_id, given_name, surname, postcode\nrec-1-org, ada ,okafor, 4011\nrec-2-dup-0, , , 4011"
)


@pytest.fixture
def source(tmp_path):
    def written(name, text):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return Source(name, tmp_path / name)

    return written


def test_a_line_of_a_log_is_a_page_view_of_an_address_with_an_agent(source):
    (view,) = access_log.read(source("a.log", VISIT)).items

    assert "access-log-1" == view.key
    assert access_log.visitor("10.0.0.1", "Mozilla/5.0 (X11)") == view.message.anonymous_id
    assert "2015-05-17T08:05:03Z" == view.message.original_time.ToJsonString()
    assert {
        "path": "/a",
        "url": "/a?b=1",
        "method": "GET",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 203,
        "referrer": "http://x.example/",
    } == orjson.loads(view.message.properties)


def test_two_agents_at_one_address_are_two_visitors(source):
    other = VISIT.replace("X11", "Macintosh")

    views = access_log.read(source("a.log", f"{VISIT}\n{other}\n{VISIT}\n")).items

    assert 2 == len({view.message.anonymous_id for view in views})


def test_a_bot_is_kept_and_says_so(source):
    bot = VISIT.replace("Mozilla/5.0 (X11)", "Googlebot/2.1 (+http://www.google.com/bot.html)")

    (view,) = access_log.read(source("a.log", bot)).items

    assert orjson.loads(view.message.properties)["bot"] is True


@pytest.mark.parametrize("broken", [VISIT[:-1], VISIT.replace("GET /a?b=1", "-"), "", "hello"])
def test_a_line_that_is_none_of_a_log_is_refused_by_its_number(source, broken):
    cargo = access_log.read(source("a.log", f"{VISIT}\n{broken}\n{VISIT}\n"))

    (refused,) = cargo.refused
    assert (2, broken) == (refused.line, refused.row)
    assert ["access-log-1", "access-log-3"] == [item.key for item in cargo.items]


def test_a_quote_inside_an_agent_does_not_end_it(source):
    quoted = VISIT.replace("(X11)", r"\"X11\"")

    (view,) = access_log.read(source("a.log", quoted)).items

    assert r"Mozilla/5.0 \"X11\"" == orjson.loads(view.message.context)["userAgent"]


def test_a_case_is_a_deal_that_ends_as_it_ended(source):
    text = '"Product";"Seller";"Status"\n"Product A";"Seller 6";"Won"\n"Product B";"";"Lost"\n'

    won, lost = (item.message for item in b2b_deals.read(source("d.csv", text)).items)

    assert {
        "product": "Product A",
        "seller": "Seller 6",
        "dataset": "b2b_deals",
        "made_up": "dates and amounts",
    } == dict(won.details.custom_fields)
    assert ("b2b-case-1", "members/seller-6") == (won.deal_id, won.details.owner)
    assert b2b_history.WON == won.changes[-1].stage
    assert (b2b_history.LOST, "not recorded in the source") == (
        lost.changes[-1].stage,
        lost.changes[-1].lost_reason,
    )


def test_histories_are_made_up_the_same_each_time_and_are_possible(source):
    text = '"Product";"Status"\n' + '"A";"Won"\n"B";"Lost"\n' * 60

    cases, again = (
        [item.message for item in b2b_deals.read(source("d.csv", text)).items] for _ in range(2)
    )

    assert cases == again
    for case in cases:
        found = tell(datetime(2025, 12, 31, tzinfo=UTC), {STARTING_ID: STARTING}, case)
        assert () == found.wrong
        times = [change.occur_time.ToNanoseconds() for change in case.changes]
        assert times == sorted(times)
        assert 2024 == case.open_time.ToDatetime().year


def test_how_a_pipeline_stood_is_told_by_its_history_as_by_the_cases(source):
    text = '"Product";"Status"\n' + '"A";"Won"\n"B";"Lost"\n' * 60
    cases = [item.message for item in b2b_deals.read(source("d.csv", text)).items]
    now = datetime(2025, 12, 31, tzinfo=UTC)
    rows = []
    for case in cases:
        facts = tell(now, {STARTING_ID: STARTING}, case).facts
        told = [(utc(fact.occur_time), fact) for fact in facts]
        rows += change_cells(case.deal_id, history_of(told))

    was = pipeline.standing(rows, pipeline.DAY)

    assert was == pipeline.expected_standing(cases, pipeline.DAY)
    assert {"qualification", "proposal", "negotiation"} == set(was)
    assert {} == pipeline.standing(rows, now)


@pytest.mark.parametrize("row", ['"A";"Perhaps"', '"A"', '"A";"Won";"more"'])
def test_a_case_without_an_end_we_know_is_refused(source, row):
    cargo = b2b_deals.read(source("d.csv", f'"Product";"Status"\n{row}\n"B";"Won"\n'))

    assert [2] == [refused.line for refused in cargo.refused]
    assert ["b2b-case-2"] == [item.key for item in cargo.items]


def test_a_row_of_people_is_a_contact_with_its_cells_stripped(source):
    ada, nobody = people.read(source("Set1.csv", PEOPLE)).items

    assert ("set1-rec-1-org", "ada", "okafor") == (
        ada.message.contact_id,
        ada.message.given_name,
        ada.message.family_name,
    )
    assert {"rec_id": "rec-1-org", "postcode": "4011", "dataset": "set1"} == dict(
        ada.message.custom_fields
    )
    assert ("", "") == (nobody.message.given_name, nobody.message.family_name)


def test_the_last_row_needs_no_end_of_line(source):
    assert 2 == people.read(source("set1.csv", PEOPLE)).rows


def test_a_row_of_people_that_does_not_fit_is_refused(source):
    cargo = people.read(source("set1.csv", f"{PEOPLE}\nrec-3-org, eve\n , a, b, 1\n"))

    assert [(4, "2 fields instead of 4"), (5, "no rec_id")] == [
        (refused.line, refused.reason) for refused in cargo.refused
    ]


def test_a_deal_and_a_contact_count_as_their_rows_do(source):
    text = '"Product";"Comp_size";"Status"\n"Product A";"Mid";"Won"\n'
    (case,) = b2b_deals.read(source("d.csv", text)).items
    state = tell(datetime(2025, 12, 31, tzinfo=UTC), {STARTING_ID: STARTING}, case.message).states[
        -1
    ]
    found = Deal(
        name="deals/b2b-case-1",
        state=DealState.DEAL_STATE_WON,
        amount=state.amount,
        open_time=timestamp_of(state.open_time),
        close_time=timestamp_of(state.close_time),
        custom_fields=state.custom_fields,
    )
    ada, _ = people.read(source("set1.csv", PEOPLE)).items
    known = Contact(
        name="contacts/set1-rec-1-org",
        given_name="ada",
        family_name="okafor",
        custom_fields=ada.message.custom_fields,
    )

    assert total([case.tally]) == total([b2b_deals.measure(found)])
    assert total([ada.tally]) == total([people.measure(known)])


def test_a_cell_that_changed_on_the_way_is_noticed(source):
    ada, _ = people.read(source("set1.csv", PEOPLE)).items
    known = Contact(
        name="contacts/set1-rec-1-org",
        given_name="Ada",
        family_name="okafor",
        custom_fields=ada.message.custom_fields,
    )

    assert total([ada.tally]) != total([people.measure(known)])
