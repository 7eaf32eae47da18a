"""The feed: a service's log carried by NATS JetStream, position for position.

Everything NATS calls stream, sequence or subject stays in this file and in `feed_inbox`; `relay`
and `reader` hold the rules. The feed needs no trust: a message's sequence is the event's position,
each publish names the position it must follow, and what is lost is filled again from the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Self

import structlog
from google.protobuf.message import DecodeError
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.js import api
from nats.js import errors as js_errors
from nats.js.manager import JetStreamManager

from rapport.common.v1.envelope_pb2 import Envelope
from services.kernel.log.recorded import short_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


REQUEST_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2
RECONNECT_PAUSE_S = 0.25
PING_INTERVAL_S = 10
PINGS_OUTSTANDING_MAX = 2
# More than one chunk of the relay, so that a publish never waits inside the client, which swallows
# cancellation there.
PENDING_BYTES_MAX = 32 * 1024 * 1024
DUPLICATE_WINDOW_S = 10.0

_WRONG_LAST_SEQUENCE = 10071
_STREAM_NAME_IN_USE = 10058
# A cluster that is not complete yet calls that a bad request, too.
_NO_SUITABLE_PEERS = 10005
_NO_MESSAGE_FOUND = 10037
_NOT_IN_A_SUBJECT = re.compile(r"[^A-Za-z0-9_-]")

_log = structlog.get_logger(__name__)


class FeedUnavailableError(Exception):
    """When NATS gives no clear answer; what was asked for may have happened or not."""


class FeedMissingError(FeedUnavailableError):
    """When NATS answers but has no such feed."""


class FeedConflictError(Exception):
    """When the feed does not end where the publish had to go on: another one was faster."""


class ForeignFeedError(Exception):
    """When the feed holds what this log does not: never overwritten, always alarmed."""


class FeedConfigError(Exception):
    """When the stream on NATS is configured otherwise than the platform relies on."""


@dataclass(frozen=True, slots=True)
class FeedTip:
    """The feed's last position, 0 if it is empty.

    `event_id` is the event there, empty if its message was erased; `kept` is the newest message
    that is still there: its position and event id.
    """

    position: int
    event_id: str
    kept: tuple[int, str] | None


class FeedConnection:
    """One connection to NATS, which comes up when NATS does and comes back by itself, for ever."""

    def __init__(self, url: str, *, name: str) -> None:
        """Takes the servers, with commas between, and the name NATS' monitoring shows."""
        self._servers = [server.strip() for server in url.split(",")]
        self._name = name
        self._client = Client()
        self._keeper: asyncio.Task[None] | None = None
        self._watchers: set[Callable[[], None]] = set()
        # Counts how often the connection came up: who holds something on the server compares it.
        self.incarnation = 0

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_open(), name="feed connection")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)

    @property
    def is_up(self) -> bool:
        """Whether NATS is connected now."""
        return self._client.is_connected

    def watch(self, came_up: Callable[[], None]) -> Callable[[], None]:
        """Calls back whenever the connection came up; returns how to stop that."""
        self._watchers.add(came_up)
        return lambda: self._watchers.discard(came_up)

    def client(self) -> Client:
        """The connected client, else raises FeedUnavailableError.

        Nothing is buffered for a server that is away.
        """
        if not self._client.is_connected:
            raise FeedUnavailableError("NATS is not connected")
        return self._client

    def manager(self) -> JetStreamManager:
        """Asks JetStream about streams and consumers, with a deadline."""
        return JetStreamManager(self.client(), timeout=REQUEST_TIMEOUT_S)

    async def _keep_open(self) -> None:
        """Connects, and connects anew when the client gave up (it does when it is refused)."""
        while True:
            self._client = Client()
            closed = asyncio.Event()
            try:
                await self._connect(closed)
                self._came_up()
                await closed.wait()
                _log.warning("feed.closed", servers=len(self._servers))
                await asyncio.sleep(RECONNECT_PAUSE_S)
            except Exception as error:  # noqa: BLE001, whatever answers there, NATS may come back
                _log.warning("feed.refused", error=repr(error))
                await asyncio.sleep(RECONNECT_PAUSE_S)
            finally:
                await self._client.close()

    async def _connect(self, closed: asyncio.Event) -> None:
        async def went_down() -> None:
            _log.info("feed.down")

        async def came_back() -> None:
            self._came_up()

        async def ended() -> None:
            closed.set()

        async def failed(error: Exception) -> None:
            _log.debug("feed.error", error=repr(error))

        await self._client.connect(
            self._servers,
            name=self._name,
            error_cb=failed,
            disconnected_cb=went_down,
            reconnected_cb=came_back,
            closed_cb=ended,
            connect_timeout=CONNECT_TIMEOUT_S,
            reconnect_time_wait=RECONNECT_PAUSE_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=PINGS_OUTSTANDING_MAX,
            pending_size=PENDING_BYTES_MAX,
        )

    def _came_up(self) -> None:
        self.incarnation += 1
        _log.info("feed.up", incarnation=self.incarnation)
        for came_up in tuple(self._watchers):
            came_up()


