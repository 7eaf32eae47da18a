"""Lists show the contacts in use, filtered and in order, and a walk loses none."""

import pytest

from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ListContactsRequest,
    RenameContactRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.contacts.projections import CONTACTS
from services.kernel.errors import InvalidArgument, Reason

MANY_CONTACTS = """
insert into contacts.contacts
select 'acme', 'c' || n, 1, null, 'F' || n % 10, 'c' || n || '@x.org', null,
    jsonb_build_object('number', 'c' || n), 1, 0, n, n, 'epoch'::timestamptz + n * interval '1 s',
    'epoch'::timestamptz + n * interval '1 s'
from generate_series(1, 5000) n
"""


@pytest.fixture
def names(contacts):
    async def names(**options):
        response = await contacts.ListContacts(ListContactsRequest(**options))
        return [contact.name.removeprefix("contacts/") for contact in response.contacts]

    return names


@pytest.fixture
async def three(create):
    await create("c", family_name="Byron", email="c@x.org", custom_fields={"tier": "gold"})
    await create("a", family_name="Lovelace", email="a@x.org", custom_fields={"tier": "silver"})
    await create("b", given_name="Charles", phone="123")


async def test_contacts_come_in_the_order_of_their_creation(three, names):
    assert ["c", "a", "b"] == await names()


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ('custom_fields.tier = "gold"', ["c"]),
        ("custom_fields.tier:*", ["c", "a"]),
        ('email = "a@x.org"', ["a"]),
        ("NOT email:*", ["b"]),
        ("family_name = L*", ["a"]),
        ("charles", ["b"]),
        ("phone = 123", ["b"]),
        ("state = ACTIVE", ["c", "a", "b"]),
        ("state = CONTACT_STATE_ARCHIVED", []),
        ('create_time > "2020-01-01T00:00:00Z"', ["c", "a", "b"]),
        ("given_name = a OR given_name = c", ["c", "a"]),
    ],
)
async def test_a_filter_finds(three, names, wanted, found):
    assert found == await names(filter=wanted)


@pytest.mark.parametrize(
    ("order_by", "found"),
    [
        ("create_time desc", ["b", "a", "c"]),
        ("family_name", ["c", "a", "b"]),
        ("email desc", ["b", "c", "a"]),
        ("update_time", ["c", "a", "b"]),
    ],
)
async def test_a_list_is_sorted(three, names, order_by, found):
    assert found == await names(order_by=order_by)


async def test_archived_contacts_are_hidden_until_asked_for(three, contacts, names):
    await contacts.ArchiveContact(ArchiveContactRequest(name="contacts/a"))

    assert ["c", "b"] == await names()
    assert ["c", "a", "b"] == await names(show_archived=True)
    assert ["a"] == await names(show_archived=True, filter="state = ARCHIVED")


async def test_another_workspace_sees_nothing(three, asked):
    other = asked.stub(ContactsServiceStub, workspace="other")

    assert [] == list((await other.ListContacts(ListContactsRequest())).contacts)


@pytest.mark.parametrize("order_by", ["", "family_name desc"])
async def test_a_walk_while_others_write_shows_each_contact(contacts, create, order_by):
    for number in range(10):
        await create(f"c{number}", family_name=f"F{number % 3}")
    seen, token = [], ""
    while True:
        page = await contacts.ListContacts(
            ListContactsRequest(page_size=3, page_token=token, order_by=order_by)
        )
        seen += [contact.name for contact in page.contacts]
        token = page.next_page_token
        if not token:
            break
        # A contact that moves from behind the cursor to before it, and one that is new.
        moved = RenameContactRequest(name=f"contacts/c{len(seen) % 10}", family_name="A")
        await contacts.RenameContact(moved)
        await create(f"n{len(seen)}", family_name="Z")

    assert {f"contacts/c{number}" for number in range(10)} == set(seen)


async def test_a_walk_cannot_change_what_it_looks_for(three, contacts):
    page = await contacts.ListContacts(ListContactsRequest(page_size=1))
    other = ListContactsRequest(page_size=1, page_token=page.next_page_token, show_archived=True)

    with pytest.raises(InvalidArgument) as refused:
        await contacts.ListContacts(other)

    assert Reason.PAGE_TOKEN_MISMATCH == refused.value.reason


async def test_a_filter_on_what_is_no_field_says_so(names):
    with pytest.raises(InvalidArgument) as refused:
        await names(filter="shoe_size = 42")

    assert Reason.FILTER_INVALID == refused.value.reason


@pytest.mark.parametrize(
    ("options", "index"),
    [
        ({}, "contacts_by_create_time"),
        ({"order_by": "create_time desc"}, "contacts_by_create_time"),
        ({"filter": "email = c7@x.org"}, "contacts_by_email"),
        ({"filter": "custom_fields.number = c7"}, "contacts_by_custom_fields"),
        ({"order_by": "family_name"}, "contacts_by_family_name"),
        # Those that moved since the walk began.
        ({"order_by": "family_name"}, "contacts_by_update_position"),
    ],
)
async def test_a_large_list_is_read_along_an_index(asked, options, index):
    async with asked.kernel.pool.acquire() as connection:
        await connection.execute(MANY_CONTACTS)
        await connection.execute("analyze contacts.contacts")
        query = CONTACTS.query(workspace="acme", positions=(5_000,), page_size=10, **options)
        plan = str(await connection.fetch(f"explain {query.sql}", *query.args))

    assert index in plan
