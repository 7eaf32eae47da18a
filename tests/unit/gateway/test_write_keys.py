"""A write key that was issued at run time is believed as long as the events service says so."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta

import pytest

from gateway.write_keys import AGE_S_MAX, ASKED_AT_ONCE_MAX, KEPT_MAX, WriteKeys
from rapport.events.v1.write_keys_pb2 import ResolveWriteKeyResponse
from services.kernel.clock import FixedClock
from services.kernel.errors import DeadlineExceeded, NotFound, Reason, Unavailable
from services.kernel.testing import eventually

HASH = hashlib.sha256(b"s3cret").digest()


class Events:
    """The events service, which knows one key, and the time that passes."""

    def __init__(self):
        self.now = 0.0
        self.clock = FixedClock()
        self.asked = []
        self.failure = None
        self.answered = asyncio.Event()
        self.answered.set()
        self.response = ResolveWriteKeyResponse(workspace="acme", source="sources/web")
        self.keys = WriteKeys(self.resolve, self.clock, monotonic=lambda: self.now)

    async def resolve(self, request):
        self.asked.append(request)
        await self.answered.wait()
        if self.failure is not None:
            raise self.failure
        if (request.key_id, request.secret_hash) != ("k1", HASH):
            raise NotFound("the write key")
        return self.response

    async def actor(self, key_id="k1", secret="s3cret"):
        caller = await self.keys.caller(key_id, secret)
        return None if caller is None else caller.actor


@pytest.fixture
async def events():
    return Events()


async def test_a_key_stands_for_its_source(events):
    caller = await events.keys.caller("k1", "s3cret")

    assert (caller.workspace, caller.actor) == ("acme", "sources/web")
    assert caller.scopes == {"events.write"}
    assert caller.expire_time == events.clock.now() + timedelta(minutes=2)


async def test_only_the_digest_of_the_secret_leaves(events):
    await events.actor()

    assert [(it.key_id, it.secret_hash) for it in events.asked] == [("k1", HASH)]
    assert b"s3cret" not in events.asked[0].SerializeToString()
    assert "s3cret" not in repr(events.keys._kept)


@pytest.mark.parametrize("secret", ["s3cret", "wrong"])
async def test_an_answer_is_asked_for_once_until_it_is_too_old(events, secret):
    for _ in range(5):
        await events.actor(secret=secret)
    events.now += AGE_S_MAX - 0.01
    await events.actor(secret=secret)
    asked_while_fresh = len(events.asked)
    events.now += 0.02
    await events.actor(secret=secret)

    assert (asked_while_fresh, len(events.asked)) == (1, 2)


async def test_a_revoked_key_is_refused_within_that_time(events):
    await events.actor()
    events.failure = NotFound("the write key")
    events.now += AGE_S_MAX

    assert await events.actor() is None


async def test_a_key_that_expires_is_refused_at_once(events):
    events.response.expire_time.FromDatetime(events.clock.now() + timedelta(milliseconds=10))
    before = await events.actor()
    events.clock.advance(timedelta(milliseconds=10))

    assert (before, await events.actor()) == ("sources/web", None)


@pytest.mark.parametrize(
    "failure",
    [Unavailable("events"), DeadlineExceeded(Reason.DEADLINE_EXCEEDED, "late")],
    ids=["down", "late"],
)
async def test_who_cannot_be_told_is_in_doubt_and_not_refused(events, failure):
    events.failure = failure
    with pytest.raises(Unavailable):
        await events.actor()
    events.failure = None

    assert await events.actor() == "sources/web"


async def test_many_who_wait_for_one_answer_ask_once(events):
    events.answered.clear()
    waiting = [asyncio.create_task(events.actor()) for _ in range(20)]
    await has_asked(events, 1)
    waiting[0].cancel()
    events.answered.set()
    actors = await asyncio.gather(*waiting[1:])

    assert actors == ["sources/web"] * 19
    assert len(events.asked) == 1


async def test_a_flood_of_keys_does_not_drown_the_events_service(events):
    events.answered.clear()
    waiting = [
        asyncio.create_task(events.actor(secret=f"guess {number}"))
        for number in range(ASKED_AT_ONCE_MAX)
    ]
    await has_asked(events, ASKED_AT_ONCE_MAX)
    with pytest.raises(Unavailable):
        await events.actor()
    events.answered.set()

    assert await asyncio.gather(*waiting) == [None] * ASKED_AT_ONCE_MAX
    assert await events.actor() == "sources/web"


async def test_only_so_many_answers_are_kept(events):
    for number in range(KEPT_MAX + 5):
        await events.actor(secret=str(number))

    assert len(events.keys._kept) == KEPT_MAX


@pytest.mark.parametrize("key_id", ["", "a" * 101, "k\0", "k 1", "ké"])
async def test_what_can_be_no_id_is_not_asked_for(events, key_id):
    assert await events.actor(key_id) is None
    assert await events.actor("k1", "") is None
    assert events.asked == []


async def has_asked(events, count):
    def asked():
        assert len(events.asked) == count

    await eventually(asked)
