"""From a write in contacts, deals or events to the profile: over real feeds, in one piece."""

import pytest

from rapport.contacts.v1.service_pb2 import ChangeContactEmailRequest, CreateContactRequest
from rapport.contacts.v1.service_pb2_grpc import ContactsServiceStub
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from rapport.events.v1.events_pb2 import CustomerEventRecorded, CustomerEventRetracted
from rapport.events.v1.service_pb2 import RecordCustomerEventsRequest
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.identity.v1.events_pb2 import ProfileActivityRecorded, ProfileSplit
from rapport.identity.v1.explanations_pb2 import (
    ExplainPairRequest,
    ExplainProfileRequest,
    PairRelation,
)
from rapport.identity.v1.explanations_pb2_grpc import ExplanationsServiceStub
from rapport.identity.v1.flags_pb2 import (
    AllowIdentifierRequest,
    BlockIdentifierRequest,
    ClearIdentifierFlagRequest,
    FlagKind,
    ListIdentifierFlagsRequest,
)
from rapport.identity.v1.flags_pb2_grpc import FlagsServiceStub
from rapport.identity.v1.service_pb2 import (
    GetProfileRequest,
    ListProfilesRequest,
    ListTimelineRequest,
)
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.identity.v1.verdicts_pb2 import (
    ClearVerdictRequest,
    CutIdentifiersRequest,
    LinkIdentifiersRequest,
    VerdictKind,
)
from rapport.identity.v1.verdicts_pb2_grpc import VerdictsServiceStub
from services.contacts.__main__ import SERVICE as CONTACTS
from services.deals.__main__ import SERVICE as DEALS
from services.events.__main__ import SERVICE as EVENTS
from services.identity import decider
from services.identity.__main__ import SERVICE as IDENTITY
from services.kernel.errors import Aborted, InvalidArgument, NotFound, ResourceExhausted
from services.kernel.log.database import transaction
from services.kernel.log.log import (
    ANY_VERSION,
    Append,
    NewEvent,
    Origin,
    read_all,
    read_heads,
    read_partition,
)
from services.kernel.testing import eventually
from services.kernel.views.rebuild import Rebuild

SERVICES = (CONTACTS, DEALS, EVENTS, IDENTITY)
USER = Named(type="user_id", value="u1")


@pytest.fixture
async def platform(start_service):
    """The four services, by name."""
    started = {}
    for service in SERVICES:
        peers = {name: started[name].address for name in service.peers}
        started[service.name] = await start_service(service, **peers)
    return started


async def told(identity):
    """What identity has recorded."""
    head = (await read_heads(identity.kernel.pool))[0]
    found = []
    async for batch in read_all(identity.kernel.pool, 0, after=0, until=head):
        found += [identity.kernel.event_types.decode(envelope) for envelope in batch]
    return found


async def known_person(platform):
    """A person who bought something and is a contact; returns the token of the last write."""
    events = platform["events"].stub(EventsServiceStub)
    contacts = platform["contacts"].stub(ContactsServiceStub)
    await events.RecordCustomerEvents(
        RecordCustomerEventsRequest(
            customer_events=[
                CustomerEvent(
                    message_id="m1",
                    type=CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY,
                    user_id="u1",
                    traits='{"email": "ada@example.com", "plan": "gold"}',
                ),
                CustomerEvent(
                    message_id="m2",
                    type=CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
                    name="Order Completed",
                    user_id="u1",
                    anonymous_id="a1",
                ),
            ]
        )
    )
    created = await contacts.CreateContact(
        CreateContactRequest(contact_id="ada", given_name="Ada", email="ada@example.com")
    )
    return created.write_token


async def test_a_read_with_the_token_of_a_write_sees_it_in_the_profile(platform):
    token = await known_person(platform)
    identity = platform["identity"].stub(IdentityServiceStub)

    async def whole():
        asked = GetProfileRequest(name="profiles/email:Ada@example.com", read_token=token)
        profile = (await identity.GetProfile(asked)).profile
        assert {f"{known.type}:{known.value}" for known in profile.identifiers} == {
            "contact_id:ada",
            "user_id:u1",
            "email:ada@example.com",
            "anonymous_id:a1",
        }
        return profile

    # The token is of contacts: what events recorded before may still be on its way.
    profile = await eventually(whole)
    assert profile.traits["plan"].value == '"gold"'
    listed = await identity.ListProfiles(ListProfilesRequest(filter='traits.plan = "gold"'))
    assert [profile] == list(listed.profiles)
    timeline = await identity.ListTimeline(ListTimelineRequest(name="profiles/contact_id:ada"))
    assert {entry.activity for entry in timeline.entries} == {
        "Contact Created",
        "Order Completed",
        "Person Identified",
    }


