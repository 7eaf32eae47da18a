"""The contacts service, and who asks it."""

import pytest

from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.contacts.__main__ import SERVICE


@pytest.fixture
async def asked(start_service):
    """The running service."""
    return await start_service(SERVICE)


@pytest.fixture
def contacts(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(ContactsServiceStub)


@pytest.fixture
def create(contacts):
    """Creates a contact and returns it: `await create("ada", email="ada@x.org")`."""

    async def create(contact_id, **said):
        request = CreateContactRequest(contact_id=contact_id, **{"given_name": contact_id} | said)
        return (await contacts.CreateContact(request)).contact

    return create
