"""Match runs suggest who may be one person; only what somebody decides changes a profile."""

import uuid

import pytest

from rapport.identity.v1.events_pb2 import IdentifiersLinked, MatchSuggested
from rapport.identity.v1.match_pb2 import MatchAgreement, MatchClosure, MatchField
from rapport.identity.v1.match_runs_pb2 import MatchRunState
from rapport.identity.v1.match_suggestions_pb2 import (
    MatchStrength,
    MatchSuggestionState,
    SuggestMatchRequest,
)
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.verdicts_pb2 import CutIdentifiersRequest
from services.identity.__main__ import SERVICE
from services.kernel.errors import Aborted, NotFound
from services.kernel.log.log import read_partition
from tests.matching_world import Matching, finding

OPEN = MatchSuggestionState.MATCH_SUGGESTION_STATE_OPEN
ACCEPTED = MatchSuggestionState.MATCH_SUGGESTION_STATE_ACCEPTED
REJECTED = MatchSuggestionState.MATCH_SUGGESTION_STATE_REJECTED
DONE = MatchRunState.MATCH_RUN_STATE_DONE


@pytest.fixture
async def world(database_of):
    async with Matching.open(await database_of(SERVICE)) as world:
        yield world


async def test_a_run_compares_in_its_own_process_and_merges_nobody(world):
    """The one test here that waits for the real comparison."""
    ada = await world.contact("ada", phone="+44 20 7946 0001")
    adah = await world.contact("adah", phone="020 7946 0001")
    # A contact whose address is another's: a rule refused to join them, so they are compared.
    grace = await world.contact("grace", email="navy@example.com")
    alan = await world.contact("alan", email="navy@example.com")

    run = await world.run()

    assert (DONE, 4, 2, 1, 1) == (
        run.state,
        run.counts.profiles,
        run.counts.pairs,
        run.counts.found,
        run.counts.suggested,
    )
    [found] = await world.listed()
    assert {ada, adah} == {found.one_profile, found.other_profile}
    assert {"ada", "adah"} == {found.one.value, found.other.value}
    assert (OPEN, MatchStrength.MATCH_STRENGTH_VERY_LIKELY) == (found.state, found.strength)
    assert ("matchRuns/r1", run.model_version) == (found.run, found.model_version)
    agreements = {said.field: said.agreement for said in found.evidence}
    assert agreements == {
        MatchField.MATCH_FIELD_GIVEN_NAME: MatchAgreement.MATCH_AGREEMENT_ALIKE,
        MatchField.MATCH_FIELD_FAMILY_NAME: MatchAgreement.MATCH_AGREEMENT_EXACT,
        MatchField.MATCH_FIELD_PHONE: MatchAgreement.MATCH_AGREEMENT_EXACT,
        MatchField.MATCH_FIELD_BIRTH_DATE: MatchAgreement.MATCH_AGREEMENT_EXACT,
    }
    assert 4 == len({ada, adah, grace, alan})
    in_the_log = b"".join(
        envelope.SerializeToString() for envelope in await read_partition(world.pool, 0, after=0)
    )
    assert not [value for value in (b"Lovelace", b"lovelace", b"7946") if value in in_the_log]


async def test_accepting_merges_and_rejecting_keeps_apart_for_ever(world, monkeypatch):
    ada, adah, grace = [await world.contact(name) for name in ("ada", "adah", "grace")]
    finding(monkeypatch, (ada, adah, 1500), (ada, grace, 100))
    await world.run()
    likely, unlikely = await world.listed(filter="state = OPEN")
    assert ([1500, 100]) == [likely.weight_hundredths, unlikely.weight_hundredths]

    await world.accept(likely, reason="the same handwriting")
    await world.reject(unlikely)
    await world.follow()

    assert await world.profile("contact_id:ada") == await world.profile("contact_id:adah")
    assert await world.profile("contact_id:ada") != await world.profile("contact_id:grace")
    again = await world.run("r2")
    assert (0, 0, 1) == (again.counts.suggested, again.counts.confirmed, again.counts.decided)
    states = {found.name: found.state for found in await world.listed()}
    assert {likely.name: ACCEPTED, unlikely.name: REJECTED} == states


async def test_a_retried_decision_has_one_effect(world, monkeypatch):
    ada, adah = await world.contact("ada"), await world.contact("adah")
    finding(monkeypatch, (ada, adah, 1500))
    await world.run()
    [found] = await world.listed()
    request_id = str(uuid.uuid4())

    first = await world.accept(found, request_id=request_id, etag=found.etag)
    retried = await world.accept(found, request_id=request_id, etag=found.etag)
    await world.accept(found)

    assert first == retried
    assert 1 == (await world.told()).count("IdentifiersLinked")
    assert 1 == (await world.told()).count("MatchSuggestionAccepted")
    with pytest.raises(Aborted):
        await world.reject(found, etag=found.etag)


