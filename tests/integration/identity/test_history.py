"""What became of profiles is listed with its cause, and so is what people decided."""

from dataclasses import replace
from datetime import UTC, timedelta

import pytest

from rapport.identity.v1 import flags_pb2, verdicts_pb2
from rapport.identity.v1 import history_pb2 as pb
from rapport.identity.v1.flags_pb2_grpc import FlagsServiceStub
from rapport.identity.v1.history_pb2_grpc import HistoryServiceStub
from rapport.identity.v1.service_pb2 import GetProfileRequest, Identifier
from rapport.identity.v1.service_pb2_grpc import IdentityServiceStub
from rapport.identity.v1.verdicts_pb2_grpc import VerdictsServiceStub
from services.identity.__main__ import SERVICE
from services.identity.projections import past
from services.identity.rules import DEFAULT, Rules
from services.kernel.clock import SystemClock
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.database import transaction
from services.kernel.log.log import read_heads
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import prepare_database
from services.kernel.views.projection import fold
from tests.identity_world import Facts

CREATED, MERGED, ABSORBED, SPLIT, SPLIT_OFF, REMOVED = (
    getattr(pb.ProfileHistoryKind, f"PROFILE_HISTORY_KIND_{name}")
    for name in ("CREATED", "MERGED", "ABSORBED", "SPLIT", "SPLIT_OFF", "REMOVED")
)
LINK, CUT = verdicts_pb2.VerdictKind.VERDICT_KIND_LINK, verdicts_pb2.VerdictKind.VERDICT_KIND_CUT
PROFILES, HISTORY = SERVICE.consumers


class Identity:
    """The service, which follows its own log; facts of others come when a test says so."""

    def __init__(self, asked):
        self.kernel = asked.kernel
        self.profiles = asked.stub(IdentityServiceStub)
        self.history = asked.stub(HistoryServiceStub)
        self.verdicts = asked.stub(VerdictsServiceStub)
        self.flags = asked.stub(FlagsServiceStub)

    async def happens(self, *events):
        """Applies events as one batch, as the consumer does."""
        async with transaction(self.kernel.pool) as tx:
            await fold(tx, self.kernel.log, PROFILES, events)

    async def token(self):
        """Proof of all that is recorded."""
        return encode_write_token("identity", await read_heads(self.kernel.pool))

    async def named(self, name, **asked):
        request = GetProfileRequest(name=f"profiles/{name}", **asked)
        return (await self.profiles.GetProfile(request)).profile

    async def listed(self, name, **asked):
        """A page of what became of a profile."""
        name = name if name.startswith("profiles/") else f"profiles/{name}"
        request = pb.ListProfileHistoryRequest(name=name, read_token=await self.token(), **asked)
        return await self.history.ListProfileHistory(request)

    async def decide(self, verb, one, other, reason):
        """Gives a verdict, or takes it back."""
        request = getattr(verdicts_pb2, f"{verb}Request")(
            one=identifier(one), other=identifier(other), reason=reason
        )
        return (await getattr(self.verdicts, verb)(request)).write_token

    async def verdicts_found(self, **asked):
        """The verdicts of a list, each by its kind and reason."""
        request = verdicts_pb2.ListVerdictsRequest(read_token=await self.token(), **asked)
        found = (await self.verdicts.ListVerdicts(request)).verdicts
        return [(verdict.kind, verdict.reason) for verdict in found]


def identifier(name):
    type_name, _, value = name.partition(":")
    return Identifier(type=type_name, value=value)


@pytest.fixture
async def identity(start_service):
    consumers = (replace(PROFILES, sources=("identity",)), HISTORY)
    asked = await start_service(replace(SERVICE, consumers=consumers))
    await prepare_database(asked.kernel.pool, SERVICE, 1, SystemClock())
    return Identity(asked)


@pytest.fixture
def facts():
    return Facts()


def kinds(page):
    return [entry.kind for entry in page.entries]


