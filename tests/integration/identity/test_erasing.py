"""A person is erased by any identifier, in every system, whatever fails meanwhile."""

import asyncio
import itertools
import sys
from dataclasses import replace

import pytest

from rapport.common.v1.subjects_pb2 import (
    ErasedCount,
    EraseSubjectRequest,
    EraseSubjectResponse,
    FactKey,
    ListSubjectErasuresRequest,
    PreviewSubjectErasureResponse,
)
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.contacts.v1.service_pb2 import (
    ChangeContactEmailRequest,
    CreateContactRequest,
    GetContactRequest,
)
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.identity.v1 import erasures_pb2 as pb
from rapport.identity.v1.erasure_state_pb2 import ErasureState
from rapport.identity.v1.erasures_pb2_grpc import ErasuresServiceStub
from rapport.identity.v1.events_pb2 import ErasureCreated, ErasureExtended
from rapport.identity.v1.service_pb2 import GetProfileRequest
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from services.contacts.__main__ import SERVICE as CONTACTS
from services.identity.__main__ import SERVICE as IDENTITY
from services.identity.asking import Systems
from services.identity.service.erasures import TAKES_LONG
from services.identity.upkeep import erasing as upkeep
from services.identity.upkeep.erasure_register import reconcile
from services.kernel.clock import new_id
from services.kernel.errors import AlreadyExists, NotFound, Unavailable
from services.kernel.log.log import read_stream
from services.kernel.process.metrics import new_registry

MARKER = "valparaiso-marker"
EMAIL = f"ada.{MARKER}@example.org"
NOWHERE = "127.0.0.1:1"
CALL_S = 4.0
# Where the loop that goes on with erasures changes anything.
EFFECTS = {"_go_on", "_ask", "_record"}


@pytest.fixture
async def contacts(start_service):
    return await start_service(CONTACTS)


@pytest.fixture
async def identity(start_service, contacts):
    """Identity, and nobody of whom it asks about deals and customer events."""
    peers = {"contacts": contacts.address, "deals": NOWHERE, "events": NOWHERE}
    return await start_service(IDENTITY, **peers)


@pytest.fixture
def erasures(identity, monkeypatch):
    """The erasures as the workspace `acme` sees them; a system is given up at once."""
    monkeypatch.setattr(upkeep, "ATTEMPTS_MAX", 1)
    monkeypatch.setattr(upkeep, "PAUSE_S", 0.05)
    return identity.stub(ErasuresServiceStub)


@pytest.fixture
async def ada(identity, contacts):
    """A contact of whom identity knows."""
    stub = contacts.stub(ContactsServiceStub)
    request = CreateContactRequest(contact_id="ada", given_name=MARKER, email=EMAIL)
    token = (await stub.CreateContact(request)).write_token
    asked = GetProfileRequest(name=f"profiles/email:{EMAIL}", read_token=token)
    return (await identity.stub(IdentityServiceStub).GetProfile(asked)).profile


async def ended(erasures, name):
    """The erasure when nothing is left to do."""
    told = [
        answer.erasure async for answer in erasures.WatchErasure(pb.WatchErasureRequest(name=name))
    ]
    return told[-1]


def states(erasure):
    return {
        system.system: ErasureState.Name(system.state).removeprefix("ERASURE_STATE_")
        for system in erasure.systems
    }


async def test_a_preview_tells_what_would_go_and_nothing_goes(erasures, contacts, ada):
    request = pb.CreateErasureRequest(profile=ada.name, validate_only=True)
    preview = (await erasures.CreateErasure(request)).preview
    told = {system.system: system for system in preview.systems}
    found = {
        name: {each.system: each.count for each in system.counts} for name, system in told.items()
    }
    listed = await erasures.ListErasures(pb.ListErasuresRequest())

    assert ada.name == preview.profile
    assert {("contact_id", "ada"), ("email", EMAIL)} == {
        (known.type, known.value) for known in preview.identifiers
    }
    assert {"contacts": 1, "log": 1} == found["contacts"]
    assert 1 == found["identity"]["profiles"]
    assert {"deals", "events", "segments"} == {name for name in told if told[name].problem}
    assert [] == list(listed.erasures)


async def test_an_erasure_is_begun_even_if_somebody_counts_for_longer_than_the_call(
    erasures, ada, monkeypatch
):
    asked = Systems.preview

    async def preview(systems, workspace, system, identifiers):
        if system == "events":
            await asyncio.Event().wait()
        return await asked(systems, workspace, system, identifiers)

    monkeypatch.setattr(Systems, "preview", preview)
    request = pb.CreateErasureRequest(erasure_id="long", profile=ada.name)
    told = pb.CreateErasureRequest(profile=ada.name, validate_only=True)
    preview_told = (await erasures.CreateErasure(told, timeout=CALL_S)).preview
    created = (await erasures.CreateErasure(request, timeout=CALL_S)).erasure
    problems = {each.system: each.problem for each in preview_told.systems}

    assert TAKES_LONG == problems["events"]
    assert "erasures/long" == created.name


