"""A read that carries a write token never answers with less than that write."""

import asyncio

import asyncpg
import pytest

from services.kernel.errors import DeadlineExceeded, InvalidArgument
from services.kernel.log.tables import create_kernel_tables
from services.kernel.log.tokens import encode_write_token
from services.kernel.views.checkpoint import Place, create_checkpoint
from services.kernel.views.freshness import WANTED_CHANNEL, Freshness

MOVE = "update kernel.checkpoints set position = $1"


@pytest.fixture
async def pool(database):
    made = await asyncpg.create_pool(database, min_size=1, max_size=3)
    async with made.acquire() as connection:
        await create_kernel_tables(connection, 1)
    await create_checkpoint(made, Place("profiles", "contacts", 0), 5)
    yield made
    await made.close()


@pytest.fixture
def freshness(pool):
    return Freshness(pool, "contacts", {"profiles": ("contacts", "events")})


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr("services.kernel.views.freshness.WAIT_DEFAULT_S", 0.3)


async def test_a_view_that_is_far_enough_is_read_at_once(freshness):
    await freshness.wait("profiles", encode_write_token("contacts", {0: 5}))


async def test_no_token_asks_for_nothing(freshness):
    await freshness.wait("profiles", "")


async def test_a_view_that_stays_behind_is_an_error_that_says_so(freshness):
    with pytest.raises(DeadlineExceeded) as caught:
        await freshness.wait("profiles", encode_write_token("contacts", {0: 6}))

    assert (caught.value.reason, caught.value.metadata) == ("VIEW_BEHIND", {"view": "profiles"})


async def test_a_source_that_the_view_has_not_begun_to_read_is_waited_for(freshness):
    with pytest.raises(DeadlineExceeded):
        await freshness.wait("profiles", encode_write_token("events", {0: 1}))


async def test_tokens_of_logs_that_the_view_does_not_read_are_ignored(freshness):
    await freshness.wait("profiles", encode_write_token("segments", {0: 99}))


async def test_a_view_that_is_read_at_once_waits_for_nothing(freshness):
    await freshness.wait("contacts", encode_write_token("contacts", {0: 99}))


@pytest.mark.parametrize("woken", [True, False])
async def test_a_waiting_read_goes_on_when_the_view_arrives(freshness, pool, monkeypatch, woken):
    """Also when the notification is lost, though later."""
    monkeypatch.setattr("services.kernel.views.freshness.WAIT_DEFAULT_S", 5)
    waiting = asyncio.create_task(
        freshness.wait("profiles", encode_write_token("contacts", {0: 6}))
    )
    await asyncio.wait({waiting}, timeout=0.05)
    assert not waiting.done()

    await pool.execute(MOVE, 6)
    if woken:
        freshness.wake("profiles")

    await waiting


async def test_a_waiting_read_says_in_all_processes_that_the_view_is_wanted(
    freshness, pool, database
):
    """Whoever follows the own log there may be pausing; a foreign log's view never does."""
    listening, told = await asyncpg.connect(database), asyncio.Queue()
    await listening.add_listener(WANTED_CHANNEL, lambda *heard: told.put_nowait(heard[-1]))
    tokens = [encode_write_token(service, {0: 6}) for service in ("events", "contacts")]

    for token in tokens:
        with pytest.raises(DeadlineExceeded):
            await freshness.wait("profiles", token)

    await pool.execute("select pg_notify($1, 'end')", WANTED_CHANNEL)
    async with asyncio.timeout(10):
        assert ["profiles", "end"] == [await told.get(), await told.get()]
    await listening.close()


async def test_a_notification_wakes_all_waiting_reads_also_while_others_begin(freshness, pool):
    """Without an event for each wait the second read cleared the wake-up of the first."""
    reading, go_on = asyncio.Event(), asyncio.Event()

    class SlowOnce:
        execute = pool.execute

        async def fetch(self, *query):
            rows = await pool.fetch(*query)
            if not reading.is_set():
                reading.set()
                await go_on.wait()
            return rows

    freshness._pool = SlowOnce()
    token = encode_write_token("contacts", {0: 6})
    first = asyncio.create_task(freshness.wait("profiles", token))
    await reading.wait()
    await pool.execute(MOVE, 6)
    freshness.wake("profiles")
    await freshness.wait("profiles", token)
    go_on.set()

    await first  # little patience is less than the safety poll


@pytest.mark.parametrize("token", ["%%%", "abc", "ZZZZ" * 50, "é"])
async def test_a_token_that_no_write_returned_is_refused(freshness, token):
    with pytest.raises(InvalidArgument) as caught:
        await freshness.wait("profiles", token)

    assert caught.value.reason == "READ_TOKEN_INVALID"
    assert caught.value.violations[0].field == "read_token"
