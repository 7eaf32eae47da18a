"""The rules of a contract that is in force, one sentence each."""

from datetime import date

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.deals.v1 import contracts_pb2 as pb
from rapport.deals.v1 import events_pb2 as facts
from rapport.deals.v1.contract_terms_pb2 import (
    CONTRACT_PARTY_CUSTOMER,
    CONTRACT_REMINDER_KIND_ENDING,
    CONTRACT_REMINDER_KIND_NOTICE_DUE,
    CONTRACT_REMINDER_KIND_RENEWAL_DUE,
)
from rapport.deals.v1.contracts_pb2 import (
    CONTRACT_STATE_ACTIVE,
    CONTRACT_STATE_DRAFT,
    CONTRACT_STATE_EXPIRED,
    CONTRACT_STATE_TERMINATED,
)
from services.deals.deciders.contract import (
    DECIDER,
    Asked,
    following_terms,
    renew_by,
)
from services.deals.deciders.contract_state import (
    due_reminder,
    last_notice_date,
    next_reminder,
    standing_of,
)
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tests.contracts_world import (
    NAME,
    NOTICE,
    NOTICED,
    ROLLING,
    TODAY,
    active,
    contract,
    drafted,
    in_approval,
    renew,
    renewed,
    signed,
    state,
    terminate,
    terminated,
    with_terms,
)


@pytest.mark.parametrize(
    ("day", "shown", "end"),
    [
        ("2026-01-01", CONTRACT_STATE_ACTIVE, "2027-01-30"),
        ("2027-01-30", CONTRACT_STATE_ACTIVE, "2027-01-30"),
        ("2027-01-31", CONTRACT_STATE_EXPIRED, "2027-01-30"),
    ],
)
def test_a_contract_expires_when_its_last_day_is_over(day, shown, end):
    standing = standing_of(state(*active()))

    assert shown == standing.state_on(date.fromisoformat(day))
    assert end == standing.term_on(date.fromisoformat(day)).end.isoformat()


def test_what_renews_itself_goes_on_with_the_next_term():
    standing = standing_of(state(*active(ROLLING)))

    assert CONTRACT_STATE_ACTIVE == standing.state_on(date(2036, 1, 1))
    assert date(2027, 2, 28) == standing.term_on(date(2027, 1, 31)).end
    assert date(2027, 3, 30) == standing.term_on(date(2027, 3, 1)).end


def test_a_draft_neither_expires_nor_renews_itself():
    standing = standing_of(state(drafted(ROLLING)))

    assert CONTRACT_STATE_DRAFT == standing.state_on(date(2036, 1, 1))
    assert date(2027, 1, 30) == standing.term_on(date(2036, 1, 1)).end


def test_notice_on_the_last_day_for_it_ends_a_contract_with_its_term():
    spec = contract(date(2027, 1, 20)).given(*active(ROLLING))

    after = spec.when(NOTICE).then(NOTICED)

    assert CONTRACT_STATE_ACTIVE == standing_of(after).state_on(date(2027, 1, 30))
    assert CONTRACT_STATE_EXPIRED == standing_of(after).state_on(date(2027, 1, 31))


def test_notice_a_day_later_is_refused_with_the_last_possible_day():
    spec = contract(date(2027, 1, 21)).given(*active(ROLLING))

    refused = spec.when(NOTICE).then_refused(FailedPrecondition)

    assert "2027-01-20" == refused.metadata["last_notice_date"]
    assert "ACTIVE" == refused.metadata["state"]


def test_notice_counts_for_the_day_it_was_received():
    command = pb.GiveContractNoticeRequest(
        name=NAME, party=CONTRACT_PARTY_CUSTOMER, notice_date="2027-01-20"
    )

    contract(date(2027, 2, 3)).given(*active(ROLLING)).when(command).then(NOTICED)
    contract(date(2027, 1, 19)).given(*active(ROLLING)).when(command).then_refused(InvalidArgument)


@pytest.mark.parametrize(
    ("day", "end"),
    [
        ("2026-06-15", "2027-01-30"),
        ("2026-11-01", "2027-01-30"),
        ("2026-11-02", "2027-02-28"),
        ("2027-03-01", "2027-05-30"),
    ],
)
def test_notice_that_takes_longer_than_a_term_ends_the_first_term_it_is_in_time_for(day, end):
    today = date.fromisoformat(day)
    long = with_terms(auto_renew=True, renewal_term_months=1, notice_days=90)
    noticed = facts.ContractNoticeGiven(
        party=CONTRACT_PARTY_CUSTOMER, notice_date=day, end_date=end
    )

    contract(today).given(*active(long)).when(NOTICE).then(noticed)

    assert today <= last_notice_date(state(*active(long)), today)


