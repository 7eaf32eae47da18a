"""Everything that is held about a person is told, or which service did not answer."""

import json
from collections import Counter

import pytest

from rapport.common.v1 import subjects_pb2, subjects_pb2_grpc
from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.contacts.v1.service_pb2 import ChangeContactEmailRequest, CreateContactRequest
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.deals.v1 import events_pb2 as deals_events
from rapport.identity.v1 import consents_pb2, flags_pb2, verdicts_pb2
from rapport.identity.v1.consents_pb2_grpc import ConsentsServiceStub
from rapport.identity.v1.flags_pb2_grpc import FlagsServiceStub
from rapport.identity.v1.service_pb2 import Identifier
from rapport.identity.v1.subject_exports_pb2 import ExportSubjectDataRequest
from rapport.identity.v1.subject_exports_pb2_grpc import SubjectExportsServiceStub
from rapport.identity.v1.verdicts_pb2_grpc import VerdictsServiceStub
from services.contacts.__main__ import SERVICE as CONTACTS
from services.identity.__main__ import SERVICE as IDENTITY
from services.identity.service import subject_exports
from services.kernel.erasing.exports import ExportingServicer
from services.kernel.errors import InvalidArgument, NotFound, Unavailable, Unimplemented
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Service
from services.kernel.rpc.peers import Peers
from services.kernel.rpc.server import served

MARKER = "valparaiso-marker"
EMAIL = f"ada.{MARKER}@example.org"
ADA = f"profiles/email:{EMAIL}"


class Told:
    """What others hold: whom they were asked about, once for each part."""

    async def export(self, pool, subject):  # noqa: ARG002, what every service is told
        forms = sorted(f"{name}:{form}" for name, form in subject.forms)
        for form in forms:
            content = json.dumps({"asked": form})
            yield [SubjectRecord(system="memory", kind="Question", content=content)]


OTHERS = Service(
    name="deals",
    event_types=EventTypes(deals_events),
    servicers=lambda kernel: [
        served(
            subjects_pb2,
            subjects_pb2_grpc,
            ExportingServicer(kernel.pool, Told(), kernel.derive_key),
        )
    ],
)


@pytest.fixture
async def contacts(start_service):
    return await start_service(CONTACTS)


@pytest.fixture
async def others(start_service):
    """Stands in for everybody else."""
    return await start_service(OTHERS)


@pytest.fixture
async def identity(start_service, contacts, others):
    peers = dict.fromkeys(("deals", "events", "segments"), others.address)
    return await start_service(IDENTITY, contacts=contacts.address, **peers)


@pytest.fixture
async def token(identity, contacts):
    """Everything that can be said of Ada, each time with the marker; the token of the last word."""
    stub = contacts.stub(ContactsServiceStub)
    await stub.CreateContact(CreateContactRequest(contact_id="ada", given_name=MARKER))
    changed = ChangeContactEmailRequest(name="contacts/ada", email=EMAIL)
    seen = (await stub.ChangeContactEmail(changed)).write_token
    consents = identity.stub(ConsentsServiceStub)
    await consents.GetPreferences(consents_pb2.GetPreferencesRequest(name=ADA, read_token=seen))
    purpose = consents_pb2.CreatePurposeRequest(
        purpose_id="mail", display_name="Mail", lawful_basis="LAWFUL_BASIS_CONSENT"
    )
    await consents.CreatePurpose(purpose)
    granted = consents_pb2.GrantConsentRequest(name=ADA, purpose="purposes/mail", source=MARKER)
    await consents.GrantConsent(granted)
    one, other = Identifier(type="email", value=EMAIL), Identifier(type="user_id", value="u1")
    cut = verdicts_pb2.CutIdentifiersRequest(one=one, other=other, reason=MARKER)
    await identity.stub(VerdictsServiceStub).CutIdentifiers(cut)
    allowed = flags_pb2.AllowIdentifierRequest(identifier=one, reason=MARKER)
    return (await identity.stub(FlagsServiceStub).AllowIdentifier(allowed)).write_token


async def exported(identity, name=ADA, token=""):
    """The lines of the document, and what the last answer counts."""
    request = ExportSubjectDataRequest(name=name, read_token=token)
    text, counts = "", []
    async for answer in identity.stub(SubjectExportsServiceStub).ExportSubjectData(request):
        assert not counts
        text, counts = text + answer.json_lines, list(answer.counts)
    return [json.loads(line) for line in text.splitlines()], counts


async def test_everything_that_is_held_is_told_once_and_counted(identity, token, monkeypatch):
    monkeypatch.setattr(subject_exports, "BYTES_PER_RESPONSE_MAX", 2_000)

    lines, counts = await exported(identity, token=token)

    first, *records, last = lines
    marked = {
        (line["service"], line["system"], line["kind"])
        for line in records
        if MARKER in json.dumps(line["content"])
    }
    assert marked >= {
        ("contacts", "contacts", "Contact"),
        ("contacts", "log", "ContactCreated"),
        ("contacts", "log", "ContactEmailChanged"),
        ("identity", "profiles", "Profile"),
        ("identity", "profiles", "Identifier"),
        ("identity", "profiles", "Trait"),
        ("identity", "timeline", "Activity"),
        ("identity", "consents", "ConsentWord"),
        ("identity", "verdicts", "Verdict"),
        ("identity", "log", "ProfileTraitsChanged"),
        ("identity", "log", "ConsentGranted"),
        ("identity", "log", "IdentifiersCut"),
        ("identity", "flags", "IdentifierFlag"),
        ("identity", "log", "IdentifierAllowed"),
        ("events", "memory", "Question"),
    }
    told = Counter((line["service"], line["system"]) for line in records)
    assert told == {(count.service, count.system): count.count for count in counts}
    assert ("end", len(records)) == (last["type"], last["records"])
    assert {"email": EMAIL, "contact_id": "ada"} == {
        known["type"]: known["value"] for known in first["identifiers"]
    }
    asked = {line["content"]["asked"] for line in records if line["service"] == "segments"}
    nodes = {
        f"profile:{each['content']['node']}" for each in records if each["kind"] == "Identifier"
    }
    assert nodes == asked


@pytest.mark.parametrize("service", subject_exports.OTHERS)
async def test_who_cannot_be_asked_is_named_and_nothing_says_that_it_is_whole(
    identity, token, monkeypatch, service
):
    known = identity.kernel.peers.channel
    monkeypatch.setattr(
        Peers, "channel", lambda _, asked, them: None if asked == service else known(asked, them)
    )

    with pytest.raises(Unavailable) as refused:
        await exported(identity, token=token)

    assert {"service": service} == refused.value.metadata


async def test_who_cannot_tell_what_it_holds_is_named(identity, token, monkeypatch):
    async def unable(*_):
        raise Unimplemented("ExportSubject")
        yield

    monkeypatch.setattr(Told, "export", unable)

    with pytest.raises(Unavailable) as refused:
        await exported(identity, token=token)

    assert {"service": "deals"} == refused.value.metadata


async def test_who_is_unknown_to_identity_may_be_known_to_others(identity):
    lines, _ = await exported(identity, "profiles/email:nobody@x.com")

    assert {"email:nobody@x.com"} == {
        line["content"]["asked"] for line in lines if line.get("service") == "events"
    }
    for name, error in (("profiles/" + "0" * 32, NotFound), ("nonsense", InvalidArgument)):
        with pytest.raises(error):
            await exported(identity, name)