async def test_who_is_erased_is_gone_and_what_failed_does_not_stop_the_others(
    identity, erasures, contacts, ada, monkeypatch
):
    monkeypatch.setattr(upkeep, "ATTEMPTS_MAX", 2)
    request = pb.CreateErasureRequest(erasure_id="e1", profile=f"profiles/email:{EMAIL.upper()}")
    created = (await erasures.CreateErasure(request)).erasure
    erasure = await ended(erasures, created.name)
    [of_contacts] = [system for system in erasure.systems if system.system == "contacts"]
    with pytest.raises(NotFound):
        await contacts.stub(ContactsServiceStub).GetContact(GetContactRequest(name="contacts/ada"))

    assert "erasures/e1" == created.name
    assert {
        "contacts": "FINISHED",
        "deals": "FAILED",
        "events": "FAILED",
        "identity": "FINISHED",
        "segments": "NOT_SUPPORTED",
    } == states(erasure)
    assert "FAILED" == ErasureState.Name(erasure.state).removeprefix("ERASURE_STATE_")
    assert ErasedCount(system="contacts", count=1) in list(of_contacts.counts)
    assert 2 == erasure.identifier_count


async def test_neither_facts_nor_tables_of_an_erasure_hold_a_value(identity, erasures, ada):
    """Until it has finished they are sealed, for it may be retried."""
    request = pb.CreateErasureRequest(erasure_id="e2", profile=ada.name, request_id=str(new_id()))
    await erasures.CreateErasure(request)
    await ended(erasures, "erasures/e2")
    pool = identity.kernel.pool
    told = await read_stream(pool, "acme", "erasure-e2")
    sealed = await pool.fetchval("select identifiers from erasing.sealed")

    assert not any(MARKER.encode() in envelope.data for envelope in told)
    assert MARKER.encode() not in sealed
    for table in ("erasing.at_work", "kernel.requests", "kernel.states", "erasures.erasures"):
        found = await pool.fetch(f"select t::text from {table} t")
        assert not any(MARKER in row[0] for row in found)


async def test_what_failed_is_tried_again_when_somebody_says_so(erasures, ada):
    request = pb.CreateErasureRequest(erasure_id="e3", profile=ada.name, request_id=str(new_id()))
    first = await erasures.CreateErasure(request)
    again = pb.RetryErasureRequest(name="erasures/e3")
    early = (await erasures.RetryErasure(again)).erasure
    failed = await ended(erasures, "erasures/e3")
    listed = await erasures.ListErasures(pb.ListErasuresRequest(filter="state = FAILED"))
    retried = (await erasures.RetryErasure(again)).erasure
    repeated = await erasures.CreateErasure(request)
    with pytest.raises(AlreadyExists):
        await erasures.CreateErasure(
            pb.CreateErasureRequest(
                erasure_id="e3", identifier=Named(type="email", value="x@y.org")
            )
        )

    assert first.erasure == repeated.erasure
    assert states(first.erasure).keys() == states(early).keys()
    assert "FINISHED" == states(failed)["contacts"] == states(retried)["contacts"]
    assert "INITIALIZED" == states(retried)["deals"] == states(retried)["segments"]
    assert ["erasures/e3"] == [erasure.name for erasure in listed.erasures]


async def test_a_record_that_is_found_late_goes_with_the_person(
    identity, erasures, contacts, ada, monkeypatch
):
    """The address leads to nobody any more, and contacts did not answer what would go."""
    change = ChangeContactEmailRequest(name="contacts/ada")
    changed = await contacts.stub(ContactsServiceStub).ChangeContactEmail(change)
    await identity.stub(IdentityServiceStub).GetProfile(
        GetProfileRequest(name=ada.name, read_token=changed.write_token)
    )
    away = Unavailable("contacts")

    async def nobody_answers(*_):
        raise away

    monkeypatch.setattr(Systems, "preview", nobody_answers)
    request = pb.CreateErasureRequest(erasure_id="e4", identifier=Named(type="email", value=EMAIL))
    created = (await erasures.CreateErasure(request)).erasure
    erasure = await ended(erasures, "erasures/e4")
    envelopes = await read_stream(identity.kernel.pool, "acme", "erasure-e4")
    facts = [identity.kernel.event_types.decode(envelope).event for envelope in envelopes]
    [more] = [fact for fact in facts if isinstance(fact, ErasureExtended)]

    assert isinstance(facts[0], ErasureCreated)
    assert ["contact_id"] == [subject.type for subject in more.subjects]
    assert facts[0].key == more.key
    assert (1, 2) == (created.identifier_count, erasure.identifier_count)
    assert "FINISHED" == states(erasure)["contacts"]