def test_notice_is_given_once():
    noticed = [*active(ROLLING), NOTICED]

    contract(date(2027, 1, 20)).given(*noticed).when(NOTICE).then()
    refused = (
        contract(date(2027, 1, 19)).given(*noticed).when(NOTICE).then_refused(FailedPrecondition)
    )
    assert "NOT_RENEWING" == refused.metadata["state"]


@pytest.mark.parametrize("history", [[drafted(ROLLING)], signed(ROLLING), active()])
def test_notice_is_given_to_what_is_in_force_and_renews_itself(history):
    contract().given(*history).when(NOTICE).then_refused(FailedPrecondition)


@pytest.mark.parametrize(
    ("day", "latest"), [("2026-06-15", "2027-01-20"), ("2027-03-01", "2027-03-20")]
)
def test_the_last_day_for_notice_moves_on_with_the_terms(day, latest):
    assert latest == last_notice_date(state(*active(ROLLING)), date.fromisoformat(day)).isoformat()
    assert last_notice_date(state(*active()), date.fromisoformat(day)) is None


def test_a_contract_is_terminated_when_its_new_last_day_is_over():
    after = contract().given(*active(ROLLING)).when(terminate()).then(terminated())

    assert CONTRACT_STATE_ACTIVE == standing_of(after).state_on(TODAY)
    assert CONTRACT_STATE_TERMINATED == standing_of(after).state_on(date(2026, 6, 16))
    assert TODAY == standing_of(after).term_on(TODAY).end


def test_until_a_termination_takes_effect_another_day_may_be_chosen():
    history = [*active(), terminated("2026-06-20")]

    contract().given(*history).when(terminate("2026-06-20")).then()
    contract().given(*history).when(terminate("2026-09-30")).then(terminated("2026-09-30"))
    late = contract(date(2026, 6, 21)).given(*history).when(terminate("2026-09-30"))
    assert "TERMINATED" == late.then_refused(FailedPrecondition).metadata["state"]


def test_a_contract_is_not_terminated_later_than_it_ends():
    contract().given(*active()).when(terminate("2027-01-30")).then(terminated("2027-01-30"))
    contract().given(*active()).when(terminate("2027-01-31")).then_refused(InvalidArgument)
    contract().given(*active(ROLLING)).when(terminate("2030-01-31")).then(terminated("2030-01-31"))


def test_what_has_expired_is_not_terminated():
    spec = contract(date(2027, 1, 31)).given(*active())

    refused = spec.when(terminate()).then_refused(FailedPrecondition)

    assert "EXPIRED" == refused.metadata["state"]


@pytest.mark.parametrize("history", [[drafted()], signed()])
def test_what_is_not_in_force_is_terminated_at_once(history):
    after = contract().given(*history).when(terminate()).then(terminated())

    assert CONTRACT_STATE_TERMINATED == standing_of(after).state_on(TODAY)
    contract().given(*history).when(terminate("2026-06-16")).then_refused(InvalidArgument)
    contract().given(*history, terminated()).when(pb.SubmitContractRequest(name=NAME)).then_refused(
        FailedPrecondition
    )


def test_a_contract_is_followed_by_one_that_begins_when_it_ends():
    after = contract(contract_id="next").given(*active()).when(renew()).then(renewed("2027-01-30"))

    assert with_terms(
        reference="C-18", start_date="2027-01-31", renewal_term_months=12
    ) == following_terms(renew(), after)


def test_both_contracts_are_decided_on_together():
    asked = Asked(TODAY, contract_id="next")
    states = [state(*active()), DECIDER.initial]

    [first], [second] = renew_by(asked, renew(), states)

    assert renewed("2027-01-30") == first
    assert (NAME, "C-18") == (second.renews, second.terms.reference)
    with pytest.raises(AlreadyExists) as refused:
        renew_by(asked, renew(), [states[0], states[0]])
    assert "contracts/next" == refused.value.metadata["existing_name"]
    with pytest.raises(NotFound):
        renew_by(asked, renew(), [DECIDER.initial, DECIDER.initial])


def test_what_is_said_of_the_follower_counts():
    said = {
        "start_date": "2026-07-01",
        "end_date": "2026-12-31",
        "value": Money(amount_minor=1, currency="USD"),
        "deal": "deals/more",
        "quote": "quotes/more",
    }
    spec = contract(contract_id="next").given(*active(ROLLING))

    after = spec.when(renew(**said)).then(renewed("2026-06-30"))
    terms = following_terms(renew(**said), after)

    assert said == {name: getattr(terms, name) for name in said}
    assert (0, 1, True) == (terms.term_months, terms.renewal_term_months, terms.auto_renew)


