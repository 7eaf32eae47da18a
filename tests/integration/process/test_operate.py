"""What an operator asks is answered in full, and what is not there is named."""

from dataclasses import replace

import pytest

from services.kernel.clock import SystemClock
from services.kernel.log.database import transaction
from services.kernel.log.log import read_partition
from services.kernel.process import operate
from services.kernel.process.config import ServiceConfig
from services.kernel.process.runtime import open_pool, prepare_database
from services.kernel.views.checkpoint import Place
from services.kernel.views.parking import Poison, park
from services.kernel.views.projection import Consumer
from tests.tallies import TEXTS, THINGS, Echo, Tallies, text_log, texts

SERVICE = replace(THINGS, consumers=(Consumer(Tallies(), ("things",), TEXTS, Echo()),))
ERASURE = """
insert into kernel.erasures (workspace, erasure, key_time, key_event_id, hashes, nodes, stage,
                             counts, also, feed_partition, feed_position, problem)
values ('acme', 'erasures/e1', now(), gen_random_uuid(), '{}', '{}', 3, '{"log": 7}', '[]', 0, 0,
        'the feed: away')
"""
REASON = "ValueError: [bold]no markup[/bold] " + "a reason that needs many words " * 5


@pytest.fixture
async def ask(database, nats_url):
    """Runs an operator's command on a service of which an event is parked."""
    config = ServiceConfig.from_env(
        "things",
        environ={
            "RAPPORT_DATABASE_URL": database,
            "RAPPORT_NATS_URL": nats_url,
            "RAPPORT_GRPC_ADDRESS": "127.0.0.1:0",
            "RAPPORT_METRICS_ADDRESS": "127.0.0.1:0",
            "RAPPORT_INTERNAL_SECRET": "a secret that the processes of these tests share",
        },
    )
    async with open_pool(database) as pool:
        await prepare_database(pool, SERVICE, 1, SystemClock())
        await pool.execute(ERASURE)
        async with transaction(pool) as tx:
            await text_log().append(tx, [texts("thing-1", "a")])
            [envelope] = await read_partition(tx, 0, after=0)
            await park(tx, Place("tallies", "things", 0), [Poison(envelope, REASON)])

    async def run(*words):
        return await operate.run(SERVICE, config, words)

    return run


async def test_what_is_piped_has_one_line_per_row_and_no_colours(ask, capsys):
    assert await ask("parked") == operate.OK

    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 2
    assert REASON.rstrip() in rows[1]


async def test_a_source_that_the_consumer_does_not_read_is_answered_with_those_it_does(ask, capsys):
    assert await ask("retry", "tallies", "boxes", "0", "acme", "thing-1") == operate.FAILED

    assert capsys.readouterr().err == "retry: tallies reads no source boxes; it reads: things\n"


async def test_a_view_with_a_policy_is_not_swapped_while_something_is_parked(ask, capsys):
    assert await ask("rebuild", "tallies") == operate.OK
    assert await ask("swap", "tallies") == operate.FAILED
    assert "retry the parked events first" in capsys.readouterr().err


async def test_erasures_are_listed_with_what_stands_in_their_way(ask, capsys):
    assert await ask("erasures") == operate.OK

    assert ["acme", "erasures/e1", "FEED", "7", "log", "the", "feed:", "away"] == (
        capsys.readouterr().out.splitlines()[1].split()
    )


async def test_a_proof_looks_into_every_file_and_names_those_that_hold_the_text(
    ask, capsys, tmp_path
):
    (tmp_path / "export.csv").write_text("name\nsomebody in particular\n")
    sought = "somebody in particular"
    assert await ask("prove-erased", sought, f"{tmp_path}") == operate.FAILED
    told = capsys.readouterr()
    (tmp_path / "export.csv").unlink()
    assert await ask("prove-erased", sought, f"{tmp_path}") == operate.OK
    assert await ask("prove-erased", "so", f"{tmp_path}") == operate.FAILED
    assert await ask("prove-erased", sought, f"{tmp_path / 'gone'}") == operate.FAILED

    assert f"{tmp_path}/export.csv: 1\n" == told.out
    assert "prove-erased: 1 files hold that text\n" == told.err