async def test_every_fact_of_ours_names_the_fact_it_follows_from(platform):
    await known_person(platform)
    contacts = platform["contacts"].stub(ContactsServiceStub)
    identity = platform["identity"]

    async def activities():
        found = [e for e in await told(identity) if isinstance(e.event, ProfileActivityRecorded)]
        assert len(found) == 3
        return found

    await eventually(activities)
    await contacts.ChangeContactEmail(
        ChangeContactEmailRequest(name="contacts/ada", email="new@example.com")
    )

    async def split():
        found = [e for e in await told(identity) if isinstance(e.event, ProfileSplit)]
        assert len(found) == 1
        return found[0]

    event = await eventually(split)
    [(envelope, *_)] = [
        [e for e in batch if e.type.endswith("ContactEmailChanged")]
        async for batch in read_all(platform["contacts"].kernel.pool, 0, after=0, until=2)
    ]
    assert event.causation_id == envelope.event_id
    assert event.correlation_id == envelope.correlation_id
    assert event.actor == "services/identity"
    assert event.stream == "profile-" + event.event.profile.removeprefix("profiles/")


async def test_a_rebuild_beside_gives_the_same_rows(platform):
    await known_person(platform)
    identity = platform["identity"]

    async def reached():
        assert (
            len([e for e in await told(identity) if isinstance(e.event, ProfileActivityRecorded)])
            == 3
        )

    await eventually(reached)
    before = await told(identity)

    comparison = await rebuilt(platform)

    assert comparison.equal
    assert await told(identity) == before


async def test_an_import_that_was_undone_leaves_nothing_live_or_rebuilt(platform):
    await known_person(platform)
    identity = platform["identity"]
    wrong = CustomerEvent(
        message_id="m3",
        type=CustomerEventType.CUSTOMER_EVENT_TYPE_IDENTIFY,
        user_id="u1",
        traits='{"plan": "wrong", "email": "wrong@example.com"}',
        import_name="imports/i1",
    )
    await append(platform["events"], "m3", CustomerEventRecorded(customer_event=wrong))
    stub = identity.stub(IdentityServiceStub)
    asked = GetProfileRequest(name="profiles/email:wrong@example.com")

    async def heard():
        try:
            return (await stub.GetProfile(asked)).profile
        except NotFound:
            raise AssertionError("not heard of yet") from None

    assert (await eventually(heard)).traits["plan"].value == '"wrong"'
    retracted = CustomerEventRetracted(message_id="m3", import_name="imports/i1")
    await append(platform["events"], "m3", retracted)

    async def forgotten():
        found = await stub.GetProfile(GetProfileRequest(name="profiles/user_id:u1"))
        assert found.profile.traits["plan"].value == '"gold"'

    await eventually(forgotten)
    with pytest.raises(NotFound):
        await stub.GetProfile(asked)
    assert (await rebuilt(platform)).equal


async def append(service, message_id, fact):
    """Appends a fact about a message to the log of events."""
    origin = Origin("acme", "tests", "", "")
    new = Append(origin, f"message-{message_id}", [NewEvent(fact)], ANY_VERSION)
    async with transaction(service.kernel.pool) as tx:
        await service.kernel.log.append(tx, [new])


async def rebuilt(platform):
    """Builds identity's view beside the live one, swaps it in; answers how they compare."""
    consumer = IDENTITY.consumers[0]
    readers = {name: _reader(platform[name]) for name in consumer.sources}
    kernel = platform["identity"].kernel
    rebuild = Rebuild.of_consumer(kernel.pool, kernel.log, consumer, readers)
    async for _ in rebuild.build():
        pass
    return await rebuild.swap()


async def test_a_verdict_is_in_the_profile_that_its_token_asks_for_live_and_rebuilt(platform):
    await known_person(platform)
    identity = platform["identity"].stub(IdentityServiceStub)
    verdicts = platform["identity"].stub(VerdictsServiceStub)

    async def known_by(name, token=""):
        asked = GetProfileRequest(name=f"profiles/{name}", read_token=token)
        try:
            found = (await identity.GetProfile(asked)).profile
        except NotFound:
            return set()
        return {known.type for known in found.identifiers}

    async def whole():
        everything = {"contact_id", "user_id", "email", "anonymous_id"}
        assert await known_by("user_id:u1") == everything

    await eventually(whole)
    about = {"one": Named(type="contact_id", value="ada"), "other": USER}
    cut = await verdicts.CutIdentifiers(CutIdentifiersRequest(**about, reason="her brother"))
    assert await known_by("user_id:u1", cut.write_token) == {"user_id", "anonymous_id"}
    assert cut.verdict.kind == VerdictKind.VERDICT_KIND_CUT
    assert (cut.verdict.reason, cut.verdict.etag) == ("her brother", '"1"')
    assert (await rebuilt(platform)).equal
    explanations = platform["identity"].stub(ExplanationsServiceStub)
    why = await explanations.ExplainPair(ExplainPairRequest(**about))
    assert why.relation == PairRelation.PAIR_RELATION_REFUSED
    assert why.verdict.reason == "her brother"
    asked = ExplainProfileRequest(name="profiles/user_id:u1")
    assert [each.other.type for each in (await explanations.ExplainProfile(asked)).refused] == [
        "email"
    ]
    cleared = await verdicts.ClearVerdict(ClearVerdictRequest(**about))

    assert await known_by("contact_id:ada", cleared.write_token) >= {"user_id", "anonymous_id"}
    assert (await rebuilt(platform)).equal


