"""A load is told in one table, refused rows with their reasons, and a difference is a problem."""

import csv
import io

import pytest
from rich.console import Console

from deploy.demo.cargo import Followed, Refused, most_active
from deploy.demo.door import reason_of, with_request_id
from deploy.demo.loading import Compared, Loaded
from deploy.demo.report import problems_of, report
from deploy.demo.telling import Teller, number, pieces
from rapport.contacts.v1.service_pb2 import CreateContactRequest
from services.kernel.errors import FieldViolation, InvalidArgument


def loaded(*, comparisons=(), refused=()):
    return Loaded(
        file="people/a.csv",
        noun="contacts",
        rows=1_000,
        sent=990,
        accepted=980,
        known=5,
        refused=tuple(refused),
        comparisons=tuple(comparisons),
        send_s=2.0,
        identity_s=0.1,
    )


@pytest.fixture
def told(tmp_path):
    def of(*loads):
        text = io.StringIO()
        teller = Teller(Console(file=text))
        report(teller, loads, refused_file=tmp_path / "refused.csv")
        return text.getvalue()

    return of


def test_numbers_that_agree_are_no_problem(told):
    load = loaded(comparisons=[Compared("contacts", 980, 980)])

    assert [] == problems_of([load])
    assert "1 of 1 agree" in told(load)


def test_a_number_that_differs_is_told_and_is_a_problem(told):
    load = loaded(comparisons=[Compared("contacts", 980, 979)])

    assert ["people/a.csv: contacts: 980 in the file, 979 at the platform"] == problems_of([load])
    assert "0 of 1 agree, DIFFERS" in told(load)


def test_refused_rows_are_bounded_on_the_screen_and_complete_in_the_file(told, tmp_path):
    refused = [Refused("people/a.csv", line, "FIELD_INVALID: no name", "x,y") for line in range(50)]

    shown = told(loaded(refused=refused))

    assert "line 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 40 more" in shown
    with (tmp_path / "refused.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert ["file", "line", "reason", "row"] == rows[0]
    assert [str(line) for line in range(50)] == [row[1] for row in rows[1:]]


def test_a_run_without_refusals_leaves_no_old_list_behind(told, tmp_path):
    told(loaded(refused=[Refused("people/a.csv", 1, "no name", "")]))

    told(loaded())

    assert not (tmp_path / "refused.csv").exists()


def test_a_pipe_gets_a_few_plain_lines_of_progress():
    text = io.StringIO()
    teller = Teller(Console(file=text))

    with teller.progress("orders", 1_000) as more:
        for _ in range(1_000):
            more(1)

    assert [
        "  orders: 250 of 1 000",
        "  orders: 500 of 1 000",
        "  orders: 750 of 1 000",
        "  orders: 1 000 of 1 000",
    ] == text.getvalue().splitlines()


def test_a_rule_that_several_fields_break_is_told_once():
    rule = "give at least one"
    refusal = InvalidArgument([FieldViolation("email", rule), FieldViolation("phone", rule)])

    assert "FIELD_INVALID: email, phone: give at least one" == reason_of(refusal)


def test_the_same_command_has_the_same_request_id_and_another_has_another():
    ada = CreateContactRequest(contact_id="ada")

    once, twice = with_request_id(ada), with_request_id(with_request_id(ada))

    assert once == twice
    assert once.request_id != with_request_id(CreateContactRequest(contact_id="bea")).request_id
    assert not ada.request_id


def test_who_did_most_is_followed_the_first_of_equals():
    did = [("user_id:b", "1"), ("user_id:a", "2"), ("user_id:b", "3"), ("user_id:a", "4")]

    assert Followed("user_id:a", frozenset({"2", "4"})) == most_active(did)
    assert most_active([]) is None


def test_numbers_are_written_to_be_read():
    assert "1 234 567" == number(1_234_567)
    assert ("1 deal", "2 deals") == (pieces(1, "deals"), pieces(2, "deals"))
