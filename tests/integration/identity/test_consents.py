"""What a profile's consent is follows from what was said, in whatever order it came."""

import json
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
from services.identity.facts import key_of
from services.identity.projections import ProfilesView
from services.identity.projections.consent_answers import consents_of, list_consent_words
from services.kernel.errors import NotFound
from services.kernel.log.recorded import utc
from services.kernel.views.view import digest
from tests.consents_world import consented, created, have_purposes, preferring
from tests.erasures_reference import erased_in
from tests.identity_histories import DenseHistory, another_order
from tests.identity_reference import expected, facts_of
from tests.identity_world import Facts, apply, at, batches, connected, create
from tests.integration.identity.test_bulk import build

WORKSPACES = 10
FACTS = 40
PURPOSES = {"mail": {"marketing"}, "ads": {"marketing", "ads"}, "by-hand": set()}
CREATED = 15
BY_HAND = {ConsentGranted: "GRANTED", ConsentDenied: "DENIED", ConsentWithdrawn: "WITHDRAWN"}
USER, MAIL, DEVICE = ("user_id", "u1"), ("email", "ada@x.com"), ("anonymous_id", "a1")


def spoken(rng, workspace):
    """A dense history in which people say what they consent to, or somebody records it."""
    history = DenseHistory(rng, workspace).some(
        rng.randint(1, FACTS), retracting=4, judging=4, erasing=rng.choice([0, 2])
    )
    for event in history:
        sent = getattr(event.event, "customer_event", None)
        if sent is not None and rng.random() < 0.5:
            said = preferring(*(each for each in ("marketing", "ads") if rng.random() < 0.7))
            sent.context = json.dumps({**json.loads(sent.context or "{}"), **said})
    facts = Facts(workspace, seed=rng.random())
    known = [("user_id", "u0"), ("email", "e0@x.com"), ("anonymous_id", "a0"), ("user_id", "u9")]
    for _ in range(rng.randint(0, 8)):
        pairs = rng.sample(known, rng.randint(1, 3))
        times = {"received": rng.randrange(60), "occurred": rng.randrange(60)}
        fact = rng.choice(list(BY_HAND))
        history.append(consented(facts, fact, *pairs, purpose=rng.choice(list(PURPOSES)), **times))
    return history


def sayings(events):
    """All that was ever said: (workspace, atom, nodes, slot, order, {purpose: status})."""
    for fact in facts_of(events):
        if fact.granted is not None:
            heard = {
                name: "GRANTED" if categories <= set(fact.granted) else "DENIED"
                for name, categories in PURPOSES.items()
                if categories and fact.receive_time >= at(CREATED)
            }
            nodes = {known.node for known in fact.identifiers}
            yield fact.workspace, fact.atom, nodes, "", (fact.occur_time, fact.key), heard
    erased = erased_in(events)
    for event in {event.event_id: event for event in events}.values():
        if type(event.event) in BY_HAND:
            said = event.event
            nodes = [known.node for known in said.identifiers]
            order = utc(said.occur_time), key_of(event.record_time, event.event_id)
            if any(order[1] <= erased.get((event.workspace, node), b"") for node in nodes):
                continue
            purpose = said.purpose.removeprefix("purposes/")
            heard = {purpose: BY_HAND[type(said)]}
            yield event.workspace, nodes[0], set(nodes), purpose, order, heard


def strictest(events, profile_of):
    """The consent of each profile to each purpose, said a second time: slowly, word by word."""
    words = list(sayings(events))
    found = {}
    for profile in set(profile_of.values()) - {None}:
        members = {node for node, of in profile_of.items() if of == profile}
        own = [word for word in words if word[2] & members]
        for purpose in PURPOSES:
            stand = [said for node in members if (said := under(node, own, purpose, members))]
            refusals = [said for said in stand if said[1] != "GRANTED"]
            if stand:
                place = own[0][0], profile, purpose
                found[place] = max(refusals or stand)[1]
    return found


def under(node, words, purpose, members):
    """What stands under a node: (order, status), or None."""
    counting = []
    for atom in {word[1] for word in words}:
        said = []
        for slot in ("", purpose):
            of_slot = [w for w in words if node in w[2] and (w[1], w[3]) == (atom, slot)]
            last = max(of_slot, key=lambda word: word[4], default=None)
            if last is not None and purpose in last[5]:
                said.append((last[4], last[5][purpose]))
        if said and (max(said)[1] != "GRANTED" or atom in members):
            counting.append(max(said))
    return max(counting, default=None)


class Reader:
    """Folds what identity tells of consents, as others do."""

    def __init__(self):
        self.known = {}

    def read(self, changes):
        for change in changes:
            workspace, event = change.cause.workspace, change.event
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
    purposes = [
        created(Facts(f"w{n}"), name, sorted(categories), received=CREATED)
        for n in range(WORKSPACES)
        for name, categories in PURPOSES.items()
    ]
    wanted = strictest(events, expected(events).profile_of)
    async with connected(database) as connection:
        await have_purposes(connection, purposes)
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
