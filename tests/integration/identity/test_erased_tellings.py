"""What identity told of somebody who is erased goes, there and in segments; what is left is told.

Everything is one story, for it takes two services and a log of events that tells them of people.
Each step of it is done once and lost, as by a crash.
"""

import dataclasses
import uuid

import pytest

from rapport.common.v1.subjects_pb2 import (
    ERASURE_STAGE_BYTES,
    EraseSubjectRequest,
    PreviewSubjectErasureRequest,
)
from rapport.common.v1.subjects_pb2_grpc import SubjectsServiceStub
from rapport.events.v1 import events_pb2 as customer_events_pb2
from rapport.events.v1.events_pb2 import CustomerEventsErased
from rapport.identity.v1.events_pb2 import (
    ErasureCreated,
    IdentifiersCut,
    JudgedIdentifier,
    MatchSuggested,
)
from rapport.identity.v1.service_pb2 import GetProfileRequest
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.segments.v1.rule_pb2 import Condition, Rule, TraitCondition, TraitOperator
from rapport.segments.v1.service_pb2 import CreateSegmentRequest, ListSegmentMembersRequest
from rapport.segments.v1.service_pb2_grpc import SegmentsServiceStub
from services.identity import holdings
from services.identity.__main__ import SERVICE as IDENTITY
from services.identity.identifiers import node_of
from services.identity.projections import ProfilesView
from services.identity.projections.history import HistoryView
from services.identity.projections.match_suggestions import MatchSuggestionsView
from services.kernel.erasing import erasing, tombstones
from services.kernel.errors import NotFound, RapportError
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin, read_partition
from services.kernel.log.recorded import EventTypes
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import Service
from services.kernel.testing import eventually
from services.kernel.views.view import append_with_views, digest
from services.segments import holdings as segment_holdings
from services.segments.__main__ import SERVICE as SEGMENTS
from services.segments.projections.facts import ProfileFactsView
from services.segments.projections.segments import SegmentsView
from tests.erased_people import key_of, subject, tables_with
from tests.identity_world import Facts

MARKER = "valparaiso"
EMAIL = f"{MARKER}@x.com"
STEPS = (
    (holdings, "forget_verdicts"),
    (holdings, "forget_suggestions"),
    (holdings, "_told_anew"),
    (holdings, "forget_build"),
    (segment_holdings, "_have_moved_on"),
    (segment_holdings, "forget_members"),
    (segment_holdings, "judge"),
    (tombstones, "overwrite"),
    (erasing, "append_with_views"),
)
STAND_IN = Service(
    name="events", event_types=EventTypes(customer_events_pb2), servicers=lambda _: ()
)


def node(type_name, value):
    return node_of("acme", type_name, value)


def judged(type_name, value):
    return JudgedIdentifier(type=type_name, node=node(type_name, value))


@dataclasses.dataclass
class Platform:
    """Events that say what the test wants, identity, and segments."""

    events: object
    identity: object
    segments: object

    async def happen(self, *facts):
        """Records customer events; answers the token of that write."""
        return await record(self.events, {fact.stream: [fact.event] for fact in facts}, facts[0])

    async def erase_at_source(self, facts, erasure):
        """Their own log erases customer events, and says so."""
        streams = [fact.stream for fact in facts]
        rows = await self.events.kernel.pool.fetch(
            "select event_id from kernel.events where stream = any($1)", streams
        )
        fact = CustomerEventsErased(cause=erasure, event_ids=[row[0].bytes for row in rows])
        return await record(self.events, {"gone-1": [fact]}, because_of=erasure)

    async def own(self, stream, *messages):
        """Identity records facts of its own."""
        return await record(self.identity, {stream: messages})

    async def traits(self, name, token="", workspace="acme"):
        stub = self.identity.stub(IdentityServiceStub, workspace=workspace)
        asked = GetProfileRequest(name=f"profiles/{name}", read_token=token)
        found = (await stub.GetProfile(asked)).profile
        return {trait: said.value for trait, said in found.traits.items()}

    async def members(self, workspace="acme"):
        stub = self.segments.stub(SegmentsServiceStub, workspace=workspace)
        asked = ListSegmentMembersRequest(name="segments/in")
        return {member.profile for member in (await stub.ListSegmentMembers(asked)).members}


