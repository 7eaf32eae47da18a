"""Purposes are created once and archived for good; what somebody records is seen at once."""

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from rapport.contacts.v1.service_pb2 import CreateContactRequest
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.identity.v1 import consents_pb2 as pb
from rapport.identity.v1.consents_pb2_grpc import ConsentsServiceStub
from services.contacts.__main__ import SERVICE as CONTACTS
from services.deals.__main__ import SERVICE as DEALS
from services.events.__main__ import SERVICE as EVENTS
from services.identity.__main__ import SERVICE as IDENTITY
from services.identity.deciders import purpose
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)

ADA = "profiles/email:ada@x.com"


@pytest.fixture
async def platform(start_service):
    """The services that identity needs, by name."""
    started = {}
    for service in (CONTACTS, DEALS, EVENTS, IDENTITY):
        peers = {name: started[name].address for name in service.peers}
        started[service.name] = await start_service(service, **peers)
    return started


@pytest.fixture
def consents(platform):
    return platform["identity"].stub(ConsentsServiceStub)


async def created(consents, purpose_id="mail", basis="CONSENT", **fields):
    request = pb.CreatePurposeRequest(
        purpose_id=purpose_id,
        display_name="Mail",
        lawful_basis=f"LAWFUL_BASIS_{basis}",
        **fields,
    )
    return (await consents.CreatePurpose(request)).purpose


async def checked(consents, name=ADA, purpose_id="mail", **fields):
    asked = pb.CheckConsentRequest(name=name, purpose=f"purposes/{purpose_id}", **fields)
    return await consents.CheckConsent(asked)


async def test_a_purpose_is_created_once_and_archived_for_good(consents, monkeypatch):
    first = await created(consents, categories=["marketing"], expire_after=Duration(seconds=86400))
    with pytest.raises(AlreadyExists):
        await created(consents)
    for _ in range(2):
        archived = await consents.ArchivePurpose(pb.ArchivePurposeRequest(name=first.name))
    with pytest.raises(FailedPrecondition):
        await consents.GrantConsent(pb.GrantConsentRequest(name=ADA, purpose=first.name))
    with pytest.raises(FailedPrecondition):
        await checked(consents)
    monkeypatch.setattr(purpose, "PURPOSES_MAX", 1)
    with pytest.raises(ResourceExhausted):
        await created(consents, "another")
    listed = await consents.ListPurposes(pb.ListPurposesRequest(filter="state = ARCHIVED"))
    got = await consents.GetPurpose(pb.GetPurposeRequest(name=first.name))

    assert '"2"' == archived.purpose.etag
    assert [archived.purpose] == list(listed.purposes) == [got.purpose]
    assert not (await consents.GetPreferences(pb.GetPreferencesRequest(name=ADA))).consents


async def test_what_is_recorded_is_seen_by_who_passes_the_token_on(platform, consents):
    await created(consents, expire_after=Duration(seconds=30 * 86400))
    await created(consents, "analytics", "LEGITIMATE_INTEREST")
    contacts = platform["contacts"].stub(ContactsServiceStub)
    await contacts.CreateContact(CreateContactRequest(contact_id="ada", email="ada@x.com"))
    granted = await consents.GrantConsent(
        pb.GrantConsentRequest(name=ADA, purpose="purposes/mail", source="a signed form")
    )
    token = granted.write_token
    allowed = await checked(consents, read_token=token)
    await consents.DenyConsent(pb.DenyConsentRequest(name=ADA, purpose="purposes/analytics"))
    denied = await consents.DenyConsent(
        pb.DenyConsentRequest(name=ADA, purpose="purposes/analytics")
    )
    token = denied.write_token
    objected = await checked(consents, purpose_id="analytics", read_token=token)
    preferences = await consents.GetPreferences(pb.GetPreferencesRequest(name=ADA))
    expired = pb.CheckConsentRequest(name=ADA, purpose="purposes/mail")
    expired.read_time.FromDatetime(
        granted.word.expire_time.ToDatetime() + timedelta(microseconds=1)
    )
    later = await consents.CheckConsent(expired)
    words = await consents.ListConsentWords(pb.ListConsentWordsRequest(name=ADA))

    assert allowed.is_allowed
    assert "a signed form" == allowed.consent.source
    assert "email" == allowed.consent.identifier_type
    assert not objected.is_allowed
    assert {"purposes/analytics": 3, "purposes/mail": 2} == {
        each.purpose: each.status for each in preferences.consents
    }
    assert (False, 5) == (later.is_allowed, later.consent.status)
    assert [3, 3, 2] == [word.status for word in words.words]


async def test_a_wrong_word_is_refused(consents):
    await created(consents)
    said = {"name": ADA, "purpose": "purposes/mail"}
    tomorrow = pb.GrantConsentRequest(**said)
    tomorrow.occur_time.FromDatetime(tomorrow.occur_time.ToDatetime() + timedelta(days=100_000))
    ended = pb.GrantConsentRequest(**said)
    ended.occur_time.FromDatetime(ended.occur_time.ToDatetime() + timedelta(days=2))
    ended.expire_time.FromDatetime(ended.expire_time.ToDatetime() + timedelta(days=1))
    nobody = pb.GrantConsentRequest(name="profiles/" + "0" * 32, purpose="purposes/mail")

    for request, error in (
        (tomorrow, InvalidArgument),
        (ended, InvalidArgument),
        (nobody, NotFound),
    ):
        with pytest.raises(error):
            await consents.GrantConsent(request)
    with pytest.raises(NotFound):
        await checked(consents, purpose_id="unheard-of")
