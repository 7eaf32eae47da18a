"""A key opens what its record says, and nothing once the file says so no more."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from datetime import timedelta

import pytest

from gateway.keys import KEY_LENGTH_MAX, ApiKeys, KeysError, bearer_of, read_keys
from services.kernel.clock import FixedClock
from services.kernel.errors import Unauthenticated

PEPPER = b"a pepper that only the gateway knows of"


def record(key_id="k1", *, secret="s3cret", workspace="acme", scopes=("*",), kind="api"):
    digest = hmac.new(PEPPER, secret.encode(), hashlib.sha256).hexdigest()
    return {
        "id": key_id,
        "hash": digest,
        "workspace": workspace,
        "scopes": list(scopes),
        "kind": kind,
    }


class Keys:
    """A file of keys, and the time between two looks at it."""

    def __init__(self, path):
        self.path = path / "keys.json"
        self.now = 0.0
        self.clock = FixedClock()

    def write(self, *records):
        self.path.write_text(json.dumps({"keys": list(records)}))
        # Two writes within one tick of the file system's clock are told apart all the same.
        os.utime(self.path, ns=(0, int(self.now) + len(records) * 1000))

    def open(self):
        return ApiKeys(self.path, PEPPER, self.clock, monotonic=lambda: self.now)


@pytest.fixture
def keys(tmp_path):
    made = Keys(tmp_path)
    made.write(record())
    return made


def test_a_key_stands_for_a_caller(keys):
    caller = keys.open().caller("rk_k1_s3cret")

    assert (caller.workspace, caller.actor) == ("acme", "api_keys/k1")
    assert caller.scopes == {"*"}
    assert caller.expire_time == keys.clock.now() + timedelta(minutes=2)


def test_a_caller_never_comes_out_of_the_memory_expired(keys):
    opened = keys.open()
    opened.caller("rk_k1_s3cret")
    keys.clock.advance(timedelta(hours=5))

    assert opened.caller("rk_k1_s3cret").expire_time > keys.clock.now()


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "x",
        "rk_k1_",
        "rk_k1_wrong",
        "rk_k2_s3cret",
        "wk_k1_s3cret",
        "RK_k1_s3cret",
        "rk_k1_s3cret ",
        "_k1_s3cret",
        "rk_k1_s3cret\0",
        "rk_k1_" + "x" * 10_000,
        "ключ_k1_s3cret",
    ],
)
def test_anything_else_stands_for_nobody(keys, text):
    with pytest.raises(Unauthenticated):
        keys.open().caller(text)


def test_a_key_that_is_too_long_is_not_taken_for_the_one_it_begins_as(keys):
    secret = "s" * (KEY_LENGTH_MAX - len("rk_k1_") + 1)
    keys.write(record(secret=secret))

    for _ in range(2):
        with pytest.raises(Unauthenticated):
            keys.open().caller(f"rk_k1_{secret}")


def test_a_secret_may_hold_the_character_between_the_parts(keys):
    keys.write(record(secret="a_b_c"))

    assert keys.open().caller("rk_k1_a_b_c").workspace == "acme"


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        (["events.write"], {"events.write"}),
        (["*"], {"events.write"}),
        (["events.*", "contacts.read"], {"events.write"}),
        (["contacts.read"], set()),
    ],
)
def test_a_source_only_sends_whatever_its_record_says(keys, scopes, granted):
    keys.write(record(kind="source", scopes=scopes))

    assert keys.open().caller("wk_k1_s3cret").scopes == granted


def test_a_changed_file_counts_after_a_moment(keys):
    opened = keys.open()
    opened.caller("rk_k1_s3cret")
    keys.write(record("k2"), record("k3"))

    assert opened.caller("rk_k1_s3cret")
    keys.now += 1
    with pytest.raises(Unauthenticated):
        opened.caller("rk_k1_s3cret")
    assert opened.caller("rk_k2_s3cret").actor == "api_keys/k2"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"keys": [{"id": 5}]}', None])
def test_a_file_that_breaks_later_takes_nobodys_key_away(keys, content):
    opened = keys.open()
    keys.path.unlink()
    if content is not None:
        keys.path.write_text(content)
    keys.now += 1

    assert opened.caller("rk_k1_s3cret").workspace == "acme"


@pytest.mark.parametrize(
    "records",
    [
        [record(), record()],
        [record("a_b")],
        [record("")],
        [record(workspace="")],
        [record(scopes=["internal"])],
        [record(kind="admin")],
        [{"id": "k1"}],
        [record() | {"hash": "é" * 64}],
        [record() | {"hash": record()["hash"].upper()}],
    ],
    ids=["twice", "_", "no id", "no workspace", "internal", "kind", "parts", "é", "upper case"],
)
def test_nothing_starts_with_an_ill_file(keys, records):
    keys.path.write_text(json.dumps({"keys": records}))

    with pytest.raises(KeysError):
        read_keys(keys.path)


def test_nothing_starts_without_a_file(tmp_path):
    with pytest.raises(KeysError):
        read_keys(tmp_path / "keys.json")


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"authorization": "Bearer k"}, "k"),
        ({"authorization": "bearer  k "}, "k"),
        ({"authorization": "Basic k"}, None),
        ({"authorization": "k"}, None),
        ({"x-api-key": " k"}, "k"),
        ({"authorization": "Basic x", "x-api-key": "k"}, "k"),
        ({"x-api-key": b"k"}, None),
        ({}, None),
    ],
)
def test_a_key_is_found_in_either_place(metadata, found):
    assert bearer_of(metadata) == found


def test_the_memory_holds_no_key(keys):
    opened = keys.open()
    opened.caller("rk_k1_s3cret")

    assert "s3cret" not in repr(vars(opened))
