"""Contracts for tests: what they say, what happened to them, and what is asked of them."""

from datetime import date

from google.protobuf.field_mask_pb2 import FieldMask

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import (
    CONTRACT_PARTY_COMPANY,
    CONTRACT_PARTY_CUSTOMER,
    ContractTerms,
)
from services.deals.deciders.contract import (
    DECIDER,
    Asked,
    decider_for,
)
from services.kernel.testing import Spec

TODAY = date(2026, 6, 15)
NAME = "contracts/looms"
SAID = {
    "reference": "C-17",
    "display_name": "Looms",
    "start_date": "2026-01-31",
    "term_months": 12,
    "value": Money(amount_minor=120_000, currency="EUR"),
    "owner": "members/grace",
}
FIXED = ContractTerms(**SAID)
ROLLING = ContractTerms(
    **SAID, auto_renew=True, renewal_term_months=1, notice_days=10, renewal_reminder_days=5
)
CUSTOMER = facts.ContractSigned(
    party=CONTRACT_PARTY_CUSTOMER, signatory="Ada", sign_date="2026-01-10"
)
COMPANY = facts.ContractSigned(
    party=CONTRACT_PARTY_COMPANY, signatory="Grace", sign_date="2026-01-11"
)
SUBMITTED, APPROVED = facts.ContractSubmitted(), facts.ContractApproved(approver="grace")


def contract(today=TODAY, contract_id="looms"):
    return Spec(decider_for(Asked(today, "grace", contract_id)))


def drafted(terms=FIXED):
    return facts.ContractDrafted(terms=terms)


def in_approval(terms=FIXED):
    return [drafted(terms), SUBMITTED]


def signed(terms=FIXED):
    return [*in_approval(terms), APPROVED, CUSTOMER, COMPANY]


def active(terms=FIXED, activate_date="2026-01-12"):
    return [*signed(terms), facts.ContractActivated(activate_date=activate_date, terms=terms)]


def changed(paths, **said):
    return pb.UpdateContractRequest(
        name=NAME, terms=ContractTerms(**said), update_mask=FieldMask(paths=paths)
    )


def state(*events):
    return DECIDER.fold(events)


def with_terms(**said):
    return ContractTerms(**(SAID | said))


NOTICE = pb.GiveContractNoticeRequest(name=NAME, party=CONTRACT_PARTY_CUSTOMER)


def terminate(day="", reason="insolvent"):
    return pb.TerminateContractRequest(name=NAME, terminate_date=day, reason=reason)


def terminated(day="2026-06-15", reason="insolvent"):
    return facts.ContractTerminated(terminate_date=day, reason=reason)


def renew(**said):
    return pb.RenewContractRequest(name=NAME, **{"reference": "C-18"} | said)


def renewed(end_date):
    return facts.ContractRenewed(renewed_by="contracts/next", end_date=end_date)


NOTICED = facts.ContractNoticeGiven(
    party=CONTRACT_PARTY_CUSTOMER, notice_date="2027-01-20", end_date="2027-01-30"
)
