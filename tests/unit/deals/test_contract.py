"""The rules of a contract until it is in force, one sentence each."""

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import (
    CONTRACT_PARTY_COMPANY,
    CONTRACT_PARTY_CUSTOMER,
    ContractTerms,
)
from rapport.deals.v1.contracts_pb2 import (
    CONTRACT_STATE_DRAFT,
)
from services.deals.deciders.contract import (
    ALWAYS_OPEN,
    DECIDER,
)
from services.deals.terms import VALUE_MINOR_MAX
from services.kernel.command.work import Claim
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.contracts_world import (
    APPROVED,
    COMPANY,
    CUSTOMER,
    FIXED,
    NAME,
    NOTICE,
    SUBMITTED,
    active,
    changed,
    contract,
    drafted,
    in_approval,
    renew,
    signed,
    state,
    terminate,
    with_terms,
)


def test_a_contract_is_drafted_with_all_that_it_says():
    terms = with_terms(custom_fields={"a": "1"}, end_date="2027-01-01", term_months=0)

    after = contract().when(pb.DraftContractRequest(terms=terms)).then(drafted(terms))

    assert terms == after.said()
    assert CONTRACT_STATE_DRAFT == after.state


def test_a_taken_id_is_refused_and_says_by_whom():
    refused = (
        contract()
        .given(drafted())
        .when(pb.DraftContractRequest(terms=FIXED))
        .then_refused(AlreadyExists)
    )

    assert NAME == refused.metadata["existing_name"]


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"reference": " "}, "terms.reference"),
        ({"start_date": ""}, "terms.start_date"),
        ({"start_date": "2026-02-29"}, "terms.start_date"),
        ({"term_months": 0}, "terms.end_date"),
        ({"end_date": "2027-01-01"}, "terms.end_date"),
        ({"term_months": 0, "end_date": "soon"}, "terms.end_date"),
        ({"term_months": 0, "end_date": "2026-01-30"}, "terms.end_date"),
        (
            {"term_months": 0, "end_date": "2026-12-31", "auto_renew": True},
            "terms.renewal_term_months",
        ),
        ({"value": Money(amount_minor=1)}, "terms.value.currency"),
        ({"value": Money(amount_minor=-1, currency="EUR")}, "terms.value.amount_minor"),
        (
            {"value": Money(amount_minor=VALUE_MINOR_MAX + 1, currency="EUR")},
            "terms.value.amount_minor",
        ),
    ],
)
def test_what_no_contract_could_say_is_refused_by_field(said, field):
    command = pb.DraftContractRequest(terms=with_terms(**said))

    refused = contract().when(command).then_refused(InvalidArgument)

    assert [field] == [violation.field for violation in refused.violations]


@pytest.mark.parametrize(
    "said",
    [
        {"term_months": 0, "end_date": "2026-01-31"},
        {"value": Money(amount_minor=VALUE_MINOR_MAX, currency="EUR")},
        {"value": None},
    ],
)
def test_what_a_contract_may_say_at_the_edge_is_taken(said):
    terms = with_terms(**said)

    contract().when(pb.DraftContractRequest(terms=terms)).then(drafted(terms))


def test_a_reference_is_claimed_in_whatever_case_and_spacing():
    one, other = (
        DECIDER.claims(state(drafted(with_terms(reference=reference))))
        for reference in ("C-17  b", " c-17 B ")
    )

    assert {Claim("contract_reference", "c-17 b")} == one == other


def test_a_draft_may_say_anything_else():
    after = with_terms(term_months=0, end_date="2026-12-31")

    contract().given(drafted()).when(
        changed(["end_date", "term_months", "owner"], end_date="2026-12-31", owner="members/grace")
    ).then(facts.ContractTermsChanged(terms=after, changed_fields=["end_date", "term_months"]))


def test_without_a_mask_what_is_set_is_meant_and_a_star_means_all():
    renamed = with_terms(display_name="Other")
    bare = ContractTerms(reference="C-17", start_date="2026-01-31", term_months=12)
    cleared = ["display_name", "owner", "value"]

    contract().given(drafted()).when(changed([], display_name="Other")).then(
        facts.ContractTermsChanged(terms=renamed, changed_fields=["display_name"])
    )
    contract().given(drafted()).when(
        changed(["*"], reference="C-17", start_date="2026-01-31", term_months=12)
    ).then(facts.ContractTermsChanged(terms=bare, changed_fields=cleared))


def test_custom_fields_are_replaced_as_a_whole():
    before = with_terms(custom_fields={"a": "1", "b": "2"})
    after = with_terms(custom_fields={"b": "3"})

    contract().given(drafted(before)).when(
        changed(["custom_fields"], custom_fields={"b": "3"})
    ).then(facts.ContractTermsChanged(terms=after, changed_fields=["custom_fields"]))


def test_what_it_says_already_is_no_news():
    contract().given(*active()).when(changed(["display_name"], display_name="Looms")).then()


def test_a_draft_stays_a_possible_contract():
    contract().given(drafted()).when(changed(["reference"])).then_refused(InvalidArgument)


@pytest.mark.parametrize("path", ["colour", "value.currency", "name"])
def test_a_field_that_a_contract_does_not_have_is_refused(path):
    contract().given(drafted()).when(changed([path])).then_refused(InvalidArgument)


