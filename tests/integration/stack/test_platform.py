"""The platform starts whole or not at all, heals itself, and never leaves a process behind."""

import asyncio
import hmac
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import asyncpg
import nats
import pytest
import pytest_asyncio

from deploy.stack.errors import StackError
from deploy.stack.platform import MODULES, SERVICES, Platform, running_platform
from deploy.stack.settings import Settings
from deploy.stack.supervised import State
from services.kernel.testing import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

STAND_IN = Path(__file__).with_name("stand_in.py")


def stand_in(name, *manners):
    return [sys.executable, str(STAND_IN), name, *manners]


@pytest.fixture
def settings(server_dir, postgres, nats_server):
    """A platform on the servers of this test process, which a stand-in needs only by name."""
    return Settings(
        data_dir=server_dir / "data",
        database_url=postgres.url("postgres"),
        nats_url=nats_server.url,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform(tmp_path_factory, postgres, nats_server):
    """A running platform for the tests that only look, or kill what is started again."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("platform") / "data",
        database_url=postgres.url("postgres"),
        nats_url=nats_server.url,
    )
    async with Platform(settings, command=stand_in) as platform:
        yield platform


@pytest.fixture
def whole(server_dir):
    """A platform with servers of its own."""
    return Settings(data_dir=server_dir / "data")


def told(platform, name):
    """The environment a process was started with."""
    variables = Path(f"/proc/{platform.pid(name)}/environ").read_text().rstrip("\0").split("\0")
    return dict(variable.split("=", 1) for variable in variables)


async def test_everything_starts_heals_and_ends_in_order(whole):
    seen = []
    async with Platform(
        whole, command=stand_in, report=lambda part: seen.append((part.name, part.state))
    ) as platform:
        pids = {part.name: part.pid for part in platform.parts}
        dev_json = whole.data_dir / "dev.json"

        assert set(pids) == {"postgres", "nats", "gateway", *SERVICES}
        assert json.loads(dev_json.read_text()) == platform.dev
        assert running_platform(whole.data_dir) == platform.dev

        await a_killed_server_comes_back_with_its_data(platform)
        await wiped_nats_comes_back_empty(platform)

    assert not dev_json.exists()
    assert running_platform(whole.data_dir) is None
    assert_gone(pids.values())
    stopped = [name for name, state in seen if state is State.STOPPED]
    assert stopped[0] == "gateway"
    assert stopped[-2:] == ["nats", "postgres"]


async def a_killed_server_comes_back_with_its_data(platform):
    url = platform.database_url("deals")
    await execute(url, "create table if not exists kept (id int)")
    platform.kill("postgres")
    await eventually(lambda: assert_restarted(platform, "postgres"), within_s=20)
    await platform.wait_ready()

    assert await execute(url, "select * from kept") == "SELECT 0"


async def wiped_nats_comes_back_empty(platform):
    connection = await nats.connect(platform.nats_url)
    await connection.jetstream().add_stream(name="LOST", subjects=["lost.>"])
    await connection.close()

    await platform.wipe_nats()

    connection = await nats.connect(platform.nats_url)
    streams = await connection.jetstream().streams_info()
    await connection.close()
    assert streams == []


async def execute(url, statement):
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.execute(statement)
    finally:
        await connection.close()


async def test_each_process_is_told_where_the_others_are(platform):
    deals, gateway = told(platform, "deals"), told(platform, "gateway")
    expected = {f"RAPPORT_{name.upper()}_ADDRESS": platform.addresses[name] for name in SERVICES}

    assert deals.items() >= expected.items()
    assert gateway.items() >= expected.items()
    assert deals["RAPPORT_DATABASE_URL"] == platform.dev["databases"]["deals"]
    assert "RAPPORT_DATABASE_URL" not in gateway
    assert "RAPPORT_KEY_PEPPER" not in deals
    assert deals["RAPPORT_INTERNAL_SECRET"] == gateway["RAPPORT_INTERNAL_SECRET"]


async def test_a_killed_process_is_restarted_at_its_address_and_counted(platform):
    address, pid = platform.addresses["events"], platform.pid("events")

    platform.kill("events")

    await eventually(lambda: assert_restarted(platform, "events"), within_s=20)
    await platform.wait_ready("events")
    assert platform.pid("events") not in {None, pid}
    assert platform.restarts("events") == 1
    assert platform.addresses["events"] == address


def assert_restarted(platform, name):
    assert platform.restarts(name) > 0


async def test_the_keys_and_secrets_are_private_and_outlive_a_run(settings):
    async with Platform(settings, command=stand_in) as platform:
        first = platform.dev
        private = ("dev.json", "secrets.json", "keys.json")
        modes = {stat.S_IMODE((settings.data_dir / name).stat().st_mode) for name in private}
    async with Platform(settings, command=stand_in) as platform:
        second = platform.dev

    assert modes == {0o600}
    assert (first["api_key"], first["write_key"]) == (second["api_key"], second["write_key"])


async def test_a_process_that_cannot_start_stops_the_platform_and_says_why(settings):
    def one_crashes(name):
        return stand_in(name, "crash") if name == "identity" else stand_in(name)

    with pytest.raises(StackError, match="this is why"):
        async with Platform(settings, command=one_crashes):
            pass

    assert not (settings.data_dir / "dev.json").exists()


async def test_a_process_that_does_not_drain_is_killed(settings, monkeypatch):
    monkeypatch.setattr("deploy.stack.platform.PROGRAM_STOP_WITHIN_S", 2.0)

    def one_is_deaf(name):
        return stand_in(name, "deaf") if name == "deals" else stand_in(name)

    async with Platform(settings, command=one_is_deaf) as platform:
        deals = next(part for part in platform.parts if part.name == "deals")
        contacts = next(part for part in platform.parts if part.name == "contacts")

    assert deals.forced
    assert not contacts.forced


async def test_who_cannot_wait_for_the_drain_kills_everything_for_good(settings):
    async with Platform(settings, command=lambda name: stand_in(name, "deaf")) as platform:
        pids = [part.pid for part in platform.parts]
        platform.kill_all()

    assert_gone(pids)
    assert {part.restarts for part in platform.parts} == {0}


async def test_the_gateway_can_check_a_key_but_not_read_it(platform):
    environment = told(platform, "gateway")
    pepper = environment["RAPPORT_KEY_PEPPER"]
    keys_file = platform.data_dir / "keys.json"
    keys = json.loads(keys_file.read_text())
    _, key_id, secret = platform.dev["write_key"].split("_")
    write_key = next(key for key in keys["keys"] if key["id"] == key_id)

    assert environment["RAPPORT_API_KEYS_FILE"] == str(keys_file)
    assert write_key == {
        "id": key_id,
        "hash": hmac.new(pepper.encode(), secret.encode(), "sha256").hexdigest(),
        "workspace": "development",
        "scopes": ["events.write"],
        "kind": "source",
    }


async def test_a_second_platform_on_the_same_data_is_refused(platform):
    second = Platform(Settings(data_dir=platform.data_dir), command=stand_in)

    with pytest.raises(StackError, match=f"already runs.*pid {os.getpid()}.*make down"):
        await second.__aenter__()

    assert running_platform(platform.data_dir) is not None


async def test_a_busy_port_is_named_with_a_way_out(settings, free_port):
    busy = Settings(data_dir=settings.data_dir, nats_url="nats://unused", grpc_port=free_port)
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", free_port)
    async with server:
        with pytest.raises(StackError, match=f"port {free_port}.*RAPPORT_GRPC_PORT"):
            async with Platform(busy, command=stand_in):
                pass


async def test_no_process_survives_the_kill_of_its_platform(settings):
    script = f"""
import asyncio, pathlib, sys
from deploy.stack.platform import Platform
from deploy.stack.settings import Settings

async def run():
    settings = Settings(data_dir=pathlib.Path({str(settings.data_dir)!r}))
    command = lambda name: [sys.executable, {str(STAND_IN)!r}, name]
    async with Platform(settings, command=command) as platform:
        print(*(part.pid for part in platform.parts), flush=True)
        await asyncio.Event().wait()

asyncio.run(run())
"""
    pids = await asyncio.to_thread(pids_of_a_killed_platform, script)

    assert len(pids) == len(MODULES) + 2
    await eventually(lambda: assert_gone(pids), within_s=20)
    assert running_platform(settings.data_dir) is None


def pids_of_a_killed_platform(script):
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as platform:
        pids = platform.stdout.readline().split()
        platform.send_signal(signal.SIGKILL)
    return pids


def assert_gone(pids):
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