async def test_registers_are_compared_and_what_one_lacks_is_done_once_more(
    identity, erasures, contacts, ada
):
    """Contacts was restored, and so was identity: neither knows what it has done."""
    await erasures.CreateErasure(pb.CreateErasureRequest(erasure_id="e5", profile=ada.name))
    await ended(erasures, "erasures/e5")
    subjects = contacts.stub(SubjectsServiceStub)
    other = EraseSubjectRequest(
        erasure="erasures/other",
        key=FactKey(receive_time=ada.create_time, event_id=str(new_id())),
        hashes=["0" * 32],
        nodes=["1" * 32],
    )
    await contacts.kernel.pool.execute("truncate kernel.erasures, kernel.erased_subjects")
    await subjects.EraseSubject(other)
    await reconcile(identity.kernel, Systems(identity.kernel))
    known = (await subjects.ListSubjectErasures(ListSubjectErasuresRequest())).erasures
    adopted = await erasures.GetErasure(pb.GetErasureRequest(name="erasures/other"))

    assert ["erasures/e5", "erasures/other"] == [erasure.erasure for erasure in known]
    assert 2 == len(known[0].hashes)
    assert 1 == adopted.erasure.identifier_count
    assert ada.create_time == adopted.erasure.until_time


class Crash(BaseException):
    """A process that ends here."""


async def test_a_crash_at_any_line_leaves_an_erasure_that_goes_on(start_service, monkeypatch):
    """Each line of what has an effect, once; every system answers, and then has finished."""
    peers = {"contacts": NOWHERE, "deals": NOWHERE, "events": NOWHERE}
    identity = await start_service(replace(IDENTITY, background=lambda *_: ()), **peers)
    worker = upkeep.ErasureUpkeep(identity.kernel, upkeep.ErasureMetrics(new_registry()))
    asked, seen = set(), set()

    async def erase(_self, _workspace, system, request):
        done = (request.erasure, system) in asked
        asked.add((request.erasure, system))
        return EraseSubjectResponse(finished=done)

    async def suppress(*_):
        return 1

    async def preview(*_):
        return PreviewSubjectErasureResponse()

    monkeypatch.setattr(Systems, "erase", erase)
    monkeypatch.setattr(Systems, "suppress", suppress)
    monkeypatch.setattr(Systems, "preview", preview)
    monkeypatch.setattr(upkeep, "ASK_AGAIN_S", 0.0)
    monkeypatch.setattr("services.identity.service.erasures.SYSTEMS", ("contacts", "deals"))
    erasures, crashed = identity.stub(ErasuresServiceStub), "at first"
    for number in itertools.count():
        name = f"erasures/crash-{number}"
        await erasures.CreateErasure(
            pb.CreateErasureRequest(
                erasure_id=f"crash-{number}",
                identifier=Named(type="user_id", value=f"u{number}"),
                suppress=True,
            )
        )
        crashed = await crash_at_a_new_line(worker, seen)
        while await worker.step():
            pass
        erasure = (await erasures.GetErasure(pb.GetErasureRequest(name=name))).erasure
        envelopes = await read_stream(identity.kernel.pool, "acme", f"erasure-crash-{number}")

        assert {"FINISHED"} == set(states(erasure).values()), f"killed at {crashed}"
        assert 1 + len(erasure.systems) == len(envelopes), f"killed at {crashed}"
        if crashed is None:
            break
    left = await identity.kernel.pool.fetchval(
        "select (select count(*) from erasing.sealed) + (select count(*) from erasing.at_work)"
    )

    assert number > 20
    assert 0 == left


async def crash_at_a_new_line(worker, seen):
    """Works until a line that no attempt ended at before; None when there is none left."""
    died = []

    def trace(frame, event, _):
        code = frame.f_code
        if (code.co_filename, code.co_name in EFFECTS) != (upkeep.__file__, True):
            return None
        if event == "line" and not died and frame.f_lineno not in seen:
            seen.add(frame.f_lineno)
            died.append(f"line {frame.f_lineno}")
            raise Crash
        return trace

    sys.settrace(trace)
    try:
        while await worker.step():
            pass
    except Crash:
        return died[0]
    finally:
        sys.settrace(None)
    return None