async def test_the_reason_is_kept_with_the_verdict_alone(world, monkeypatch):
    ada, adah = await world.contact("ada"), await world.contact("adah")
    finding(monkeypatch, (ada, adah, 1500))
    await world.run()
    [found] = await world.listed()

    await world.accept(found, reason="her own words")

    holding = [
        envelope.type
        for envelope in await read_partition(world.pool, 0, after=0)
        if b"her own words" in envelope.SerializeToString()
    ]
    assert [IdentifiersLinked.DESCRIPTOR.full_name] == holding


async def test_a_run_closes_what_there_is_nothing_to_decide_about(world, monkeypatch):
    ada, adah, grace, alan = [
        await world.contact(name) for name in ("ada", "adah", "grace", "alan")
    ]
    finding(monkeypatch, (ada, adah, 900), (ada, grace, 800), (ada, alan, 700))
    await world.run()
    await world.happens(world.facts.linked(("contact_id", "ada"), ("contact_id", "adah")))
    cut = [Named(type="contact_id", value=name) for name in ("ada", "grace")]
    await world.verdicts.CutIdentifiers(CutIdentifiersRequest(one=cut[0], other=cut[1]))
    await world.follow()

    finding(monkeypatch, profiles=[await world.profile("contact_id:ada"), alan])
    run = await world.run("r2")

    assert 3 == run.counts.closed
    closures = {found.weight_hundredths: found.closure for found in await world.listed()}
    assert closures == {
        900: MatchClosure.MATCH_CLOSURE_ONE_PROFILE,
        800: MatchClosure.MATCH_CLOSURE_CUT,
        700: MatchClosure.MATCH_CLOSURE_UNLIKELY,
    }


async def test_suggestions_are_found_by_profile_strength_and_state(world, monkeypatch):
    ada, adah, grace = [await world.contact(name) for name in ("ada", "adah", "grace")]
    finding(monkeypatch, (ada, adah, 1500), (ada, grace, 200))
    await world.run()

    async def weights(text):
        return [found.weight_hundredths for found in await world.listed(filter=text)]

    assert [1500, 200] == await weights(f'profiles:"{ada}"')
    assert [200] == await weights(f'profiles:"{grace}"')
    assert [1500] == await weights("strength = VERY_LIKELY AND state = OPEN")
    assert [200] == await weights("weight_hundredths < 1000 AND strength = REVIEW")
    assert [] == await weights("state = ACCEPTED")


async def test_a_suggestion_by_hand_needs_no_run_and_waits_for_its_identifiers(world, monkeypatch):
    pair = [Named(type="user_id", value="u1"), Named(type="email", value="Ada@X.com")]
    request = SuggestMatchRequest(one=pair[0], other=pair[1])

    by_hand = (await world.suggestions.SuggestMatch(request)).match_suggestion

    assert (OPEN, "", False) == (
        by_hand.state,
        by_hand.one_profile,
        by_hand.HasField("weight_hundredths"),
    )
    await world.happens(
        world.facts.track(user_id="u1"),
        world.facts.identify(anonymous_id="a1", traits={"email": "ada@x.com"}),
    )
    [found] = await world.listed()
    assert ["u1", "ada@x.com"] == [found.one.value, found.other.value]
    finding(monkeypatch, (found.one_profile, found.other_profile, 300))
    await world.run()
    [weighed] = await world.listed()
    assert (by_hand.name, 300) == (weighed.name, weighed.weight_hundredths)


async def test_another_workspace_sees_and_decides_nothing(world, monkeypatch):
    ada, adah = await world.contact("ada"), await world.contact("adah")
    finding(monkeypatch, (ada, adah, 1500))
    await world.run()
    [found] = await world.listed()
    other = Matching(world.pool, world.kernel, workspace="other")

    assert [] == await other.listed()
    with pytest.raises(NotFound):
        await other.accept(found)
    with pytest.raises(NotFound):
        await other.get_run()


async def test_the_view_built_anew_is_the_same(world, monkeypatch):
    ada, adah, grace = [await world.contact(name) for name in ("ada", "adah", "grace")]
    finding(monkeypatch, (ada, adah, 1500), (ada, grace, 200))
    await world.run()
    await world.accept((await world.listed())[0])
    envelopes = await read_partition(world.pool, 0, after=0)
    events = [world.kernel.event_types.decode(envelope) for envelope in envelopes]
    assert MatchSuggested.DESCRIPTOR.full_name in {event.type for event in events}

    async with world.pool.acquire() as connection, connection.transaction():
        for view in world.kernel.views:
            await connection.execute(f'create schema "{view.name}_g2"')
            await connection.execute(view.tables(f"{view.name}_g2"))
            await view.apply(connection, f"{view.name}_g2", events)
        for table in ("match_runs.runs", "match_suggestions.suggestions"):
            live, name = table.split(".")
            rows = await connection.fetch(f"select * from {live}.{name} order by 1, 2")
            anew = await connection.fetch(f"select * from {live}_g2.{name} order by 1, 2")
            assert rows == anew
