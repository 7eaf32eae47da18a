"""Who asks: the caller, signed on the way between processes, at hand while a call is served.

The gateway establishes the caller and signs it; a service believes the signature, so it needs no
table of keys. Handlers ask `current_caller()`. Policies, which nobody calls, act inside
`acting_as(...)`.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from google.protobuf.message import DecodeError

from rapport.common.v1 import caller_pb2
from services.kernel.clock import Clock
from services.kernel.errors import Bug, PermissionDenied, Unauthenticated

CALLER_METADATA = "rapport-caller-bin"
CALLER_LIFETIME = timedelta(minutes=2)
CALLER_LIFETIME_MAX = timedelta(minutes=15)
CALLER_BYTES_MAX = 4096

INTERNAL_SCOPE = "internal"
"""The scope of calls inside the platform; neither `*` nor a pattern covers it."""

_SIGNATURE_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks, and within what call: the first four travel signed, the rest is the call's."""

    workspace: str
    actor: str
    scopes: frozenset[str]
    expire_time: datetime
    correlation_id: str = ""
    # The moment on the event loop's clock when the answer is worth nothing any more.
    ends_at: float | None = field(default=None, compare=False)
    # Set when the server wants its streams to end.
    draining: asyncio.Event = field(default_factory=asyncio.Event, compare=False, repr=False)

    @property
    def remaining_s(self) -> float | None:
        """The seconds left to answer; None when nobody waits."""
        if self.ends_at is None:
            return None
        return max(0.0, self.ends_at - asyncio.get_running_loop().time())

    def may(self, scope: str) -> bool:
        """Tells whether the scopes cover one: literally, by `contacts.*`, or by `*`."""
        if scope in self.scopes:
            return True
        if scope == INTERNAL_SCOPE:
            return False
        area = scope.partition(".")[0]
        return "*" in self.scopes or f"{area}.*" in self.scopes

    def require(self, scope: str) -> None:
        """Refuses the call unless the scopes cover one."""
        if not self.may(scope):
            raise PermissionDenied(scope)


def own_caller(actor: str, *, clock: Clock, scopes: frozenset[str], workspace: str = "") -> Caller:
    """Returns what a part of the platform says of itself, e.g. `services/identity`."""
    return Caller(
        workspace=workspace,
        actor=actor,
        scopes=scopes,
        expire_time=clock.now() + CALLER_LIFETIME,
    )


class CallerSigner:
    """Signs and verifies callers under the secret that the processes of the platform share.

    The form on the wire: HMAC-SHA256 of the rest (32 bytes), then a serialized
    `rapport.common.v1.Caller`.
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret = secret
        self._clock = clock

    def sign(self, caller: Caller) -> bytes:
        """Returns the metadata value that says who asks; its expiry is the caller's own."""
        statement = caller_pb2.Caller(
            workspace=caller.workspace, actor=caller.actor, scopes=sorted(caller.scopes)
        )
        statement.expire_time.FromDatetime(caller.expire_time)
        body = statement.SerializeToString()
        return self._signature(body) + body

    def verify(self, signed: bytes | None) -> Caller:
        """Returns who asks, or raises Unauthenticated."""
        if signed is None:
            raise Unauthenticated("the call names no caller")
        signature, body = signed[:_SIGNATURE_BYTES], signed[_SIGNATURE_BYTES:]
        if len(signed) > CALLER_BYTES_MAX or not hmac.compare_digest(
            signature, self._signature(body)
        ):
            raise Unauthenticated("nobody we know signed the caller")
        try:
            statement = caller_pb2.Caller.FromString(body)
        except DecodeError as error:
            raise Unauthenticated("nobody we know signed the caller") from error
        expire_time = statement.expire_time.ToDatetime(tzinfo=UTC)
        now = self._clock.now()
        if not now < expire_time <= now + CALLER_LIFETIME_MAX:
            raise Unauthenticated("the caller's credential has expired")
        return Caller(
            workspace=statement.workspace,
            actor=statement.actor,
            scopes=frozenset(statement.scopes),
            expire_time=expire_time,
        )

    def _signature(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, body, "sha256")


_current: ContextVar[Caller | None] = ContextVar("rapport_caller", default=None)


def current_caller() -> Caller:
    """Returns who asks. Only inside a call, or inside `acting_as`."""
    caller = _current.get()
    if caller is None:
        raise Bug("nobody is calling: current_caller() outside a call")
    return caller


def current_caller_or_none() -> Caller | None:
    """Returns who asks, or None where nobody does."""
    return _current.get()


def draining() -> asyncio.Event:
    """Returns the event that tells the current call, if it is a long stream, to come to its end."""
    return current_caller().draining


def enter_call(caller: Caller) -> None:
    """Makes `caller` the current one for the rest of the task; each call has a task of its own."""
    _current.set(caller)


@contextmanager
def acting_as(caller: Caller) -> Iterator[Caller]:
    """Acts in the name of `caller`, e.g. a policy in the workspace of the event it reacts to."""
    token = _current.set(caller)
    try:
        yield caller
    finally:
        _current.reset(token)


def within_call(
    caller: Caller, *, correlation_id: str, ends_at: float | None, draining_event: asyncio.Event
) -> Caller:
    """Ties a verified caller to the call it makes."""
    return replace(caller, correlation_id=correlation_id, ends_at=ends_at, draining=draining_event)
