"""`make up` says where everything is, `make down` ends it; when they cannot, they say why."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

UP = [sys.executable, str(Path(__file__).with_name("up_with_stand_ins.py"))]
DOWN = [sys.executable, "-m", "deploy.down"]


@pytest.fixture
def environment(server_dir, postgres, nats_server):
    return {
        "RAPPORT_DATA_DIR": str(server_dir / "data"),
        "RAPPORT_GRPC_PORT": "0",
        "RAPPORT_HTTP_PORT": "0",
        "RAPPORT_DATABASE_URL": postgres.url("postgres"),
        "RAPPORT_NATS_URL": nats_server.url,
    }


@contextlib.contextmanager
def started(environment):
    """A `make up` that is ready, and what it said until then."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(UP, env=environment, **pipes) as up:
        said = []
        for line in up.stdout:
            said.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        try:
            yield up, said
        finally:
            up.kill()


def finished(command, environment):
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_up_prints_one_aligned_table_and_ctrl_c_drains_it(environment):
    with started(environment) as (up, said):
        header = next(line for line in said if line.startswith("process"))
        rows = said[said.index(header) + 1 :][:6]
        state = header.index("state")

        assert {row.split()[0] for row in rows} == {
            "contacts",
            "deals",
            "events",
            "gateway",
            "identity",
            "segments",
        }
        assert {row[state : state + 5] for row in rows} == {"ready"}

        up.send_signal(signal.SIGINT)
        rest = up.stdout.read().splitlines()
        assert up.wait(60) == 0

    assert [line for line in rest if line.startswith("  gateway   stopped after ")]
    assert rest[-1] == "Rapport stopped; its data stays."


def test_down_stops_what_up_started(environment):
    with started(environment) as (up, _):
        down = finished(DOWN, environment)
        up.communicate(timeout=60)

    assert up.returncode == 0
    assert down.returncode == 0
    assert down.stdout.splitlines()[-1] == "Stopped; its data stays."


def test_down_without_up_says_so(environment):
    down = finished(DOWN, environment)

    assert down.returncode == 0
    assert down.stdout.startswith("Nothing runs on ")


def test_a_second_up_is_refused_and_harms_nothing(environment):
    with started(environment) as (up, _):
        second = finished(UP, environment)
        dev = json.loads(Path(environment["RAPPORT_DATA_DIR"], "dev.json").read_text())

        assert up.poll() is None

    assert second.returncode == 1
    assert "make down" in second.stdout
    assert dev["pid"] == up.pid


def test_an_ill_setting_is_named(environment):
    up = finished(UP, environment | {"RAPPORT_HTTP_PORT": "eighty"})

    assert up.returncode == 1
    assert "RAPPORT_HTTP_PORT is not a port" in up.stdout
