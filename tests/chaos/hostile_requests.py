"""Requests that nobody means well with: each kind is a function of chance, and returns raw HTTP.

Whatever is sent shall be answered. `Hostile.ends` says that the connection is over afterwards, for
who speaks no HTTP.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass

PATHS = ["/v1/batch", "/v1/batch", "/v1/t", "/v1/identify", "/b", "/v1/page", "/v1/g", "/beacon"]
OTHERS = ["/", "/v1", "/v1/batch/x", "/%00", "/v1/../v1/batch", "/v1/contacts", "/v1/pixel/track"]
VERBS = ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "PROPFIND"]
BODY_BYTES_MAX = 500 * 1024
NUMBERS = ["1e400", "-1e400", "9" * 400, "-0", "1e-400", "NaN", "Infinity", "18446744073709551616"]
NUMBERS += ["0.1e", "01", "+1", "0x10", "1.", ".5"]
VALUES = [None, True, 0, -1, 1.5, "", "x", "\0", "\ud83d", [], {}, [[]], {"": {}}, "9" * 300]
FIELDS = ["type", "messageId", "userId", "anonymousId", "event", "name", "properties", "traits"]
FIELDS += ["context", "integrations", "timestamp", "originalTimestamp", "sentAt", "groupId"]
FIELDS += ["previousId", "category", "channel", "writeKey", "endsMembership"]


@dataclass(frozen=True, slots=True)
class Hostile:
    """One request as it goes over the wire."""

    raw: bytes
    kind: str
    ends: bool = False
    is_head: bool = False


class Hostility:
    """Makes requests by chance; `key` is a good write key, for what shall get past the door."""

    def __init__(self, chance, key):
        self._chance = chance
        self._basic = b"Basic " + base64.b64encode(f"{key}:".encode())
        self._number = 0
        self._kinds = [
            (self.sound, 2),
            (self.truncated, 22),
            (self.nested, 6),
            (self.wrong_types, 9),
            (self.bad_utf8, 12),
            (self.huge_numbers, 8),
            (self.duplicate_keys, 4),
            (self.broken_gzip, 14),
            (self.flipped, 14),
            (self.keyless, 13),
            (self.strange_http, 8),
            (self.no_http, 2),
        ]
        self._names, self._weights = zip(*self._kinds, strict=True)

    def one(self):
        if self._chance.random() < 0.0005:
            return self.oversized()
        return self._chance.choices(self._names, self._weights)[0]()

    def sound(self):
        return self._post("sound", self._body())

    def truncated(self):
        body = self._body()
        return self._post("truncated", body[: self._chance.randrange(len(body))])

    def nested(self):
        depth = int(10 ** self._chance.uniform(0, 3.6))
        opening, closing = self._chance.choice([("[", "]"), ('{"a":', "}")])
        inner = opening * depth + "1" + closing * self._chance.choice([depth, depth, depth - 1])
        event = self._event() | {self._chance.choice(FIELDS): "HERE"}
        text = json.dumps({"batch": [event]}).replace('"HERE"', inner)
        return self._post("nested", text.encode())

    def wrong_types(self):
        event = self._event()
        for field in self._chance.sample(FIELDS, self._chance.randint(1, 4)):
            event[field] = self._chance.choice(VALUES)
        items = [event, self._chance.choice(VALUES)]
        body = {"batch": items} if self._chance.random() < 0.7 else event
        if self._chance.random() < 0.1:
            body = self._chance.choice([*VALUES, {"batch": self._chance.choice(VALUES)}])
        return self._post("wrong types", json.dumps(body).encode())

    def bad_utf8(self):
        body = bytearray(self._body())
        for _ in range(self._chance.randint(1, 5)):
            body.insert(self._chance.randrange(len(body)), self._chance.randrange(0x80, 0x100))
        return self._post("bad utf-8", bytes(body))

    def huge_numbers(self):
        event = self._event() | {"properties": {"n": "HERE"}}
        event[self._chance.choice(FIELDS)] = "HERE"
        number = self._chance.choice(NUMBERS)
        text = json.dumps({"batch": [event]}).replace('"HERE"', number)
        return self._post("huge numbers", text.encode())

    def duplicate_keys(self):
        event = json.dumps(self._event())[:-1]
        for _ in range(self._chance.randint(1, 3)):
            field, value = self._chance.choice(FIELDS), self._chance.choice(VALUES)
            event += f', "{field}": {json.dumps(value)}, "properties": {{"a": 1, "a": 2}}'
        text = f'{{"batch": 5, "batch": [{event}}}], "writeKey": 1, "writeKey": null}}'
        return self._post("duplicate keys", text.encode())

    def broken_gzip(self):
        packed = bytearray(gzip.compress(self._body(), 1))
        if self._chance.random() < 0.5:
            packed = packed[: self._chance.randrange(len(packed))]
        else:
            packed[self._chance.randrange(len(packed))] ^= 1 << self._chance.randrange(8)
        encoding = self._chance.choice(["gzip", "gzip", "x-gzip", "br", "gzip, gzip", ""])
        more = [b"Content-Encoding: " + encoding.encode()] if encoding else []
        return self._post("broken gzip", bytes(packed), more=more)

    def flipped(self):
        body = bytearray(self._body())
        for _ in range(self._chance.randint(1, 6)):
            body[self._chance.randrange(len(body))] ^= 1 << self._chance.randrange(8)
        return self._post("flipped bits", bytes(body))

    def keyless(self):
        noise = base64.b64encode(self._chance.randbytes(self._chance.randrange(40)))
        authorization = self._chance.choice(
            [b"", b"Basic " + noise, b"Bearer " + noise, b"Basic", noise, b"Basic \xff\xfe"]
        )
        return self._post("no key", self._body(), authorization=authorization)

    def strange_http(self):
        verb = self._chance.choice([*VERBS, "POST", "POST"])
        path = self._chance.choice([*OTHERS, *PATHS])
        if self._chance.random() < 0.3:
            path += "?" + self._chance.choice(["data=%ff", "writeKey=", "a.b.c=1&a=2", "=&&%"])
        more = [b"X-Noise: " + self._chance.randbytes(20).hex().encode()] * 3
        return self._post("strange http", b"{}", path=path, verb=verb, more=more)

    def no_http(self):
        raw = self._chance.choice(
            [
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n",
                b"GET\r\n\r\n",
                b"POST /v1/batch HTTP/9.9\r\n\r\n",
                b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
                b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"\r\n\r\n??? " + self._chance.randbytes(8).hex().encode() + b"\r\n\r\n",
            ]
        )
        return Hostile(raw, "no http", ends=True)

    def oversized(self):
        bomb = self._chance.random() < 0.5
        body = b"[" * (BODY_BYTES_MAX + 1 + self._chance.randrange(1000))
        if bomb:
            body = gzip.compress(b" " * 20_000_000, 1)
        more = [b"Content-Encoding: gzip"] if bomb else []
        return self._post("oversized", body, more=more)

    def _event(self):
        self._number += 1
        return {
            "type": self._chance.choice(["track", "identify", "page", "group", "alias"]),
            "messageId": f"hostile-{self._number}",
            "userId": "u1",
            "event": "Order Completed",
            "properties": {"sku": "X1", "note": "grün \\u00e9"},
            "context": {"ip": "1.2.3.4"},
            "timestamp": "2026-01-02T03:04:05.678Z",
        }

    def _body(self):
        return json.dumps({"batch": [self._event()], "sentAt": "2026-01-02T03:04:06Z"}).encode()

    def _post(self, kind, body, *, path=None, verb="POST", authorization=None, more=()):
        head = [
            f"{verb} {path or self._chance.choice(PATHS)} HTTP/1.1".encode(),
            b"Host: gateway",
            b"Authorization: " + (self._basic if authorization is None else authorization),
            b"Content-Type: " + self._chance.choice([b"application/json", b"text/plain", b"?"]),
            b"Content-Length: " + str(len(body)).encode(),
            *more,
        ]
        return Hostile(b"\r\n".join([*head, b"", body]), kind, is_head=verb == "HEAD")
