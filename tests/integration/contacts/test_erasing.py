"""A person is erased from contacts by whatever a record of theirs ever had."""

from datetime import timedelta
from pathlib import Path

import pytest

from rapport.common.v1.subjects_pb2 import (
    EraseSubjectRequest,
    ExportSubjectRequest,
    FactKey,
    ListSubjectErasuresRequest,
    PreviewSubjectErasureRequest,
    SubjectIdentifier,
)
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.contacts.v1.service_pb2 import (
    ChangeContactEmailRequest,
    CreateContactRequest,
    GetContactRequest,
    ListContactHistoryRequest,
    ListContactsRequest,
    RenameContactRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from services.contacts.projections import ContactsView
from services.kernel.clock import SystemClock, new_id
from services.kernel.erasing.proof import find_in_files
from services.kernel.errors import FailedPrecondition, NotFound
from services.kernel.log.recorded import timestamp_of
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild

MARKER = "zanzibar-marker"
FORMER, NOW = f"Ada.{MARKER}@Example.org", f"lovelace.{MARKER}@example.org"


@pytest.fixture
def subjects(asked):
    """What the platform asks the service about a person of the workspace `acme`."""
    return asked.stub(SubjectsServiceStub)


@pytest.fixture
async def ada(contacts, create):
    """A contact with a history, of whom every value holds the marker; and somebody else."""
    await create("ada", email=FORMER, family_name=MARKER, custom_fields={"note": MARKER})
    await create("bob", email="bob@example.org", phone="+44 20 7946 0000")
    change = ChangeContactEmailRequest(name="contacts/ada", email=NOW, request_id=f"{new_id()}")
    await contacts.ChangeContactEmail(change)
    return change


def request_of(*identifiers, name="erasures/1", hashes=(), later_s=0.0):
    moment = SystemClock().now() + timedelta(seconds=later_s)
    return EraseSubjectRequest(
        erasure=name,
        key=FactKey(receive_time=timestamp_of(moment), event_id=str(new_id())),
        identifiers=[SubjectIdentifier(type=kind, value=value) for kind, value in identifiers],
        hashes=hashes,
    )


async def erase(subjects, request):
    """Asks until nothing is left to do."""

    async def finished():
        answer = await subjects.EraseSubject(request)
        assert answer.finished, answer
        return answer

    return await eventually(finished, within_s=30)


async def test_nothing_of_an_erased_contact_is_left_in_any_file(
    asked, contacts, subjects, ada, nats_server
):
    answer = await erase(subjects, request_of(("email", FORMER.upper())))
    listed = await contacts.ListContacts(ListContactsRequest(show_archived=True))
    for question in (
        contacts.GetContact(GetContactRequest(name="contacts/ada")),
        contacts.ListContactHistory(ListContactHistoryRequest(name="contacts/ada")),
        contacts.RenameContact(RenameContactRequest(name="contacts/ada", given_name="A")),
    ):
        with pytest.raises(NotFound):
            await question
    with pytest.raises(FailedPrecondition, match="erased"):
        await contacts.ChangeContactEmail(ada)
    await asked.kernel.pool.execute("checkpoint")
    folder = Path(await asked.kernel.pool.fetchval("show data_directory"))

    assert ["contacts/bob"] == [contact.name for contact in listed.contacts]
    assert {"contacts": 1, "feed": 2, "log": 2, "remembered responses": 1} == {
        each.system: each.count for each in answer.counts if each.count
    }
    assert [SubjectIdentifier(type="contact_id", value="ada")] == list(answer.also)
    assert [] == list(find_in_files(MARKER, [folder, nats_server.store]))


async def test_what_was_theirs_is_free_and_begins_anew(asked, contacts, subjects, ada):
    """And a rebuild makes the same rows of it, in one batch."""
    await subjects.EraseSubject(request_of(("contact_id", "ada")))
    created = await contacts.CreateContact(
        CreateContactRequest(contact_id="ada", given_name="Other", email=NOW)
    )
    renamed = await contacts.RenameContact(
        RenameContactRequest(name="contacts/ada", given_name="Another")
    )
    found = await contacts.GetContact(GetContactRequest(name="contacts/ada"))
    history = await contacts.ListContactHistory(ListContactHistoryRequest(name="contacts/ada"))
    kernel = asked.kernel
    rebuild = Rebuild(kernel.pool, kernel.log, ContactsView(), kernel.event_types, {})
    async for _ in rebuild.build():
        pass
    comparison = await rebuild.compare()

    assert comparison.equal
    assert created.contact.create_time == renamed.contact.create_time
    assert renamed.contact == found.contact
    told = ["ContactRenamed", "ContactCreated", "ContactErased"]
    assert told == [change.type for change in history.changes]


async def test_what_was_changed_since_goes_with_it(contacts, subjects, ada, create):
    """Whoever asked for the erasure knew the record that was there."""
    request = request_of(("phone", "0044 2079460000"))
    await contacts.RenameContact(RenameContactRequest(name="contacts/bob", given_name="Bobby"))
    await create("eve", phone="+442079460000")
    await subjects.EraseSubject(request)
    listed = await contacts.ListContacts(ListContactsRequest())

    assert ["contacts/ada", "contacts/eve"] == [contact.name for contact in listed.contacts]


async def test_another_workspace_and_other_people_are_untouched(asked, contacts, subjects, ada):
    elsewhere = asked.stub(ContactsServiceStub, workspace="globex")
    await elsewhere.CreateContact(CreateContactRequest(contact_id="ada", email=NOW))
    await subjects.EraseSubject(request_of(("email", NOW)))
    await subjects.EraseSubject(request_of(("email", "nobody@example.org"), name="erasures/2"))
    registered = await asked.stub(SubjectsServiceStub, workspace="globex").ListSubjectErasures(
        ListSubjectErasuresRequest()
    )

    assert (await elsewhere.GetContact(GetContactRequest(name="contacts/ada"))).contact.email == NOW
    assert (await contacts.GetContact(GetContactRequest(name="contacts/bob"))).contact.given_name
    assert [] == list(registered.erasures)


async def test_what_is_registered_is_enough_to_erase_once_more(asked, contacts, subjects, ada):
    """A restored backup brings back what the register still knows, by hashes."""
    await subjects.EraseSubject(request_of(("email", "carol@example.org"), later_s=60))
    [known] = (await subjects.ListSubjectErasures(ListSubjectErasuresRequest())).erasures
    await asked.kernel.pool.execute("truncate kernel.erasures, kernel.erased_subjects")
    await asked.kernel.pool.execute("update kernel.heads set record_time = '-infinity'")
    await contacts.CreateContact(CreateContactRequest(contact_id="c", email="Carol@example.org"))
    again = EraseSubjectRequest(erasure=known.erasure, key=known.key, hashes=known.hashes)
    answer = await subjects.EraseSubject(again)

    assert ["c"] == [each.value for each in answer.also]
    with pytest.raises(NotFound):
        await contacts.GetContact(GetContactRequest(name="contacts/c"))


async def test_a_preview_and_an_export_tell_of_what_is_there(subjects, contacts, ada):
    asked_about = [SubjectIdentifier(type="email", value=FORMER)]
    preview = await subjects.PreviewSubjectErasure(
        PreviewSubjectErasureRequest(identifiers=asked_about)
    )
    answers = subjects.ExportSubject(ExportSubjectRequest(identifiers=asked_about))
    records = [record async for answer in answers for record in answer.records]

    assert {"contacts": 1, "log": 2} == {each.system: each.count for each in preview.counts}
    assert ["ada"] == [each.value for each in preview.also]
    assert ["Contact", "ContactCreated", "ContactEmailChanged"] == [it.kind for it in records]
    assert all(MARKER in record.content for record in records)