async def test_an_identifier_has_a_bounded_number_of_verdicts(platform, monkeypatch):
    monkeypatch.setattr(decider, "VERDICTS_PER_IDENTIFIER_MAX", 2)
    verdicts = platform["identity"].stub(VerdictsServiceStub)
    identity = platform["identity"].stub(IdentityServiceStub)

    async def link(value, token=""):
        # The view is asked how many there are, so it has to have got that far.
        if token:
            await identity.ListProfiles(ListProfilesRequest(read_token=token))
        other = Named(type="anonymous_id", value=value)
        return await verdicts.LinkIdentifiers(LinkIdentifiersRequest(one=USER, other=other))

    token = (await link("a1")).write_token
    token = (await link("a2", token)).write_token
    with pytest.raises(ResourceExhausted) as refused:
        await link("a3", token)
    assert refused.value.metadata["limit"] == "VERDICTS_PER_IDENTIFIER_MAX"
    again = await link("a2")
    taken_back = await verdicts.ClearVerdict(
        ClearVerdictRequest(one=USER, other=Named(type="anonymous_id", value="a1"))
    )

    assert again.verdict.etag == '"1"'
    assert (await link("a3", taken_back.write_token)).verdict.etag == '"1"'


async def test_a_flag_is_decided_once_and_only_as_the_version_that_was_seen(platform):
    flags = platform["identity"].stub(FlagsServiceStub)
    tablet = Named(type="anonymous_id", value=" tablet ")

    blocked = await flags.BlockIdentifier(BlockIdentifierRequest(identifier=tablet, reason="kiosk"))
    again = await flags.BlockIdentifier(BlockIdentifierRequest(identifier=tablet))
    with pytest.raises(Aborted):
        await flags.AllowIdentifier(AllowIdentifierRequest(identifier=tablet, etag='"2"'))
    allowed = await flags.AllowIdentifier(AllowIdentifierRequest(identifier=tablet, etag='"1"'))
    cleared = await flags.ClearIdentifierFlag(ClearIdentifierFlagRequest(identifier=tablet))
    asked = ListIdentifierFlagsRequest(read_token=cleared.write_token)

    assert (blocked.flag.identifier.value, blocked.flag.reason) == ("tablet", "kiosk")
    assert again.flag.etag == blocked.flag.etag == '"1"'
    assert allowed.flag.kind == FlagKind.FLAG_KIND_ALLOW
    assert list((await flags.ListIdentifierFlags(asked)).flags) == []
    for wrong in (Named(type="Shoe", value="43"), Named(type="email", value="guest")):
        with pytest.raises(InvalidArgument):
            await flags.BlockIdentifier(BlockIdentifierRequest(identifier=wrong))


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (Named(type="Shoe Size", value="43"), "other.type"),
        (Named(type="email", value="guest"), "other.value"),
        (Named(type="user_id", value=" u1 "), "other"),
    ],
)
async def test_what_is_no_identifier_or_the_same_one_is_refused_by_name(platform, other, field):
    verdicts = platform["identity"].stub(VerdictsServiceStub)

    with pytest.raises(InvalidArgument) as refused:
        await verdicts.LinkIdentifiers(LinkIdentifiersRequest(one=USER, other=other))

    assert [violation.field for violation in refused.value.violations] == [field]


async def test_a_wrong_name_is_told_as_such(platform):
    identity = platform["identity"].stub(IdentityServiceStub)
    for name, error in (
        ("profiles/email:nobody@example.com", NotFound),
        ("profiles/Shoe Size:43", InvalidArgument),
        ("profiles/shoe_size:43", NotFound),
        ("contacts/ada", InvalidArgument),
    ):
        with pytest.raises(error):
            await identity.GetProfile(GetProfileRequest(name=name))
        with pytest.raises(error):
            await identity.ListTimeline(ListTimelineRequest(name=name))


def _reader(asked):
    """Reads a service's log from its database."""

    async def read(partition, after, limit):
        return await read_partition(asked.kernel.pool, partition, after=after, limit=limit)

    return read
