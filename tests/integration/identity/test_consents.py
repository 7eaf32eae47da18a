"""What a profile's consent is follows from what was said, in whatever order it came."""

import random

import pytest

from rapport.identity.v1.consents_pb2 import ListConsentWordsRequest
from rapport.identity.v1.events_pb2 import (
    ConsentDenied,
    ConsentGranted,
    ConsentWithdrawn,
    ProfileConsentChanged,
    ProfileRemoved,
    ProfilesMerged,
)
from services.identity.consents import Status
from services.identity.projections import ProfilesView
from services.identity.projections.consent_answers import consents_of, list_consent_words
from services.kernel.errors import NotFound
from services.kernel.views.view import digest
from tests.consents_reference import strictest
from tests.consents_world import consented, created, have_purposes, preferring, purposes_of
from tests.identity_histories import DenseHistory, another_order
from tests.identity_reference import expected
from tests.identity_world import Facts, apply, at, batches, connected, create
from tests.integration.identity.test_bulk import build

WORKSPACES = 10
FACTS = 40
USER, MAIL, DEVICE = ("user_id", "u1"), ("email", "ada@x.com"), ("anonymous_id", "a1")


def spoken(rng, workspace):
    """A dense history in which people say what they consent to, or somebody records it."""
    return DenseHistory(rng, workspace).some(
        rng.randint(1, FACTS), retracting=4, judging=4, erasing=rng.choice([0, 2]), consenting=6
    )


class Reader:
    """Folds what identity tells of consents, as others do."""

    def __init__(self):
        self.known = {}

    def read(self, changes):
        for change in changes:
            # An event that was read from the log has its workspace itself.
            workspace, event = getattr(change, "cause", change).workspace, change.event
            match event:
                case ProfileConsentChanged():
                    place = (
                        workspace,
                        *(n.partition("/")[2] for n in (event.profile, event.purpose)),
                    )
                    status = Status(event.status).name
                    assert self.known.get(place, "UNKNOWN") != status
                    self.known[place] = status
                case ProfilesMerged():
                    self._end(workspace, event.absorbed)
                case ProfileRemoved():
                    self._end(workspace, event.profile)

    def _end(self, workspace, profile):
        gone = workspace, profile.partition("/")[2]
        self.known = {place: said for place, said in self.known.items() if place[:2] != gone}

    def told(self):
        return {place: status for place, status in self.known.items() if status != "UNKNOWN"}


async def stored(connection, schema):
    rows = await connection.fetch(f"select * from {schema}.consent_statuses")
    return {
        (row["workspace"], row["profile"], row["purpose_id"]): Status(row["status"]).name
        for row in rows
    }


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_order_of_what_was_said_gives_the_same_consents(database, seed):
    rng = random.Random(seed)
    events = [e for n in range(WORKSPACES) for e in spoken(rng, f"w{n}")]
    wanted = strictest(events, expected(events).profile_of)
    async with connected(database) as connection:
        await have_purposes(connection, purposes_of(events))
        digests = []
        for number, largest in enumerate((1_000, 9)):
            schema, reader = f"g{number}", Reader()
            await create(connection, schema)
            for batch in batches(rng, another_order(rng, events), largest):
                reader.read(await apply(connection, batch, schema))
            assert await stored(connection, schema) == wanted
            assert reader.told() == wanted
            digests.append(await digest(connection, schema))
        await build(connection, events)
        digests.append(await digest(connection, "bulk"))

    assert digests[1:] == digests[:-1]


@pytest.fixture
async def mail(people):
    """A purpose of the workspace, and who asks whether somebody consents to it."""
    async with people.pool.acquire() as connection:
        await have_purposes(connection, [created(Facts(), received=0)])

    async def status(name, moment=None):
        _, [(_, stands)] = await consents_of(people.pool, "acme", f"profiles/{name}", moment)
        return stands.at(moment or at(0)).name

    return status


async def test_a_merge_is_strict_and_parting_restores(people, mail):
    facts = Facts()
    await people.happens(
        facts.identify(user_id="u1", context=preferring("marketing")),
        facts.track(anonymous_id="a1", context=preferring()),
    )
    merged = await people.happens(facts.linked(USER, DEVICE))
    together = await mail("user_id:u1")
    parted = await people.happens(facts.cut(USER, DEVICE))

    assert "DENIED" == together
    assert ["GRANTED", "DENIED"] == [await mail("user_id:u1"), await mail("anonymous_id:a1")]
    for told, statuses in ((merged, {"DENIED"}), (parted, {"GRANTED", "DENIED"})):
        changed = [event for event in told if isinstance(event, ProfileConsentChanged)]
        assert statuses == {Status(event.status).name for event in changed}