async def test_what_became_of_a_profile_is_listed_with_its_cause_newest_first(identity, facts):
    await identity.happens(facts.track(anonymous_id="a1"))
    await identity.happens(facts.track(user_id="u1"))
    survivor, absorbed = [(await identity.named(n)).name for n in ("anonymous_id:a1", "user_id:u1")]
    joining = facts.imported("identify", user_id="u1", anonymous_id="a1")
    await identity.happens(joining)
    taken_back = facts.retracted(joining)
    await identity.happens(taken_back)

    page = await identity.listed(survivor)
    assert [SPLIT, MERGED, CREATED] == kinds(page)
    split, merged, created = page.entries
    assert ["", absorbed, absorbed] == [e.other_profile for e in (created, merged, split)]
    assert created.record_time.ToDatetime() < merged.record_time.ToDatetime()
    resource = f"customerEvents/{joining.event.customer_event.message_id}"
    assert pb.ProfileHistoryCause(
        event_id=str(joining.event_id), activity="Person Identified", resource=resource
    ) == (merged.cause)
    assert pb.ProfileHistoryCause(event_id=str(taken_back.event_id), is_retraction=True) == (
        split.cause
    )
    assert [SPLIT_OFF, CREATED, ABSORBED, CREATED] == kinds(await identity.listed(absorbed))
    assert (await identity.listed("user_id:u1")) == await identity.listed(absorbed)


async def test_a_history_is_filtered_and_walked_and_nobody_else_has_one(identity, facts):
    await identity.happens(facts.track(user_id="u1"))
    for number in range(3):
        await identity.happens(facts.track(anonymous_id=f"a{number}"))
        await identity.happens(facts.track(user_id="u1", anonymous_id=f"a{number}"))

    whole = await identity.listed("user_id:u1")
    first = await identity.listed("user_id:u1", page_size=3)
    second = await identity.listed("user_id:u1", page_size=3, page_token=first.next_page_token)
    assert [MERGED, MERGED, MERGED, CREATED] == kinds(whole)
    assert list(whole.entries) == [*first.entries, *second.entries]
    assert not second.next_page_token
    asked = (
        f'kind = PROFILE_HISTORY_KIND_MERGED AND other_profile = "{whole.entries[1].other_profile}"'
    )
    assert [whole.entries[1]] == list((await identity.listed("user_id:u1", filter=asked)).entries)
    for unknown in ("user_id:u2", "0" * 32):
        with pytest.raises(NotFound):
            await identity.listed(unknown)


async def test_whoever_decided_is_told_with_what_became_of_it(identity, facts):
    await identity.happens(facts.track(user_id="u1"), facts.track(anonymous_id="a1"))
    token = await identity.decide("LinkIdentifiers", "user_id:u1", "anonymous_id:a1", "one phone")
    await identity.named("user_id:u1", read_token=token)

    merged = (await identity.listed("user_id:u1")).entries[0]

    verdict = merged.cause.verdict
    assert (MERGED, LINK, "one phone") == (merged.kind, verdict.kind, verdict.reason)
    assert ("user_id", "u1", "api_keys/tests") == (
        verdict.one.type,
        verdict.one.value,
        verdict.actor,
    )
    assert not merged.cause.is_retraction


async def test_whoever_blocked_an_identifier_is_told_with_what_became_of_it(identity, facts):
    await identity.happens(facts.track(user_id="u1"), facts.track(anonymous_id="a1"))
    await identity.happens(facts.track(user_id="u1", anonymous_id="a1"))
    request = flags_pb2.BlockIdentifierRequest(
        identifier=identifier("anonymous_id:a1"), reason="a kiosk"
    )
    token = (await identity.flags.BlockIdentifier(request)).write_token
    await identity.named("user_id:u1", read_token=token)

    split = (await identity.listed("user_id:u1")).entries[0]

    flag = split.cause.flag
    assert (SPLIT, flags_pb2.FlagKind.FLAG_KIND_BLOCK, "a kiosk") == (
        split.kind,
        flag.kind,
        flag.reason,
    )
    assert ("anonymous_id", "a1", "api_keys/tests") == (
        flag.identifier.type,
        flag.identifier.value,
        flag.actor,
    )
    assert not split.cause.is_retraction