class Feed:
    """One partition of a service's feed, as its relay sees it."""

    def __init__(
        self, connection: FeedConnection, *, service: str, partition: int, replicas: int = 1
    ) -> None:
        """`replicas` is how many NATS servers keep the feed."""
        self.name = stream_name(service, partition)
        self.replicas = replicas
        self._connection = connection
        self._service = service
        self._partition = partition
        self._all = f"{service}.{partition}.>"
        self._config = _stream_config(self.name, self._all, replicas)
        self._asserted = False

    async def create(self) -> None:
        """Creates the stream, empty; another relay may have been faster."""
        with translated():
            try:
                await self._connection.manager().add_stream(self._config)
            except js_errors.BadRequestError as error:
                if error.err_code == _NO_SUITABLE_PEERS:
                    raise
                if error.err_code != _STREAM_NAME_IN_USE:
                    raise FeedConfigError(f"{self.name} is refused: {error}") from error
            _log.info("feed.created", feed=self.name)

    async def tip(self) -> FeedTip:
        """Reads how far the feed has got.

        Raises FeedMissingError when there is none, and at first FeedConfigError when it is not
        configured as needed.
        """
        with translated():
            manager = self._connection.manager()
            info = await manager.stream_info(self.name)
            if not self._asserted:
                _assert_config(info.config, self._config)
                self._asserted = True
            position = info.state.last_seq
            try:
                message = await manager.get_last_msg(self.name, self._all)
            except js_errors.NotFoundError as error:
                if error.err_code != _NO_MESSAGE_FOUND:
                    raise
                return FeedTip(position, "", None)
        sequence, data = message.seq or 0, message.data or b""
        event = read_message(self._service, self._partition, sequence, message.subject or "", data)
        kept = (sequence, event.event_id)
        if sequence < position:
            return FeedTip(position, "", kept)
        return FeedTip(sequence, event.event_id, kept)

    async def publish(self, events: Sequence[Envelope], *, guarded: bool = True) -> None:
        """Publishes consecutive events; returns when the feed holds them all, else raises.

        Each message names the position it must follow, so a later one is stored only if all earlier
        ones are, and the answer to the last is the answer to all. FeedConflictError and
        FeedUnavailableError say nothing about how many were stored: read the tip. `guarded=False`
        exists to show in tests what the guard prevents.
        """
        with translated():
            client = self._connection.client()
            *others, last = events
            if others:
                commands = [self._command(event, guarded=guarded) for event in others]
                # The client's own `publish` takes three times as long, most of it to wait for
                # nothing. Like there, what is sent goes out with the request that follows.
                await client._send_command(b"".join(commands))  # noqa: SLF001
            answer = await client.request(
                subject_of(self._service, last),
                last.SerializeToString(),
                timeout=REQUEST_TIMEOUT_S,
                headers=_headers(last, guarded=guarded),
            )
        if guarded:
            self._judge(json.loads(answer.data), last.position)

    async def erase(self, position: int) -> None:
        """Overwrites the message of an event, and deletes it; one that is gone stays gone.

        Raises FeedUnavailableError, for a feed that has not got so far, too.
        """
        with translated():
            manager = self._connection.manager()
            try:
                await manager.delete_msg(self.name, position)
            except js_errors.Error:  # it says so in many ways that there is none
                try:
                    await manager.get_msg(self.name, position)
                except js_errors.NotFoundError:
                    return
                raise

    async def last_position(self) -> int:
        """How far the feed has got; raises FeedMissingError when there is none."""
        with translated():
            info = await self._connection.manager().stream_info(self.name)
            return info.state.last_seq

    def _command(self, event: Envelope, *, guarded: bool) -> bytes:
        """A message as NATS' protocol says it."""
        lines = (f"{key}: {value}\r\n" for key, value in _headers(event, guarded=guarded).items())
        header = f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()
        body = event.SerializeToString()
        subject = subject_of(self._service, event).encode()
        size = len(header) + len(body)
        return b"HPUB %b  %d %d\r\n%b%b\r\n" % (subject, len(header), size, header, body)

    def _judge(self, answer: dict[str, object], position: int) -> None:
        error = answer.get("error")
        if isinstance(error, dict):
            if error.get("err_code") == _WRONG_LAST_SEQUENCE:
                raise FeedConflictError(f"{self.name} does not end at {position - 1}")
            raise FeedUnavailableError(f"{self.name}: {error.get('description')}")
        if answer.get("duplicate"):
            raise FeedUnavailableError(f"{self.name} says it has {position} already")
        if (answer.get("stream"), answer.get("seq")) != (self.name, position):
            raise ForeignFeedError(
                f"{position} landed at {answer.get('stream')}:{answer.get('seq')}"
            )


