"""A web server's combined access log: one page view per line, by visitors nobody knows. Pure.

A visitor is an address with a user agent. Bots are kept and say so in a property. A log knows the
paths of pages and not their names, so the page views have none.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import orjson

from deploy.demo.cargo import Cargo, Item, Refused, Source, checksum, most_active
from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType

PREFIX: Final = "access-log-"
AGENT_DIGITS: Final = 12

_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
_LINE: Final = re.compile(
    rf"(\S+) \S+ (\S+) \[([^\]]+)\] {_QUOTED} (\d{{3}}) (\d+|-) {_QUOTED} {_QUOTED}"
)
_REQUEST: Final = re.compile(r"([A-Z]+) (\S+) (HTTP/\S+)")
_BOT: Final = re.compile(
    r"bot\b|bot[/_-]|crawl|spider|slurp|feed|rss|archiver|curl|wget|python|java/|libwww|monitor",
    re.IGNORECASE,
)


def read(source: Source) -> Cargo[CustomerEvent]:
    """Reads the file into page views."""
    items: list[Item[CustomerEvent]] = []
    refused: list[Refused] = []
    count = 0
    for count, line in enumerate(source.lines(), start=1):
        text = line.rstrip("\r\n")
        try:
            items.append(read_line(count, text))
        except ValueError as error:
            refused.append(Refused(source.name, count, str(error), text))
    return Cargo(
        file=source.name,
        rows=count,
        items=items,
        refused=refused,
        filter=f'message_id = "{PREFIX}*"',
        measure=measure,
        followed=most_active(
            (f"anonymous_id:{item.message.anonymous_id}", item.key) for item in items
        ),
    )


def read_line(number: int, text: str) -> Item[CustomerEvent]:
    """Reads one line; raises ValueError when it is none of a combined access log."""
    parsed = _LINE.fullmatch(text)
    if parsed is None:
        raise ValueError("no line of a combined access log (a quote, field or bracket is missing)")
    address, _, time, request, status, size, referrer, agent = parsed.groups()
    asked = _REQUEST.fullmatch(request)
    if asked is None:
        raise ValueError(f"no HTTP request: {request!r}")
    method, target, protocol = asked.groups()
    properties: dict[str, str | int | bool] = {
        "path": target.partition("?")[0],
        "url": target,
        "method": method,
        "protocol": protocol,
        "status": int(status),
    }
    properties |= {"bytes": int(size)} if size != "-" else {}
    properties |= {"referrer": referrer} if referrer not in {"", "-"} else {}
    properties |= {"bot": True} if _BOT.search(agent) else {}
    message = CustomerEvent(
        message_id=f"{PREFIX}{number}",
        type=CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE,
        anonymous_id=visitor(address, agent),
        properties=orjson.dumps(properties).decode(),
        context=orjson.dumps({"ip": address, "userAgent": agent}).decode(),
    )
    message.original_time.FromDatetime(_utc(time))
    tally = {
        "page views": 1,
        "bytes": 0 if size == "-" else int(size),
        f"status {status[0]}xx": 1,
        "by bots": 1 if "bot" in properties else 0,
        "checksum": checksum([f"{address}/{target}/{referrer}/{agent}"]),
    }
    return Item(number, message.message_id, message, tally)


def measure(found: CustomerEvent) -> Mapping[str, int]:
    """Counts a page view that the platform gave back."""
    properties = orjson.loads(found.properties)
    context = orjson.loads(found.context)
    told = (context["ip"], properties["url"], properties.get("referrer", "-"), context["userAgent"])
    return {
        "page views": 1,
        "bytes": properties.get("bytes", 0),
        f"status {properties['status'] // 100}xx": 1,
        "by bots": 1 if properties.get("bot") else 0,
        "checksum": checksum(["/".join(told)]),
    }


def visitor(address: str, agent: str) -> str:
    """Returns the anonymous id of an address with a user agent."""
    digest = hashlib.sha256(agent.encode()).hexdigest()
    return f"{address}-{digest[:AGENT_DIGITS]}"


def _utc(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%d/%b/%Y:%H:%M:%S %z").astimezone(UTC)
    except ValueError as error:
        raise ValueError(f"no time: {text!r}") from error