async def test_a_moment_is_answered_as_it_was_and_the_future_is_refused(identity, facts):
    await identity.happens(facts.track(anonymous_id="a1"), facts.track(user_id="u1"))
    then = SystemClock().now()
    await identity.happens(facts.identify(user_id="u1", anonymous_id="a1", traits={"plan": "pro"}))

    past = await identity.named("user_id:u1", read_time=timestamp_of(then))
    now = await identity.named("user_id:u1", read_time=timestamp_of(SystemClock().now()))
    live = await identity.named("user_id:u1")
    assert ["user_id"] == [known.type for known in past.identifiers]
    assert ({}, 1) == (dict(past.traits), past.activity_count)
    assert (live.identifiers, live.name) == (now.identifiers, now.name)
    assert live.traits["plan"].value == now.traits["plan"].value
    later = SystemClock().now() + timedelta(hours=1)
    with pytest.raises(InvalidArgument, match="future"):
        await identity.named("user_id:u1", read_time=timestamp_of(later))


async def test_the_time_of_an_entry_asks_for_the_profile_as_it_was_just_after_it(identity, facts):
    await identity.happens(facts.track(anonymous_id="a1"))
    await identity.happens(facts.track(user_id="u1"))
    joining = facts.imported("identify", user_id="u1", anonymous_id="a1")
    await identity.happens(joining)
    await identity.happens(facts.retracted(joining))
    split, merged, created = (await identity.listed("anonymous_id:a1")).entries

    async def types_at(moment):
        then = await identity.named("anonymous_id:a1", read_time=moment)
        return [known.type for known in then.identifiers]

    def just_before(entry):
        before = entry.record_time.ToDatetime(tzinfo=UTC) - timedelta(microseconds=1)
        return timestamp_of(before)

    assert await types_at(created.record_time) == ["anonymous_id"]
    assert await types_at(just_before(merged)) == ["anonymous_id"]
    assert await types_at(merged.record_time) == ["user_id", "anonymous_id"]
    assert await types_at(just_before(split)) == ["user_id", "anonymous_id"]
    assert await types_at(split.record_time) == ["anonymous_id"]
    with pytest.raises(NotFound):
        await types_at(just_before(created))


async def test_what_was_of_a_type_that_the_rules_no_longer_know_is_told_as_it_was(
    identity, facts, monkeypatch
):
    await identity.happens(facts.identify(user_id="u1", anonymous_id="a1"))

    async def without_browsers(*_):
        return Rules(DEFAULT.types[:2])

    monkeypatch.setattr(past, "rules_of", without_browsers)
    then = await identity.named("user_id:u1", read_time=timestamp_of(SystemClock().now()))

    assert ["user_id", "anonymous_id"] == [known.type for known in then.identifiers]


async def test_verdicts_are_listed_in_force_and_taken_back(identity, facts):
    await identity.happens(facts.track(user_id="u1"), facts.track(anonymous_id="a1"))
    pair = "user_id:u1", "anonymous_id:a1"
    await identity.decide("LinkIdentifiers", *pair, "one phone")
    await identity.decide("CutIdentifiers", *pair, "two people")
    await identity.decide("LinkIdentifiers", "user_id:u1", "email:u1@x.com", "she says so")
    await identity.decide("ClearVerdict", *pair, "who knows")

    link, cut, other = (LINK, "one phone"), (CUT, "two people"), (LINK, "she says so")
    assert [other, cut, link] == await identity.verdicts_found()
    assert [other] == await identity.verdicts_found(filter="is_in_force = true")
    assert [cut] == await identity.verdicts_found(filter="kind = VERDICT_KIND_CUT")
    assert [] == await identity.verdicts_found(filter='actor = "api_keys/others"')
    assert [cut, link] == await identity.verdicts_found(identifier=identifier("anonymous_id:a1"))
    assert [other] == await identity.verdicts_found(
        identifier=identifier("email:U1@x.com"), filter='actor = "api_keys/tests"'
    )
    request = verdicts_pb2.ListVerdictsRequest(page_size=1)
    page = await identity.verdicts.ListVerdicts(request)
    request.page_token = page.next_page_token
    [ended] = (await identity.verdicts.ListVerdicts(request)).verdicts
    assert ("who knows", "api_keys/tests") == (ended.end_reason, ended.end_actor)
    assert ("u1", "a1") == (ended.one.value, ended.other.value)
    assert ended.HasField("end_time")
