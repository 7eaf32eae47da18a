"""A contact's history is its stream in the log: complete, newest first, in pages."""

import json

import pytest

from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    ListContactHistoryRequest,
    RenameContactRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.kernel.errors import InvalidArgument, NotFound, Reason
from services.kernel.lists.filter import Field, Kind
from services.kernel.lists.page_token import PageToken, fingerprint_of


@pytest.fixture
async def ada(contacts, create):
    contact = await create("ada", given_name="Ada", email="ada@x.org")
    await contacts.RenameContact(RenameContactRequest(name=contact.name, given_name="Augusta"))
    await contacts.ChangeContactEmail(ChangeContactEmailRequest(name=contact.name))
    await contacts.ArchiveContact(ArchiveContactRequest(name=contact.name))
    return contact


async def test_all_that_happened_comes_newest_first(contacts, ada):
    request = ListContactHistoryRequest(name=ada.name)

    changes = (await contacts.ListContactHistory(request)).changes

    assert [
        ("ContactArchived", 4),
        ("ContactEmailChanged", 3),
        ("ContactRenamed", 2),
        ("ContactCreated", 1),
    ] == [(change.type, change.version) for change in changes]
    assert {"email": "", "previousEmail": "ada@x.org"} == json.loads(changes[1].details)
    assert {"api_keys/tests"} == {change.actor for change in changes}
    assert ada.create_time == changes[3].record_time == changes[3].occur_time


async def test_a_walk_shows_each_change_once_while_more_happens(contacts, create):
    ada = await create("ada")
    for number in range(6):
        rename = RenameContactRequest(name=ada.name, given_name=f"Ada {number}")
        await contacts.RenameContact(rename)
    seen, sizes, token = [], [], ""
    while True:
        request = ListContactHistoryRequest(name=ada.name, page_size=2, page_token=token)
        page = await contacts.ListContactHistory(request)
        seen += [change.version for change in page.changes]
        sizes.append(len(page.changes))
        token = page.next_page_token
        if not token:
            break
        rename = RenameContactRequest(name=ada.name, given_name=f"Later {len(seen)}")
        await contacts.RenameContact(rename)

    assert [7, 6, 5, 4, 3, 2, 1] == seen
    assert [2, 2, 2, 1] == sizes


async def test_a_walk_stays_with_its_contact(contacts, create, ada):
    bob = await create("bob")
    page = await contacts.ListContactHistory(ListContactHistoryRequest(name=ada.name, page_size=1))

    with pytest.raises(InvalidArgument) as refused:
        await contacts.ListContactHistory(
            ListContactHistoryRequest(name=bob.name, page_token=page.next_page_token)
        )

    assert Reason.PAGE_TOKEN_MISMATCH == refused.value.reason


async def test_another_workspace_learns_nothing(asked, ada):
    other = asked.stub(ContactsServiceStub, workspace="other")

    with pytest.raises(NotFound):
        await other.ListContactHistory(ListContactHistoryRequest(name=ada.name))


async def test_a_token_that_points_before_the_first_change_ends_the_walk(contacts, create):
    ada = await create("ada")
    fingerprint = fingerprint_of("ListContactHistory", "acme", ada.name)
    version = Field("version", Kind.INTEGER, nullable=False)
    forged = PageToken(fingerprint, positions=(), is_moved=False, values=(-5,)).encoded([version])

    page = await contacts.ListContactHistory(
        ListContactHistoryRequest(name=ada.name, page_token=forged)
    )

    assert not page.changes
    assert not page.next_page_token
