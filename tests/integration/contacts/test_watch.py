"""Who watches is told of every change, from where the watch began or was left."""

import asyncio
from contextlib import aclosing

import pytest

from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    CreateContactRequest,
    RenameContactRequest,
    WatchContactsRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.contacts.service import TOLD_AT_ONCE_MAX
from services.kernel.errors import InvalidArgument
from services.kernel.log.tokens import encode_write_token

WITHIN_S = 5.0


class Watch:
    """A watch that has begun."""

    def __init__(self, stream):
        self._stream = stream
        self.token = ""

    @classmethod
    async def begin(cls, stub, **options):
        watch = cls(aiter(stub.WatchContacts(WatchContactsRequest(**options))))
        assert [] == await watch.next()
        return watch

    async def next(self):
        """The names in the next response."""
        async with asyncio.timeout(WITHIN_S):
            response = await anext(self._stream)
        self.token = response.resume_token
        return [contact.given_name for contact in response.contacts]

    async def until(self, name):
        """All the names until one comes."""
        seen = []
        while name not in seen:
            seen += await self.next()
        return seen

    async def aclose(self):
        await self._stream.aclose()


@pytest.fixture
def rename(contacts):
    async def rename(contact_id, given_name):
        request = RenameContactRequest(name=f"contacts/{contact_id}", given_name=given_name)
        await contacts.RenameContact(request)

    return rename


async def test_a_change_is_told_as_it_left_the_contact(contacts, create, rename):
    await create("before")
    async with aclosing(await Watch.begin(contacts)) as watch:
        await create("ada")
        assert ["ada"] == await watch.next()
        await rename("ada", "Augusta")
        assert ["Augusta"] == await watch.next()
        await contacts.ArchiveContact(ArchiveContactRequest(name="contacts/ada"))
        assert ["Augusta"] == await watch.next()


async def test_a_watch_goes_on_where_it_was_left(contacts, create):
    async with aclosing(await Watch.begin(contacts)) as watch:
        await create("ada")
        await watch.next()
    await create("bob")
    await create("eve")

    async with aclosing(await Watch.begin(contacts, resume_token=watch.token)) as watch:
        assert ["bob", "eve"] == await watch.until("eve")


async def test_many_changes_come_in_several_responses_and_none_is_lost(contacts, create):
    async with aclosing(await Watch.begin(contacts)) as watch:
        start = watch.token
    names = {f"c{number}" for number in range(2 * TOLD_AT_ONCE_MAX + 1)}
    await asyncio.gather(*(create(name) for name in names))

    async with aclosing(await Watch.begin(contacts, resume_token=start)) as watch:
        first = await watch.next()
        # A token stands for what was told up to it, so the first of several says nothing new.
        assert (TOLD_AT_ONCE_MAX, start) == (len(first), watch.token)
        second, third = await watch.next(), await watch.next()

    assert names == {*first, *second, *third}
    assert start != watch.token


async def test_only_contacts_that_match_after_the_change_are_told(contacts, create, rename):
    async with aclosing(await Watch.begin(contacts, filter="given_name = A*")) as watch:
        await create("bob", given_name="Bob")
        await create("ada", given_name="Bea")
        await rename("ada", "Ada")
        assert ["Ada"] == await watch.next()


async def test_another_workspace_is_told_nothing(asked, contacts, create):
    other = asked.stub(ContactsServiceStub, workspace="other")
    async with aclosing(await Watch.begin(contacts)) as watch:
        await other.CreateContact(CreateContactRequest(given_name="Eve"))
        await create("ada")
        assert ["ada"] == await watch.next()


@pytest.mark.parametrize("token", ["§", encode_write_token("deals", {0: 7})])
async def test_a_token_that_is_none_of_ours_is_refused_by_its_field(contacts, token):
    with pytest.raises(InvalidArgument) as refused:
        await Watch.begin(contacts, resume_token=token)

    assert ["resume_token"] == [violation.field for violation in refused.value.violations]