async def test_another_generation_with_other_consents_tells_the_difference(database):
    facts = Facts()
    agreed = facts.track(anonymous_id="a1", context=preferring("marketing"))
    both = [agreed, facts.track(anonymous_id="a2", context=preferring("marketing"))]
    refused = facts.track(anonymous_id="a1", context=preferring())
    async with connected(database) as connection:
        await have_purposes(connection, [created(Facts(), received=0)])
        for schema, events in (("live", both), ("built", [*both, refused])):
            await create(connection, schema)
            await apply(connection, events, schema)
        async with connection.transaction():
            told = [
                change.event
                async for part in ProfilesView().changes_between(connection, "live", "built")
                for change in part
            ]
        await connection.execute("drop table live.consent_statuses")
        async with connection.transaction():
            parts = ProfilesView().changes_between(connection, "live", "built")
            told_without = [change.event async for part in parts for change in part]

    def statuses(events):
        found = (event for event in events if isinstance(event, ProfileConsentChanged))
        return sorted(Status(event.status).name for event in found)

    assert ["DENIED"] == statuses(told)
    assert ["DENIED", "GRANTED"] == statuses(told_without)


async def test_no_word_says_nothing_and_an_empty_one_refuses(people, mail):
    facts = Facts()
    await people.happens(
        facts.track(anonymous_id="a1", context=preferring("marketing")),
        facts.track(anonymous_id="a1"),
        facts.track(anonymous_id="a1", context={"consent": {}}),
    )
    before = await mail("anonymous_id:a1")
    await people.happens(facts.track(anonymous_id="a1", context=preferring()))

    assert ["GRANTED", "DENIED"] == [before, await mail("anonymous_id:a1")]


async def test_consent_at_a_moment_is_what_was_said_by_then(people, mail):
    facts = Facts()
    ends = {"expire_time": at(40)}
    await people.happens(
        facts.track(anonymous_id="a1", received=9),
        consented(facts, ConsentGranted, DEVICE, received=30, occurred=10, **ends),
        consented(facts, ConsentWithdrawn, DEVICE, received=50, occurred=50),
    )

    moments = {5: "UNKNOWN", 10: "GRANTED", 39: "GRANTED", 40: "EXPIRED", 50: "WITHDRAWN"}
    found = {minute: await mail("anonymous_id:a1", at(minute)) for minute in moments}
    assert moments == found


async def test_an_identifier_may_be_spoken_of_before_anybody_tells_of_it(people, mail):
    facts = Facts()
    await people.happens(consented(facts, ConsentDenied, MAIL))
    alone = await mail("email:ada@x.com")
    told = await people.happens(facts.identify(user_id="u1", traits={"email": "ada@x.com"}))

    assert ["DENIED", "DENIED"] == [alone, await mail("user_id:u1")]
    assert 1 == len([event for event in told if isinstance(event, ProfileConsentChanged)])
    with pytest.raises(NotFound):
        await mail("0" * 32)


async def test_a_word_that_is_taken_back_leaves_the_one_before_it(people, mail):
    facts = Facts()
    right = facts.track(anonymous_id="a1", context=preferring("marketing"))
    wrong = facts.imported(anonymous_id="a1", context=preferring())
    await people.happens(right, wrong)
    before = await mail("anonymous_id:a1")
    told = await people.happens(facts.retracted(wrong))

    assert ["DENIED", "GRANTED"] == [before, await mail("anonymous_id:a1")]
    assert any(isinstance(event, ProfileConsentChanged) for event in told)


async def test_a_refusal_that_is_taken_back_no_longer_binds_another_who_has_its_identifier(
    people, mail
):
    facts, traits = Facts(), {"email": "ada@x.com"}
    agreed = facts.identify(anonymous_id="a1", traits=traits, context=preferring("marketing"))
    wrong = facts.imported("identify", user_id="u1", traits=traits, context=preferring())
    await people.happens(agreed, facts.cut(USER, MAIL), wrong)
    before = await mail("email:ada@x.com")
    told = await people.happens(facts.retracted(wrong))

    assert ["DENIED", "GRANTED"] == [before, await mail("email:ada@x.com")]
    assert [Status.GRANTED] == [
        event.status for event in told if isinstance(event, ProfileConsentChanged)
    ]


async def test_everything_that_was_said_is_listed_the_last_word_first(people, mail):
    facts = Facts()
    await people.happens(
        facts.identify(user_id="u1", anonymous_id="a1", context=preferring("marketing", "ads")),
        consented(facts, ConsentWithdrawn, USER, DEVICE, source="by telephone"),
        facts.track(user_id="u1", context=preferring()),
    )

    async def page(token=""):
        asked = ListConsentWordsRequest(name="profiles/user_id:u1", page_size=2, page_token=token)
        return await list_consent_words(people.pool, "acme", asked)

    first = await page()
    rest = await page(first.next_page_token)
    words = [*first.words, *rest.words]

    assert [[], [], ["ads", "marketing"]] == [list(word.granted_categories) for word in words]
    assert ["", "purposes/mail", ""] == [word.purpose for word in words]
    assert "by telephone" == words[1].source
    assert ["user_id", "anonymous_id"] == list(words[1].identifier_types)
    assert not rest.next_page_token