def stream_name(service: str, partition: int) -> str:
    """The name NATS knows a partition's feed by."""
    return f"{service.upper()}-{partition}"


def subject_of(service: str, event: Envelope) -> str:
    """The subject of an event's message, without personal data: `deals.0.acme.DealWon`."""
    return _subject(service, event.partition, event.workspace, event.type)


@lru_cache(maxsize=4096)
def _subject(service: str, partition: int, workspace: str, full_type: str) -> str:
    tokens = (
        _NOT_IN_A_SUBJECT.sub("_", token) or "_" for token in (workspace, short_type(full_type))
    )
    return ".".join((service, str(partition), *tokens))


def read_message(
    service: str, partition: int, sequence: int, subject: str, data: bytes
) -> Envelope:
    """Parses a message; raises ForeignFeedError unless our relay would have put it there."""
    try:
        event = Envelope.FromString(data)
    except DecodeError as error:
        raise ForeignFeedError(f"message {sequence} of {subject} is no event") from error
    if (event.position, event.partition) != (sequence, partition):
        where = f"{event.partition}:{event.position}"
        raise ForeignFeedError(f"message {sequence} of partition {partition} holds event {where}")
    if subject != subject_of(service, event):
        raise ForeignFeedError(f"message {sequence} has the subject {subject}")
    return event


def _headers(event: Envelope, *, guarded: bool) -> dict[str, str]:
    if not guarded:
        return {}
    return {
        "Nats-Msg-Id": event.event_id,
        "Nats-Expected-Last-Sequence": str(event.position - 1),
    }


def _stream_config(name: str, subjects: str, replicas: int) -> api.StreamConfig:
    """Everything is kept for ever, and only single messages can be deleted."""
    return api.StreamConfig(
        name=name,
        subjects=[subjects],
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_consumers=-1,
        max_msgs=-1,
        max_bytes=-1,
        max_age=0,
        num_replicas=replicas,
        duplicate_window=DUPLICATE_WINDOW_S,
        compression=api.StoreCompression.NONE,
        deny_purge=True,
        # Erasing a person deletes single messages; readers fill such holes with the owner's
        # tombstones.
        deny_delete=False,
    )


def _assert_config(found: api.StreamConfig, wanted: api.StreamConfig) -> None:
    """Compares what the feed's promise rests on; NATS adds fields of its own."""
    relied_on = (
        "subjects retention storage discard max_msgs max_bytes max_age max_msgs_per_subject"
        " no_ack duplicate_window compression deny_purge deny_delete sealed"
        " allow_rollup_hdrs mirror sources subject_transform allow_msg_ttl"
    )
    wrong = [
        f"{name} is {getattr(found, name)}, not {getattr(wanted, name)}"
        for name in relied_on.split()
        if (getattr(found, name) or None) != (getattr(wanted, name) or None)
    ]
    if (found.num_replicas or 1) < (wanted.num_replicas or 1):
        wrong.append(f"num_replicas is {found.num_replicas}, less than {wanted.num_replicas}")
    if wrong:
        raise FeedConfigError(
            f"the stream {wanted.name} is not configured as needed: {'; '.join(wrong)}"
        )


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Says NATS' errors in the words of this file."""
    try:
        yield
    except js_errors.NotFoundError as error:
        raise FeedMissingError(str(error)) from error
    except (nats_errors.Error, TimeoutError, OSError) as error:
        raise FeedUnavailableError(f"{type(error).__name__}: {error}") from error
