"""What is left of a fact without the person."""

import pytest

from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import ContractTerms
from rapport.deals.v1.lines_pb2 import LineItem, LineItems, QuoteDetails
from rapport.deals.v1.values_pb2 import DealContact
from services.deals.redaction import contacts_of, is_made_with, nobody, redacted

ADA, BOB = "contacts/ada", "contacts/bob"
NOBODY = nobody("erasures/1", ADA)


def is_ada(name):
    return name == ADA


def left_of(event, *, is_about=True):
    return redacted(event, "erasures/1", is_ada, is_about=is_about)


def test_words_and_names_go_and_what_was_agreed_stays():
    opened = facts.DealOpened(
        display_name="Ada's looms",
        contact=ADA,
        contacts=[DealContact(contact=ADA, role="my aunt"), DealContact(contact=BOB, role="buyer")],
        stage="pipelines/sales/stages/proposal",
        next_step="call Ada",
        custom_fields={"note": "Ada"},
    )

    assert left_of(opened) == facts.DealOpened(
        display_name="Erased",
        contact=NOBODY,
        contacts=[DealContact(contact=NOBODY), DealContact(contact=BOB, role="buyer")],
        stage="pipelines/sales/stages/proposal",
    )


def test_of_somebody_elses_deal_only_the_name_goes():
    changed = facts.DealContactsChanged(
        contacts=[DealContact(contact=BOB, role="buyer"), DealContact(contact=ADA, role="x")]
    )
    renamed = facts.DealRenamed(display_name="Bob's looms")

    assert left_of(changed, is_about=False) == facts.DealContactsChanged(
        contacts=[DealContact(contact=BOB, role="buyer"), DealContact(contact=NOBODY)]
    )
    assert left_of(renamed, is_about=False) == renamed


def test_the_words_of_a_quote_and_of_terms_go_but_not_the_lines():
    lines = LineItems(currency="EUR", items=[LineItem(display_name="Loom", unit_price="10")])
    drafted = facts.QuoteDrafted(details=QuoteDetails(recipient="Ada\nParis", line_items=lines))
    signed = facts.ContractDrafted(terms=ContractTerms(display_name="Ada", contact=ADA))

    assert left_of(drafted) == facts.QuoteDrafted(details=QuoteDetails(line_items=lines))
    assert left_of(signed) == facts.ContractDrafted(
        terms=ContractTerms(display_name="Erased", contact=NOBODY)
    )


def test_what_is_left_names_nobody_and_is_left_again():
    event = facts.DealLost(contact=ADA, reason="Ada said no", note="Ada")
    left = left_of(event)

    assert [NOBODY] == list(contacts_of(left))
    assert left == left_of(left)
    assert NOBODY != nobody("erasures/2", ADA)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (facts.DealOpened(contact=ADA), True),
        (facts.DealOpened(contacts=[DealContact(contact=ADA)]), True),
        (
            facts.DealContactsChanged(
                contacts=[DealContact(contact=BOB), DealContact(contact=ADA)]
            ),
            False,
        ),
        (facts.QuoteCreated(details=QuoteDetails(contact=ADA)), True),
        (facts.DealNextStepChanged(next_step=ADA), False),
    ],
)
def test_a_deal_is_about_who_it_is_made_with(event, told):
    assert told is is_made_with([event], is_ada)
