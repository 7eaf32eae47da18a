"""The rules of a contact, one sentence each."""

import pytest

from rapport.contacts.v1.events_pb2 import (
    ContactArchived,
    ContactCreated,
    ContactEmailChanged,
    ContactErased,
    ContactRenamed,
)
from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    CreateContactRequest,
    RenameContactRequest,
)
from services.contacts.decider import DECIDER, RECOGNISED_BY, State, claims
from services.kernel.command.work import Claim
from services.kernel.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from services.kernel.testing import Spec

ADA = ContactCreated(given_name="Ada", family_name="King", email="ada@example.com")
RENAME = RenameContactRequest(name="contacts/ada", given_name="Ada", family_name="Lovelace")
RENAMED = ContactRenamed(given_name="Ada", family_name="Lovelace")
ARCHIVE = ArchiveContactRequest(name="contacts/ada")


def contact():
    return Spec(DECIDER)


def email(address):
    return ChangeContactEmailRequest(name="contacts/ada", email=address)


def test_a_contact_is_created_with_all_that_was_said_of_it():
    said = {
        "given_name": "Ada",
        "family_name": "King",
        "email": "Ada@Example.com",
        "phone": "+44 1",
        "custom_fields": {"tier": "gold"},
    }

    state = contact().when(CreateContactRequest(**said)).then(ContactCreated(**said))

    assert State(exists=True, **said) == state


@pytest.mark.parametrize("field", RECOGNISED_BY)
def test_any_one_of_name_email_and_phone_is_enough(field):
    contact().when(CreateContactRequest(**{field: "7@x.org"})).then(
        ContactCreated(**{field: "7@x.org"})
    )


@pytest.mark.parametrize("said", [{}, {"given_name": "  "}, {"custom_fields": {"tier": "gold"}}])
def test_nobody_is_no_contact(said):
    error = contact().when(CreateContactRequest(**said)).then_refused(InvalidArgument)

    assert set(RECOGNISED_BY) == {violation.field for violation in error.violations}


@pytest.mark.parametrize(
    ("created", "command"),
    [
        (ContactCreated(email="a@x.org"), email("")),
        (
            ContactCreated(given_name="Ada", custom_fields={"tier": "gold"}),
            RenameContactRequest(name="contacts/ada", given_name=" "),
        ),
    ],
)
def test_a_contact_never_becomes_nobody(created, command):
    error = contact().given(created).when(command).then_refused(InvalidArgument)

    assert set(RECOGNISED_BY) == {violation.field for violation in error.violations}


def test_the_last_name_may_go_while_something_else_is_left():
    nameless = RenameContactRequest(name="contacts/ada")

    contact().given(ContactCreated(given_name="Ada", phone="+44 1")).when(nameless).then(
        ContactRenamed()
    )


def test_a_taken_id_names_who_has_it():
    create = CreateContactRequest(contact_id="ada", given_name="Another")

    error = contact().given(ADA).when(create).then_refused(AlreadyExists)

    assert {"existing_name": "contacts/ada", "field": "contact_id"} == error.metadata


def test_the_id_of_an_archived_contact_stays_taken():
    create = CreateContactRequest(contact_id="ada", given_name="Another")

    contact().given(ADA, ContactArchived()).when(create).then_refused(AlreadyExists)


def test_a_contact_gets_another_name():
    state = contact().given(ADA).when(RENAME).then(RENAMED)

    assert ("Ada", "Lovelace") == (state.given_name, state.family_name)


def test_the_name_a_contact_has_is_no_news():
    contact().given(ADA, RENAMED).when(RENAME).then()


def test_an_archived_contact_keeps_its_name():
    error = contact().given(ADA, ContactArchived()).when(RENAME).then_refused(FailedPrecondition)

    assert {"resource": "contacts/ada", "state": "ARCHIVED"} == error.metadata


def test_an_archived_contact_refuses_even_the_name_it_has():
    contact().given(ADA, RENAMED, ContactArchived()).when(RENAME).then_refused(FailedPrecondition)


def test_a_contact_gets_another_address():
    state = (
        contact()
        .given(ADA)
        .when(email("ada@lovelace.org"))
        .then(ContactEmailChanged(email="ada@lovelace.org", previous_email="ada@example.com"))
    )

    assert "ada@lovelace.org" == state.email


def test_an_empty_address_takes_it_away():
    changed = ContactEmailChanged(email="", previous_email="ada@example.com")

    state = contact().given(ADA).when(email("")).then(changed)

    assert frozenset() == claims(state)


def test_the_address_a_contact_has_is_no_news():
    contact().given(ADA).when(email("ada@example.com")).then()


def test_another_spelling_of_its_own_address_is_news():
    changed = ContactEmailChanged(email="Ada@Example.com", previous_email="ada@example.com")

    contact().given(ADA).when(email("Ada@Example.com")).then(changed)


def test_an_archived_contact_keeps_its_address():
    contact().given(ADA, ContactArchived()).when(email("")).then_refused(FailedPrecondition)


def test_a_contact_is_archived():
    state = contact().given(ADA).when(ARCHIVE).then(ContactArchived())

    assert state.is_archived


def test_archiving_twice_is_archiving_once():
    contact().given(ADA, ContactArchived()).when(ARCHIVE).then()


@pytest.mark.parametrize("command", [RENAME, email("a@b.org"), ARCHIVE])
def test_nothing_is_asked_of_a_contact_that_nobody_created(command):
    error = contact().when(command).then_refused(NotFound)

    assert {"resource": "contacts/ada"} == error.metadata


def test_all_spellings_of_an_address_are_one_claim():
    spelled = [State(exists=True, email=address) for address in ("ada@x.org", " ADA@X.ORG ")]

    assert {frozenset({Claim("email", "ada@x.org")})} == {claims(state) for state in spelled}


def test_a_contact_without_address_claims_nothing():
    assert frozenset() == claims(State(exists=True, given_name="Ada"))


def test_an_archived_contact_gives_its_address_free():
    assert frozenset() == claims(DECIDER.fold([ADA, ContactArchived()]))


def test_an_erased_contact_is_not_there_and_what_it_had_is_free():
    erased = contact().given(ADA, ContactErased(erasure="erasures/1"))
    erased.when(RENAME).then_refused(NotFound)
    erased.when(CreateContactRequest(given_name="Eve")).then(ContactCreated(given_name="Eve"))

    assert frozenset() == claims(DECIDER.fold([ADA, ContactErased()]))
