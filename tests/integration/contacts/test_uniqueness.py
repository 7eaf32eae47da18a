"""However commands race, no two contacts in use share an address; only a taken one is refused."""

import asyncio
import uuid

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    CreateContactRequest,
    ListContactsRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.kernel.errors import AlreadyExists, FailedPrecondition, NotFound

names = st.sampled_from(["contacts/a", "contacts/b", "contacts/c"])
addresses = st.sampled_from(["", "ada@x.org", "ADA@x.org", "Ada@X.ORG", "eve@x.org"])
rounds = st.lists(
    st.lists(
        st.one_of(
            st.builds(
                CreateContactRequest,
                contact_id=st.sampled_from("abc"),
                given_name=st.just("x"),
                email=addresses,
            ),
            st.builds(ChangeContactEmailRequest, name=names, email=addresses),
            st.builds(ArchiveContactRequest, name=names),
        ),
        min_size=1,
        max_size=6,
    ),
    max_size=8,
)


@given(rounds)
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
async def test_no_two_contacts_in_use_share_an_address(asked, rounds):
    stub = asked.stub(ContactsServiceStub, workspace=uuid.uuid4().hex)
    for commands in rounds:
        before = await held(stub)
        answers = await asyncio.gather(*(attempt(stub, command) for command in commands))
        after = await held(stub)

        assert len(set(after.values())) == len(after)
        for taken in (answer for answer in answers if answer is not None):
            event("taken")
            if taken.metadata["field"] == "email":
                # It had the address before, or got it in this round.
                assert taken.metadata["existing_name"] in before | after or len(commands) > 1


async def attempt(stub, command):
    method = type(command).__name__.removesuffix("Request")
    try:
        await getattr(stub, method)(command)
    except AlreadyExists as taken:
        return taken
    except (FailedPrecondition, NotFound):
        pass
    return None


async def held(stub):
    """The address, without its spelling, of each contact in use that has one."""
    page = await stub.ListContacts(ListContactsRequest(filter="email:*"))
    return {contact.name: contact.email.lower() for contact in page.contacts}