async def record(asked, streams, fact=None, because_of=""):
    kernel = asked.kernel
    workspace = "acme" if fact is None else fact.workspace
    appends = [
        Append(
            Origin(workspace, "tests", because_of, ""),
            stream,
            [NewEvent(each) for each in messages],
        )
        for stream, messages in streams.items()
    ]
    async with transaction(kernel.pool) as tx:
        landed = await append_with_views(tx, kernel.log, kernel.views, appends)
    return encode_write_token(kernel.log.service, landed.heads)


@pytest.fixture
async def platform(start_service, postgres):
    name = f"test_{uuid.uuid4().hex}"
    url = await postgres.create_database(name)
    events = await start_service(STAND_IN, database_url=url)
    profiles, history = IDENTITY.consumers
    heard = dataclasses.replace(profiles, sources=("events", "identity"))
    service = dataclasses.replace(IDENTITY, consumers=(heard, history))
    identity = await start_service(service, events=events.address)
    yield Platform(events, identity, await start_service(SEGMENTS, identity=identity.address))
    await postgres.drop_database(name)


async def erase(asked, request, workspace="acme"):
    """Erases until only bytes are left to do; who waits for another, or died, is asked again."""
    stub = asked.stub(SubjectsServiceStub, workspace=workspace)
    while True:
        try:
            response = await stub.EraseSubject(request, timeout=30)
        except RapportError:
            continue
        if response.stage >= ERASURE_STAGE_BYTES:
            return {each.system: each.count for each in response.counts}


@pytest.fixture
def lost(monkeypatch):
    """The steps that were done once, and lost."""
    lost = []

    def crash(module, name):
        real = getattr(module, name)

        async def crashing(*args, **kwargs):
            done = await real(*args, **kwargs)
            if (module, name) not in lost:
                lost.append((module, name))
                raise ConnectionResetError(name)
            return done

        monkeypatch.setattr(module, name, crashing)

    for module, name in STEPS:
        crash(module, name)
    return lost


async def folded_again(pool, view, sources):
    """The digests of a live view, and of one that is folded from the logs as they are now."""
    async with pool.acquire() as connection:
        await connection.execute("drop schema if exists again cascade; create schema again")
        await connection.execute(view.tables("again"))
        for source, event_types in sources:
            batch = event_types.decode_all(await read_partition(source, 0, after=0, limit=10_000))
            async with connection.transaction():
                await view.apply(connection, "again", batch)
        return await digest(connection, view.name), await digest(connection, "again")


