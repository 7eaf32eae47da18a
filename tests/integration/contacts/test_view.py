"""The view is a pure fold of the log: built anew, and however batched, it has the same rows."""

from rapport.contacts.v1.service_pb2 import (
    ArchiveContactRequest,
    ChangeContactEmailRequest,
    RenameContactRequest,
)
from services.contacts.projections import ContactsView
from services.kernel.log.log import read_partition
from services.kernel.views.rebuild import Rebuild


async def test_a_rebuilt_view_equals_the_live_one(asked, contacts, create):
    await make_history(contacts, create)
    kernel = asked.kernel
    rebuild = Rebuild(kernel.pool, kernel.log, ContactsView(), kernel.event_types, {})

    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert 4 == comparison.live["contacts"][0]
    assert comparison.equal


async def test_one_batch_or_one_by_one_gives_the_same_rows(asked, contacts, create):
    await make_history(contacts, create)
    pool, view = asked.kernel.pool, ContactsView()
    events = [asked.kernel.event_types.decode(e) for e in await read_partition(pool, 0, after=0)]
    async with pool.acquire() as tx:
        for schema in ("at_once", "one_by_one"):
            await tx.execute(f"create schema {schema}")
            await tx.execute(view.tables(schema))
        await view.apply(tx, "at_once", events)
        for event in events:
            await view.apply(tx, "one_by_one", [event])
        at_once, one_by_one, live = [
            await tx.fetch(f"select * from {schema}.contacts order by contact_id")
            for schema in ("at_once", "one_by_one", "contacts")
        ]

    assert live == at_once == one_by_one


async def make_history(contacts, create):
    for contact_id in ("ada", "bob", "eve", "kim"):
        await create(contact_id, email=f"{contact_id}@x.org", custom_fields={"a": "1", "b": ""})
    await contacts.RenameContact(RenameContactRequest(name="contacts/ada", family_name="L"))
    await contacts.ChangeContactEmail(ChangeContactEmailRequest(name="contacts/bob"))
    await contacts.ArchiveContact(ArchiveContactRequest(name="contacts/eve"))
