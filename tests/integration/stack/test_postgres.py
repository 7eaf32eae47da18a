"""The embedded PostgreSQL keeps what it acknowledged and never outlives who started it."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from deploy.stack.errors import StackError
from deploy.stack.postgres import Postgres
from deploy.stack.settings import Settings
from services.kernel.testing import eventually

STARTS_AND_WAITS = """
import pathlib, sys, threading
from deploy.stack.postgres import Postgres
from deploy.stack.settings import Settings
server = Postgres(pathlib.Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
threading.Event().wait()
"""


def server_in(directory, **options):
    return Postgres(directory, bin_dir=Settings.from_env().postgres_bin, **options)


async def query(url: str, sql: str):
    connection = await asyncpg.connect(url, timeout=5)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_only_what_is_thrown_away_is_less_than_durable(own_postgres, postgres):
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        assert await query(own_postgres.url("postgres"), f"show {setting}") == "on"

    assert await query(postgres.url("postgres"), "show synchronous_commit") == "on"
    assert await query(postgres.url("postgres"), "show fsync") == "off"


async def test_a_killed_server_recovers_every_committed_row(own_postgres):
    url = await own_postgres.create_database("kept")
    connection = await asyncpg.connect(url)
    await connection.execute("create table kept (id int primary key)")
    await connection.executemany("insert into kept values ($1)", [(n,) for n in range(200)])

    own_postgres.kill()
    connection.terminate()
    own_postgres.start()

    assert await query(url, "select count(*) from kept") == 200


async def test_a_stopped_server_starts_again_with_its_databases(own_postgres):
    url = await own_postgres.create_database("kept")
    own_postgres.stop()
    own_postgres.start()

    assert await query(url, "select current_database()") == "kept"


async def test_a_database_can_be_copied_from_a_template(own_postgres):
    url = await own_postgres.create_database("model")
    await query(url, "create table things (id int)")
    copy = await own_postgres.create_database("copy", template="model")

    assert await query(copy, "select count(*) from things") == 0


async def test_each_test_gets_an_empty_database(database):
    tables = "select count(*) from pg_tables where schemaname = 'public'"

    assert await query(database, tables) == 0


def test_data_of_another_version_is_refused_with_a_way_out(server_dir):
    server = server_in(server_dir / "postgres")
    server.start()
    server.stop()
    (server_dir / "postgres" / "data" / "PG_VERSION").write_text("9\n")

    with pytest.raises(StackError, match="RAPPORT_PG_BIN"):
        server.start()


def test_a_second_server_on_the_same_data_is_refused(own_postgres, server_dir):
    second = server_in(server_dir / "postgres")
    with pytest.raises(StackError, match="lock file"):
        second.start()


async def test_it_listens_on_tcp_only_when_asked(own_postgres, server_dir, free_port):
    assert await query(own_postgres.url("postgres"), "show listen_addresses") == ""
    own_postgres.stop()

    server = server_in(server_dir / "postgres", tcp_port=free_port)
    server.start()
    try:
        assert await query(server.tcp_url("postgres"), "select 1") == 1
        assert await query(server.url("postgres"), "select 1") == 1
    finally:
        server.stop()


async def test_a_path_too_long_for_a_socket_is_no_obstacle(server_dir):
    long = server_dir / ("long-" * 20)
    long.mkdir()
    server = server_in(long / "postgres")
    server.start()
    try:
        assert await query(server.url("postgres"), "select 1") == 1
    finally:
        server.stop()
    assert not server._short_socket_dir


async def test_it_works_below_a_directory_closed_to_others(server_dir):
    """As root it runs as another user, who cannot pass there."""
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    server = server_in(closed / "postgres")
    server.start()
    shelter = (closed / "postgres").resolve()
    try:
        assert await query(server.url("postgres"), "select 1") == 1
    finally:
        server.stop()
        if shelter.parent != closed:
            shutil.rmtree(shelter)


def started_by_another_process(directory):
    command = [sys.executable, "-c", STARTS_AND_WAITS, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        server_pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    return server_pid


async def test_it_dies_with_the_process_that_started_it(server_dir):
    server_pid = started_by_another_process(server_dir / "postgres")

    await eventually(lambda: assert_gone(server_pid))


def assert_gone(pid):
    assert not Path(f"/proc/{pid}").exists()
