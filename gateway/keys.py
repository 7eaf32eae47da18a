"""Keys: who sent a request, told by a key whose hash is in a file or in the events service.

A key reads `rk_<id>_<secret>` (an API key) or `wk_<id>_<secret>` (a source's write key, which may
only send customer events, whatever the file says). The file holds HMAC-SHA256 of the secret under
the pepper, so neither the file nor the pepper alone opens anything. It is read again when it
changes; one that cannot be read then leaves the known keys in force, and an alarm in the log.
A write key whose id is not in the file may have been issued at run time (`write_keys.py`).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog

from gateway.write_keys import SOURCE_SCOPES, WriteKeys
from services.kernel.clock import Clock
from services.kernel.errors import Unauthenticated
from services.kernel.rpc.caller import CALLER_LIFETIME, INTERNAL_SCOPE, Caller

KEY_LENGTH_MAX: Final = 300
KEYS_MAX: Final = 100_000
RECHECK_S: Final = 1.0
_PREFIXES: Final = {"api": "rk", "source": "wk"}
_ACTORS: Final = {"api": "api_keys", "source": "sources"}
_MISSING: Final = "an API key is needed: authorization: Bearer <key>, or x-api-key: <key>"
_WRONG: Final = "nobody issued this API key"
_NO_HASH: Final = "0" * 64
_HASH: Final = re.compile("[0-9a-f]{64}")

_log = structlog.get_logger(__name__)


class KeysError(Exception):
    """When the file of API keys cannot be read or is not what it should be."""


class ApiKey(msgspec.Struct, frozen=True):
    """One key as the file holds it."""

    id: str
    hash: str
    workspace: str
    scopes: list[str]
    kind: Literal["api", "source"]

    @property
    def granted(self) -> frozenset[str]:
        """The scopes the key gives; a source's key never gives more than sending."""
        scopes = frozenset(self.scopes)
        if self.kind == "source":
            return SOURCE_SCOPES if scopes & {*SOURCE_SCOPES, "*", "events.*"} else frozenset()
        return scopes


class _KeyFile(msgspec.Struct):
    keys: list[ApiKey]


class Keys:
    """Whom a key stands for: the file says it, else of a write key the events service."""

    def __init__(self, api_keys: ApiKeys, write_keys: WriteKeys) -> None:
        self._api_keys = api_keys
        self._write_keys = write_keys

    async def caller(self, text: str | None) -> Caller:
        """Returns whom a key stands for; raises Unauthenticated, or Unavailable in doubt."""
        prefix, key_id, secret = _parts_of(text or "")
        if prefix != _PREFIXES["source"] or self._api_keys.has(key_id):
            return self._api_keys.caller(text)
        caller = None
        if len(text or "") <= KEY_LENGTH_MAX:
            caller = await self._write_keys.caller(key_id, secret)
        if caller is None:
            raise Unauthenticated(_WRONG)
        return caller


class ApiKeys:
    """The keys of a file, by id, and the callers they stand for."""

    def __init__(
        self,
        path: Path,
        pepper: bytes,
        clock: Clock,
        *,
        recheck_s: float = RECHECK_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the file; raises KeysError if it is not fit to start with."""
        self._path = path
        self._pepper = pepper
        self._clock = clock
        self._recheck_s = recheck_s
        self._monotonic = monotonic
        self._verified: dict[bytes, ApiKey] = {}
        self._mark = _mark_of(path)
        self._keys = read_keys(path)
        self._checked_at = monotonic()

    def has(self, key_id: str) -> bool:
        """Tells whether the file holds a key of this id."""
        self._reread()
        return key_id in self._keys

    def caller(self, text: str | None) -> Caller:
        """Returns whom a key stands for, or raises Unauthenticated."""
        if not text:
            raise Unauthenticated(_MISSING)
        self._reread()
        # Kept by its digest: the memory of the gateway holds no key, and a look-up tells no timing.
        digest = hashlib.sha256(text[: KEY_LENGTH_MAX + 1].encode()).digest()
        key = self._verified.get(digest)
        if key is None:
            key = self._verified[digest] = self._verify(text)
        return _caller_of(key, self._clock.now())

    def _verify(self, text: str) -> ApiKey:
        prefix, key_id, secret = _parts_of(text)
        key = self._keys.get(key_id)
        computed = hmac.digest(self._pepper, secret.encode(), "sha256").hex()
        # An id that nobody has takes as long as a secret that is wrong.
        is_right = hmac.compare_digest(computed, key.hash if key else _NO_HASH)
        if key is None or not is_right or _PREFIXES[key.kind] != prefix:
            raise Unauthenticated(_WRONG)
        if len(text) > KEY_LENGTH_MAX:
            raise Unauthenticated(_WRONG)
        return key

    def _reread(self) -> None:
        now = self._monotonic()
        if now - self._checked_at < self._recheck_s:
            return
        self._checked_at = now
        mark = _mark_of(self._path)
        if mark == self._mark:
            return
        try:
            keys = read_keys(self._path)
        except KeysError as error:
            _log.error("api_keys.unreadable", problem=str(error))
            return
        self._mark, self._keys = mark, keys
        self._verified.clear()
        _log.info("api_keys.read", keys=len(keys))


def read_keys(path: Path) -> Mapping[str, ApiKey]:
    """Reads a file of keys whole, or raises KeysError."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_KeyFile)
    except OSError as error:
        raise KeysError(f"the API keys file cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise KeysError(f"the API keys file is not as it should be: {error}") from error
    if len(content.keys) > KEYS_MAX:
        raise KeysError(f"the API keys file holds more than {KEYS_MAX} keys")
    keys: dict[str, ApiKey] = {}
    for key in content.keys:
        if key.id in keys:
            raise KeysError(f"the API keys file holds the id {key.id!r} twice")
        if not key.id or "_" in key.id or not key.workspace:
            raise KeysError(f"the API key {key.id!r} needs an id without _ and a workspace")
        if not _HASH.fullmatch(key.hash):
            raise KeysError(f"the hash of the API key {key.id!r} must be 64 digits of 0-9a-f")
        if INTERNAL_SCOPE in key.scopes:
            raise KeysError(f"the API key {key.id!r} asks for the platform's own scope")
        keys[key.id] = key
    return keys


def is_key(text: str) -> bool:
    """Tells whether a text looks like a key of ours."""
    return _parts_of(text)[0] in _PREFIXES.values()


def bearer_of(metadata: Mapping[str, str | bytes]) -> str | None:
    """Returns the key that metadata or headers carry, if they carry one."""
    authorization = metadata.get("authorization")
    if isinstance(authorization, str):
        scheme, _, credential = authorization.strip().partition(" ")
        if scheme.lower() == "bearer":
            return credential.strip()
    given = metadata.get("x-api-key")
    return given.strip() if isinstance(given, str) else None


def _parts_of(text: str) -> tuple[str, str, str]:
    """The prefix, the id and the secret of a key."""
    prefix, _, rest = text.partition("_")
    key_id, _, secret = rest.partition("_")
    return prefix, key_id, secret


def _caller_of(key: ApiKey, now: datetime) -> Caller:
    return Caller(
        workspace=key.workspace,
        actor=f"{_ACTORS[key.kind]}/{key.id}",
        scopes=key.granted,
        expire_time=now + CALLER_LIFETIME,
    )


def _mark_of(path: Path) -> tuple[int, int, int] | None:
    """Returns what changes when a file does."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