async def test_what_was_told_of_an_erased_person_is_gone_and_what_is_left_is_told_anew(
    platform, lost
):
    condition = TraitCondition(trait="city", operator=TraitOperator.TRAIT_OPERATOR_EXISTS)
    for workspace in ("acme", "theirs"):
        stub = platform.segments.stub(SegmentsServiceStub, workspace=workspace)
        rule = Rule(conditions=[Condition(trait=condition)])
        request = CreateSegmentRequest(segment_id="in", display_name="In", rule=rule)
        await stub.CreateSegment(request)
    ours, theirs = Facts(), Facts("theirs")
    # The browser is the erased person's first, and then somebody else's, whom a cut gives it to.
    token = await platform.happen(
        ours.identify(user_id="u1", traits={"email": EMAIL, "city": MARKER}),
        ours.track("Viewed", user_id="u1", anonymous_id="a1", message_id=MARKER),
        ours.sent("group", user_id="u1", group_id="g", traits={"of": MARKER}),
        ours.sent("group", user_id="u2", group_id="g", traits={"size": 7}),
        ours.track("Ordered", anonymous_id="a1"),
        ours.identify(user_id="u2", traits={"city": "Rome"}),
    )
    # What others say of the person names it nowhere but in their own words.
    said_by_others = [
        ours.identify(user_id="u3", traits={"friend": {"email": EMAIL}}),
        ours.sent("account", group_id="h", traits={"contact": EMAIL}),
    ]
    await platform.happen(*said_by_others)
    await platform.happen(theirs.identify(user_id="u1", traits={"city": MARKER}))
    assert (await platform.traits("anonymous_id:a1", token))["city"] == f'"{MARKER}"'
    one, other = judged("user_id", "u1"), judged("anonymous_id", "a1")
    await platform.own("verdict-v1", IdentifiersCut(one=one, other=other, reason=MARKER))
    await platform.own("matchSuggestion-s1", MatchSuggested(one=one, other=judged("user_id", "u2")))

    async def entered():
        assert f"profiles/{node('user_id', 'u2')}" in await platform.members()
        assert len(await platform.members()) == 2
        assert await platform.members("theirs")

    await eventually(entered)
    assert await tables_with(platform.segments.kernel.pool, MARKER)
    known = subject(user_id="u1", email=EMAIL)
    key = key_of()
    subjects = [one, judged("email", EMAIL)]
    asked = EraseSubjectRequest(
        erasure="erasures/e1",
        key=key,
        identifiers=known,
        nodes=[each.node for each in subjects],
    )
    preview = await platform.identity.stub(SubjectsServiceStub).PreviewSubjectErasure(
        PreviewSubjectErasureRequest(identifiers=known)
    )
    assert {each.system for each in preview.counts} == {"log", "profiles"}

    fact = ErasureCreated(erasure="erasures/e1", key=key, subjects=subjects)
    await platform.own("erasure-e1", fact)
    token = await platform.erase_at_source(said_by_others, "erasures/e1")
    assert await platform.traits("user_id:u2", token)
    gone = await erase(platform.identity, asked)
    gone_there = await erase(platform.segments, asked)

    assert set(STEPS) == set(lost)
    assert gone["profiles"]
    assert gone_there["members"]
    await nothing_is_left(platform)
    await all_is_as_if_folded_again(platform)
    # Once more does no harm, and takes nothing.
    assert await erase(platform.identity, asked) == gone
    assert await platform.traits("user_id:u2") == {"city": '"Rome"'}


async def nothing_is_left(platform):
    for pool in (platform.identity.kernel.pool, platform.segments.kernel.pool):
        rows = [
            (table, row)
            for table in await tables_with(pool, MARKER)
            for row in await pool.fetch(f"select t::text as row from {table} t")
            if MARKER in row["row"] or MARKER.encode().hex() in row["row"]
        ]
        assert [(table, row) for table, row in rows if "theirs" not in row["row"]] == []
    with pytest.raises(NotFound):
        await platform.traits("user_id:u1")
    assert (await platform.traits("user_id:u1", workspace="theirs"))["city"] == f'"{MARKER}"'
    assert await platform.members() == {f"profiles/{node('user_id', 'u2')}"}
    assert await platform.members("theirs")


async def all_is_as_if_folded_again(platform):
    identity, segments = platform.identity.kernel, platform.segments.kernel
    own = (identity.pool, identity.event_types)
    events = (platform.events.kernel.pool, EventTypes(customer_events_pb2))
    for view in (HistoryView(), MatchSuggestionsView()):
        live, again = await folded_again(identity.pool, view, [own])
        assert live == again
    live, again = await folded_again(identity.pool, ProfilesView(), [events, own])
    assert live == again

    async def facts_agree():
        live, again = await folded_again(segments.pool, ProfileFactsView(), [own])
        assert live == again

    await eventually(facts_agree)
    log = (segments.pool, segments.event_types)
    live, again = await folded_again(segments.pool, SegmentsView(), [log])
    assert live == again