@pytest.mark.parametrize(
    ("history", "shown"), [(in_approval(), "IN_APPROVAL"), (active(), "ACTIVE")]
)
def test_what_was_agreed_on_changes_in_a_draft_only(history, shown):
    refused = (
        contract()
        .given(*history)
        .when(changed(["display_name", "owner"], display_name="Other"))
        .then_refused(FailedPrecondition)
    )

    assert shown == refused.metadata["state"]
    assert "display_name can be changed in a draft only" in refused.message


def test_who_looks_after_a_contract_and_when_may_always_change():
    said = {"owner": "members/ada", "renewal_reminder_days": 7, "custom_fields": {"a": "1"}}

    contract().given(*active()).when(changed(list(ALWAYS_OPEN), **said)).then(
        facts.ContractTermsChanged(terms=with_terms(**said), changed_fields=sorted(ALWAYS_OPEN))
    )


def test_a_draft_is_submitted_once():
    command = pb.SubmitContractRequest(name=NAME)

    contract().given(drafted()).when(command).then(SUBMITTED)
    contract().given(*in_approval()).when(command).then()
    contract().given(*active()).when(command).then_refused(FailedPrecondition)


def test_the_first_to_approve_is_the_one_who_did():
    command = pb.ApproveContractRequest(name=NAME)

    contract().given(*in_approval()).when(command).then(APPROVED)
    contract().given(*in_approval(), APPROVED).when(command).then()
    contract().given(drafted()).when(command).then_refused(FailedPrecondition)


def test_what_is_sent_back_is_a_draft_that_nobody_approved_or_signed():
    rejected = facts.ContractRejected(reason="price")

    after = (
        contract()
        .given(*signed())
        .when(pb.RejectContractRequest(name=NAME, reason="price"))
        .then(rejected)
    )

    assert CONTRACT_STATE_DRAFT == after.state
    assert "price" == after.reject_reason
    assert [False, "", ""] == [
        after.is_approved,
        after.customer.sign_date,
        after.company.sign_date,
    ]


@pytest.mark.parametrize("history", [[drafted()], active()])
def test_only_what_is_in_approval_is_rejected(history):
    command = pb.RejectContractRequest(name=NAME, reason="price")

    contract().given(*history).when(command).then_refused(FailedPrecondition)


def test_a_party_signs_what_is_approved_today_unless_another_day_is_said():
    command = pb.SignContractRequest(name=NAME, party=CONTRACT_PARTY_CUSTOMER, signatory="Ada")
    today = facts.ContractSigned(
        party=CONTRACT_PARTY_CUSTOMER, signatory="Ada", sign_date="2026-06-15"
    )

    contract().given(*in_approval(), APPROVED).when(command).then(today)
    command.sign_date = "2026-01-10"
    contract().given(*in_approval(), APPROVED).when(command).then(CUSTOMER)
    contract().given(*signed()).when(command).then()
    command.sign_date = "2026-06-16"
    contract().given(*in_approval(), APPROVED).when(command).then_refused(InvalidArgument)


def test_a_signature_that_was_recorded_wrongly_is_recorded_again():
    right = facts.ContractSigned(
        party=CONTRACT_PARTY_COMPANY, signatory="Joan", sign_date="2026-01-11"
    )
    command = pb.SignContractRequest(
        name=NAME, party=CONTRACT_PARTY_COMPANY, signatory="Joan", sign_date="2026-01-11"
    )

    after = contract().given(*signed()).when(command).then(right)

    assert "Joan" == after.company.signatory
    assert "Ada" == after.customer.signatory


@pytest.mark.parametrize("history", [[drafted()], in_approval(), active()])
def test_what_is_not_approved_or_in_force_already_is_not_signed(history):
    command = pb.SignContractRequest(name=NAME, party=CONTRACT_PARTY_CUSTOMER, signatory="Bob")

    contract().given(*history).when(command).then_refused(FailedPrecondition)


def test_a_contract_that_is_approved_and_signed_by_both_comes_into_force_once():
    command = pb.ActivateContractRequest(name=NAME)

    contract().given(*signed()).when(command).then(
        facts.ContractActivated(activate_date="2026-06-15", terms=FIXED)
    )
    contract().given(*active()).when(command).then()


@pytest.mark.parametrize(
    ("history", "missing"),
    [
        (in_approval(), "not approved, not signed by the customer, not signed by the company"),
        ([*in_approval(), APPROVED, CUSTOMER], "not signed by the company"),
        ([*in_approval(), APPROVED, COMPANY], "not signed by the customer"),
    ],
)
def test_what_keeps_a_contract_out_of_force_is_named(history, missing):
    command = pb.ActivateContractRequest(name=NAME)

    refused = contract().given(*history).when(command).then_refused(FailedPrecondition)

    assert f"{NAME} is {missing} yet" == refused.message


@pytest.mark.parametrize(
    "command",
    [
        changed(["owner"]),
        pb.SubmitContractRequest(name=NAME),
        pb.ApproveContractRequest(name=NAME),
        pb.RejectContractRequest(name=NAME),
        pb.SignContractRequest(name=NAME),
        pb.ActivateContractRequest(name=NAME),
        NOTICE,
        terminate(),
        renew(),
    ],
)
def test_what_nobody_drafted_is_not_found(command):
    contract().when(command).then_refused(NotFound)
