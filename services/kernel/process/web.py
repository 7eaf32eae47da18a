"""An HTTP server inside the process's event loop: uvicorn without its own idea of signals."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BACKLOG = 512
KEEP_ALIVE_S = 30
HEAD_BYTES_MAX = 64 * 1024
"""What a client may send without a byte of a body being read from it: headers, trailers."""


class _BoundedHeads(HttpToolsProtocol):
    """Hangs up on endless headers and trailers, which uvicorn would gather in memory for ever."""

    _head_bytes = 0

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES_MAX:
            self.transport.close()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Says in JSON, as all our errors are said, that this is no HTTP, and hangs up."""
        content = json.dumps({"code": "invalid_http", "message": msg}).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)


class _Uvicorn(uvicorn.Server):
    """Leaves signals to the composition root, which stops everything in order."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class WebServer:
    """Serves an ASGI application on `host:port` from `start` until `stop`."""

    def __init__(self, address: str, app: Any, **options: Any) -> None:
        host, _, port = address.rpartition(":")
        self._place = (host.strip("[]"), int(port))
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                http=_BoundedHeads,
                timeout_keep_alive=KEEP_ALIVE_S,
                **options,
            )
        )
        self._serving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens; raises OSError if somebody else does already."""
        family = socket.AF_INET6 if ":" in self._place[0] else socket.AF_INET
        listener = socket.create_server(self._place, family=family, backlog=BACKLOG)
        # Inherited by what it accepts; without, asyncio's own loop holds answers back for 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=[listener]))

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stops listening, finishes the requests in flight for at most `grace_s`."""
        if self._serving is None:
            return
        self._uvicorn.config.timeout_graceful_shutdown = max(1, round(grace_s))
        self._uvicorn.should_exit = True
        await self._serving
        self._serving = None