def test_what_is_renewed_by_hand_does_not_renew_itself_any_more():
    spec = contract(contract_id="next").given(*active(ROLLING))

    after = spec.when(renew()).then(renewed("2027-01-30"))

    assert CONTRACT_STATE_EXPIRED == standing_of(after).state_on(date(2027, 1, 31))


def test_a_contract_is_renewed_once():
    spec = contract(contract_id="other").given(*active(), renewed("2027-01-30"))

    refused = spec.when(renew()).then_refused(AlreadyExists)

    assert "contracts/next" == refused.metadata["existing_name"]


def test_what_has_expired_may_still_be_renewed():
    spec = contract(date(2027, 3, 1), contract_id="next").given(*active())

    spec.when(renew()).then(renewed("2027-01-30"))


@pytest.mark.parametrize("history", [[drafted()], signed(), [*active(), terminated("2026-06-14")]])
def test_what_was_never_in_force_or_was_terminated_is_not_renewed(history):
    contract(contract_id="next").given(*history).when(renew()).then_refused(FailedPrecondition)


def test_a_follower_begins_after_what_it_follows_and_has_an_end():
    spec = contract(contract_id="next").given(*active())
    unsaid = state(*active(with_terms(term_months=0, end_date="2026-12-31")), renewed("2026-12-31"))

    spec.when(renew(start_date="2026-01-31")).then_refused(InvalidArgument)
    with pytest.raises(InvalidArgument):
        following_terms(renew(), unsaid)


REMINDING = with_terms(renewal_reminder_days=30)
REMINDERS = [
    (active(), None, ("ENDING", "2027-01-30", "2027-01-30")),
    (
        active(REMINDING),
        None,
        ("RENEWAL_DUE", "2026-12-31", "2027-01-30"),
    ),
    (active(ROLLING), None, ("NOTICE_DUE", "2027-01-15", "2027-01-30")),
    (active(ROLLING), "2027-01-30", ("NOTICE_DUE", "2027-02-13", "2027-02-28")),
    ([*active(ROLLING), NOTICED], "2027-01-30", ("RENEWAL_DUE", "2027-01-25", "2027-01-30")),
    (active(ROLLING, "2027-01-20"), None, ("NOTICE_DUE", "2027-01-15", "2027-01-30")),
    (active(ROLLING, "2027-01-21"), None, ("NOTICE_DUE", "2027-02-13", "2027-02-28")),
    ([*active(ROLLING), renewed("2027-01-30")], None, ("ENDING", "2027-01-30", "2027-01-30")),
    ([*active(ROLLING), terminated("2026-08-01")], None, ("ENDING", "2026-08-01", "2026-08-01")),
    (active(activate_date="2027-01-31"), None, None),
    (signed(ROLLING), None, None),
    ([*in_approval(), terminated()], None, None),
]
KINDS = {
    "NOTICE_DUE": CONTRACT_REMINDER_KIND_NOTICE_DUE,
    "RENEWAL_DUE": CONTRACT_REMINDER_KIND_RENEWAL_DUE,
    "ENDING": CONTRACT_REMINDER_KIND_ENDING,
}


@pytest.mark.parametrize(("history", "noticed", "expected"), REMINDERS)
def test_the_next_reminder_follows_from_what_happened(history, noticed, expected):
    if noticed is not None:
        history = [
            *history,
            facts.ContractReminderCame(
                kind=CONTRACT_REMINDER_KIND_NOTICE_DUE, term_end_date=noticed
            ),
        ]

    found = next_reminder(state(*history))

    if expected is None:
        assert found is None
    else:
        kind, due, end = expected
        assert (KINDS[kind], due, end) == (found.kind, found.due_date, found.term_end_date)


def test_a_reminder_comes_on_its_day_and_once():
    history = active(with_terms(renewal_reminder_days=30, company="companies/acme"))
    due = date(2026, 12, 31)

    came = due_reminder(state(*history), due)

    assert due_reminder(state(*history), date(2026, 12, 30)) is None
    assert due_reminder(state(*history, came), due) is None
    assert (
        facts.ContractReminderCame(
            kind=CONTRACT_REMINDER_KIND_RENEWAL_DUE,
            due_date="2026-12-31",
            term_end_date="2027-01-30",
            reference="C-17",
            display_name="Looms",
            owner="members/grace",
            company="companies/acme",
        )
        == came
    )
