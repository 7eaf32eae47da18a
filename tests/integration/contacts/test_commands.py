"""What a command answers is what a read answers from then on, once and in its own workspace."""

import asyncio
import uuid

import pytest

from rapport.contacts.v1.service_pb2 import (
    CONTACT_STATE_ACTIVE,
    CONTACT_STATE_ARCHIVED,
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    CreateContactRequest,
    GetContactRequest,
    RenameContactRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.kernel.errors import Aborted, AlreadyExists, InvalidArgument, NotFound, Reason


@pytest.fixture
def get(contacts):
    async def get(name, **options):
        return (await contacts.GetContact(GetContactRequest(name=name, **options))).contact

    return get


async def test_a_created_contact_is_read_at_once_as_it_was_answered(contacts, get):
    request = CreateContactRequest(
        contact_id="ada",
        given_name="Ada",
        family_name="Lovelace",
        email="Ada@Example.com",
        phone="+44 1",
        custom_fields={"tier": "gold"},
    )

    response = await contacts.CreateContact(request)

    contact = response.contact
    assert await get("contacts/ada", read_token=response.write_token) == contact
    assert ("contacts/ada", "Ada@Example.com", CONTACT_STATE_ACTIVE, '"1"') == (
        contact.name,
        contact.email,
        contact.state,
        contact.etag,
    )
    assert {"tier": "gold"} == dict(contact.custom_fields)
    assert contact.create_time == contact.update_time


async def test_a_contact_without_an_id_gets_one(contacts, get):
    contact = (await contacts.CreateContact(CreateContactRequest(given_name="Ada"))).contact

    assert await get(contact.name) == contact


async def test_every_change_is_read_as_it_was_answered(contacts, create, get):
    created = await create("ada", email="ada@x.org", phone="123")
    commands = [
        (contacts.RenameContact, RenameContactRequest(family_name="Lovelace")),
        (contacts.ChangeContactEmail, ChangeContactEmailRequest(email="ada@y.org")),
        (contacts.ArchiveContact, ArchiveContactRequest()),
    ]

    for version, (call, request) in enumerate(commands, start=2):
        request.name = created.name
        answered = (await call(request)).contact
        assert f'"{version}"' == answered.etag
        assert await get(created.name) == answered

    assert ("Lovelace", "ada@y.org", "123", CONTACT_STATE_ARCHIVED) == (
        answered.family_name,
        answered.email,
        answered.phone,
        answered.state,
    )
    assert created.create_time == answered.create_time


async def test_a_command_that_changes_nothing_leaves_version_and_time(contacts, create):
    created = await create("ada")

    response = await contacts.RenameContact(
        RenameContactRequest(name="contacts/ada", given_name="ada")
    )

    assert created == response.contact


async def test_a_retried_create_returns_the_first_contact(contacts):
    request = CreateContactRequest(given_name="Ada", request_id=str(uuid.uuid4()))

    first, second = [await contacts.CreateContact(request) for _ in range(2)]

    assert first == second


async def test_an_old_etag_is_refused(contacts, create):
    created = await create("ada")
    rename = RenameContactRequest(name="contacts/ada", given_name="Ada", etag=created.etag)
    await contacts.RenameContact(rename)

    with pytest.raises(Aborted) as refused:
        await contacts.RenameContact(rename)

    assert Reason.ETAG_MISMATCH == refused.value.reason


async def test_an_address_belongs_to_one_contact_however_it_is_spelled(create):
    await create("ada", email="ada@x.org")

    with pytest.raises(AlreadyExists) as refused:
        await create("eve", email="ADA@X.org")

    assert {"existing_name": "contacts/ada", "field": "email"} == refused.value.metadata


async def test_of_many_who_want_an_address_at_once_one_gets_it(create):
    answers = await asyncio.gather(
        *(create(f"c{number}", email="ada@x.org") for number in range(20)), return_exceptions=True
    )

    refused = [answer for answer in answers if isinstance(answer, AlreadyExists)]
    assert 19 == len(refused)


async def test_an_address_is_free_again_when_its_contact_changes_or_is_archived(contacts, create):
    await create("ada", email="ada@x.org")
    change = ChangeContactEmailRequest(name="contacts/ada", email="ada@y.org")
    await contacts.ChangeContactEmail(change)
    await create("eve", email="ada@x.org")
    await contacts.ArchiveContact(ArchiveContactRequest(name="contacts/ada"))

    bob = await create("bob", email="ada@y.org")

    assert "ada@y.org" == bob.email


async def test_a_contact_may_spell_its_own_address_anew(contacts, create):
    await create("ada", email="ada@x.org")
    change = ChangeContactEmailRequest(name="contacts/ada", email="Ada@X.org")

    assert "Ada@X.org" == (await contacts.ChangeContactEmail(change)).contact.email
    with pytest.raises(AlreadyExists):
        await create("eve", email="ada@x.org")


async def test_another_workspace_has_contacts_of_its_own(asked, create):
    await create("ada", email="ada@x.org")
    other = asked.stub(ContactsServiceStub, workspace="other")

    with pytest.raises(NotFound):
        await other.GetContact(GetContactRequest(name="contacts/ada"))
    with pytest.raises(NotFound):
        await other.ArchiveContact(ArchiveContactRequest(name="contacts/ada"))
    await other.CreateContact(CreateContactRequest(contact_id="ada", email="ada@x.org"))


async def test_a_contact_that_is_not_there_is_not_there_whatever_etag_is_asked_for(contacts):
    with pytest.raises(NotFound):
        await contacts.RenameContact(RenameContactRequest(name="contacts/ada", etag='"1"'))


@pytest.mark.parametrize("name", ["ada", "contacts/", "deals/ada", "contacts/ada/history"])
async def test_a_name_that_is_none_is_refused_by_its_field(get, name):
    with pytest.raises(InvalidArgument) as refused:
        await get(name)

    assert ["name"] == [violation.field for violation in refused.value.violations]


async def test_what_cannot_be_stored_is_the_callers_fault(create, get):
    with pytest.raises(InvalidArgument):
        await create("ada", family_name="a\0b")
    with pytest.raises(InvalidArgument):
        await get("contacts/\0")
