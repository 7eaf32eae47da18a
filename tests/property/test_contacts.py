"""Laws of contacts, whatever is asked of them in whatever order."""

from hypothesis import event, given
from hypothesis import strategies as st

from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactRenamed,
)
from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    CreateContactRequest,
    RenameContactRequest,
)
from services.contacts.decider import DECIDER, claims
from services.kernel.errors import RapportError

ids = st.sampled_from(["a", "b", "c"])
texts = st.text(max_size=3)
addresses = st.sampled_from(["", "ada@x.org", "ADA@x.org", " ada@X.ORG", "eve@x.org"])

events = st.one_of(
    st.builds(ContactCreated, given_name=texts, family_name=texts, email=addresses),
    st.builds(ContactRenamed, given_name=texts, family_name=texts),
    st.builds(ContactEmailChanged, email=addresses, previous_email=addresses),
    st.builds(ContactArchived),
)
commands = st.one_of(
    st.builds(CreateContactRequest, contact_id=ids, given_name=st.just("x"), email=addresses),
    st.builds(RenameContactRequest, given_name=texts, family_name=texts),
    st.builds(ChangeContactEmailRequest, email=addresses),
    st.builds(ArchiveContactRequest),
)


@given(st.lists(events))
def test_any_history_leads_to_a_state(history):
    DECIDER.fold(history)


@given(st.lists(events), st.lists(events))
def test_a_fold_may_be_interrupted_anywhere(first, then):
    assert DECIDER.fold(first + then) == DECIDER.fold(then, DECIDER.fold(first))


@given(st.lists(commands))
def test_replaying_what_was_recorded_leads_to_what_was_decided_on(asked):
    state, history = DECIDER.initial, []
    for command in asked:
        recorded = decided(command, state)
        state = DECIDER.fold(recorded, state)
        history += recorded

    assert state == DECIDER.fold(history)


@given(st.lists(commands), commands)
def test_what_is_asked_twice_changes_nothing_the_second_time(asked, command):
    state = DECIDER.initial
    for each in [*asked, command]:
        state = DECIDER.fold(decided(each, state), state)

    assert [] == decided(command, state)


@given(st.lists(st.tuples(ids, commands), max_size=40))
def test_a_change_claims_what_another_holds_exactly_when_two_would_share_an_address(asked):
    states = dict.fromkeys(["a", "b", "c"], DECIDER.initial)
    for contact_id, command in asked:
        before = states.pop(contact_id)
        after = DECIDER.fold(decided(command, before), before)
        would_share = address(after) in set(map(address, states.values())) - {""}

        is_taken = any(claims(after) & claims(other) for other in states.values())

        event("taken" if is_taken else "free")
        assert would_share == is_taken
        states[contact_id] = before if is_taken else after


def decided(command, state):
    """The events of a command, none if it is refused."""
    try:
        return list(DECIDER.decide(command, state))
    except RapportError:
        return []


def address(state):
    """The model's idea of the address a contact holds."""
    return "" if state.is_archived else state.email.strip().casefold()
