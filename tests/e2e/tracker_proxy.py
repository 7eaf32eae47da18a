"""A proxy between a tracker and the gateway: keeps what was sent, and fails when it is told to.

`failing = ["cut", 503]` lets the next two posts fail: `cut` passes the request on and ends the
connection before the answer; a number is answered without passing anything on.
"""

from __future__ import annotations

import gzip
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

WITHIN_S = 15
CUT = "cut"
RETRY_AFTER_S = 1

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}


class TrackerProxy:
    """What passed: `posts` is a list of (path, body, status), without what was answered here."""

    def __init__(self, gateway: str) -> None:
        self.gateway = urlsplit(gateway).netloc
        self.failing: list[int | str] = []
        self.failed = 0
        self.posts: list[tuple[str, Any, int]] = []
        self.preflights = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    @property
    def sent(self) -> list[dict[str, Any]]:
        """Every item that a tracker sent and that was passed on."""
        return [item for _, body, _ in self.posts for item in body.get("batch", [body])]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                with proxy.lock:
                    failure = proxy.failing.pop(0) if proxy.failing else None
                    proxy.failed += failure is not None
                if isinstance(failure, int):
                    self._refuse(failure)
                    return
                status, headers, answer = proxy.ask(self, body)
                with proxy.lock:
                    proxy.posts.append((self.path, read(body), status))
                if failure == CUT:
                    self.close_connection = True
                    return
                self._answer(status, headers, answer)

            def do_GET(self) -> None:
                self._answer(*proxy.ask(self, None))

            def do_OPTIONS(self) -> None:
                proxy.preflights += 1
                self._answer(*proxy.ask(self, None))

            def _refuse(self, status: int) -> None:
                content = json.dumps({"code": "told_to_fail", "message": "come again"}).encode()
                origin = self.headers.get("origin", "*")
                headers = [("Access-Control-Allow-Origin", origin)]
                headers.append(("Retry-After", str(RETRY_AFTER_S)))
                self._answer(status, headers, content)

            def _answer(self, status: int, headers: Any, content: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Says nothing: what happened is in `posts`."""

        return Handler

    def ask(self, request: Any, body: bytes | None) -> tuple[int, list[tuple[str, str]], bytes]:
        """Passes a request on to the gateway."""
        connection = http.client.HTTPConnection(self.gateway, timeout=WITHIN_S)
        try:
            kept = {k: v for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP}
            connection.request(request.command, request.path, body=body, headers=kept)
            answer = connection.getresponse()
            headers = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP]
            return answer.status, headers, answer.read()
        finally:
            connection.close()


def read(body: bytes) -> Any:
    """Returns what a body says, packed or not."""
    return json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)


@contextmanager
def tracker_proxy(gateway: str) -> Iterator[TrackerProxy]:
    proxy = TrackerProxy(gateway)
    serving = threading.Thread(target=proxy.server.serve_forever, daemon=True)
    serving.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        serving.join(WITHIN_S)
