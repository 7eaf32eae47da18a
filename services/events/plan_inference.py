"""A tracking plan made of customer events: every one that was seen satisfies it. Pure.

Per type, and per name of track calls, it says which properties and traits there are, what types
they have, whether they were always there, and, when enough were seen, what form texts have and
which few values there are.
It forbids no further properties. Objects with very many names are taken for maps and left open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanRule, ViolationPolicy
from services.events.plan_schemas import (
    DRAFT_2020_12,
    SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX,
    SCHEMA_PARTS_MAX,
)
from services.events.plans import CONTENT_BYTES_MAX, CONTENT_PARTS_MAX, RULES_MAX

if TYPE_CHECKING:
    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from services.events.schema import Opened

NAMES_MAX = 200
"""Names an object may have; with more it is a map, whose names mean nothing to a plan."""
DEPTH_MAX = 6
PLACES_MAX = 200_000
"""Of all types and names together: what an inference keeps in memory."""
ENUM_VALUES_MAX = 8
ENUM_CHARACTERS_MAX = 100
ENUM_EVIDENCE_MIN = 10
"""How often each of few values must have been seen on average to be taken for all there are."""
FORMATS = ("date-time", "date", "email", "uuid", "ipv4")
FORMAT_EVIDENCE_MIN = 3

_ALLOW = ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG
_FORMATS = {
    name: jsonschema_rs.Draft202012Validator({"format": name}, validate_formats=True, offline=True)
    for name in FORMATS
}


@dataclass(slots=True)
class Room:
    """How many more places may be taken notice of; names beyond are left open."""

    left: int = PLACES_MAX


@dataclass(slots=True)
class Seen:
    """What was seen in one place."""

    room: Room
    depth: int = 0
    count: int = 0
    types: set[str] = field(default_factory=set)
    objects: int = 0
    names: dict[str, Seen] = field(default_factory=dict)
    is_map: bool = False
    items: Seen | None = None
    texts: int = 0
    values: set[str] | None = field(default_factory=set)
    formats: set[str] = field(default_factory=lambda: set(FORMATS))

    def add(self, value: Any) -> None:
        """Takes notice of a value."""
        self.count += 1
        self.types.add(_type_of(value))
        if isinstance(value, str):
            self._add_text(value)
        elif isinstance(value, dict) and self.depth < DEPTH_MAX:
            self._add_object(value)
        elif isinstance(value, list) and self.depth < DEPTH_MAX:
            if self.items is None:
                self.items = Seen(self.room, self.depth + 1)
            for item in value:
                self.items.add(item)

    def schema(self) -> dict[str, Any]:
        """What everything that was seen satisfies."""
        schema: dict[str, Any] = {}
        types = self.types - {"integer"} if "number" in self.types else self.types
        if types:
            schema["type"] = sorted(types) if len(types) > 1 else next(iter(types))
        if self.names:
            schema["properties"] = {name: seen.schema() for name, seen in self.names.items()}
            required = sorted(n for n, seen in self.names.items() if seen.count == self.objects)
            if required:
                schema["required"] = required
        if self.items is not None and self.items.count:
            schema["items"] = self.items.schema()
        if types <= {"string"}:
            schema.update(self._text_rules())
        return schema

    def _text_rules(self) -> Iterator[tuple[str, Any]]:
        """Few values, or one form; only of what was nothing but texts."""
        if self.values and self.texts >= ENUM_EVIDENCE_MIN * len(self.values):
            yield "enum", sorted(self.values)
        elif self.texts >= FORMAT_EVIDENCE_MIN:
            yield from [("format", name) for name in FORMATS if name in self.formats][:1]

    def _add_text(self, text: str) -> None:
        self.texts += 1
        if self.values is not None:
            self.values.add(text)
            if len(self.values) > ENUM_VALUES_MAX or len(text) > ENUM_CHARACTERS_MAX:
                self.values = None
        for name in tuple(self.formats):
            if not _FORMATS[name].is_valid(text):
                self.formats.discard(name)

    def _add_object(self, value: Mapping[str, Any]) -> None:
        self.objects += 1
        if self.is_map:
            return
        for name, inner in value.items():
            if name not in self.names:
                if not self.room.left:
                    continue
                self.room.left -= 1
                self.names[name] = Seen(self.room, self.depth + 1)
            self.names[name].add(inner)
        if len(self.names) > NAMES_MAX:
            self.is_map = True
            self.names = {}


@dataclass(slots=True)
class Inference:
    """Customer events by what they are, as they come."""

    seen: dict[tuple[int, str], dict[str, Seen]] = field(default_factory=dict)
    left_out: set[tuple[int, str]] = field(default_factory=set)
    room: Room = field(default_factory=Room)

    def add(self, opened: Opened) -> None:
        """Takes notice of a customer event."""
        key = kind_of(opened.event)
        known = self.seen.get(key)
        if known is None:
            if len(self.seen) >= RULES_MAX:
                if len(self.left_out) < RULES_MAX:
                    self.left_out.add(key)
                return
            known = self.seen[key] = {
                "properties": Seen(self.room, 1),
                "traits": Seen(self.room, 1),
            }
        known["properties"].add(opened.properties)
        known["traits"].add(opened.traits)

    def content(self) -> tuple[TrackingPlanContent, int]:
        """A content that can be drafted, and how many types and names it leaves out.

        When it would be too large those that came least often are left out. Only when none is does
        it flag what it does not know.
        """
        content = TrackingPlanContent()
        size = parts = 0
        left_out = len(self.left_out)
        often = sorted(self.seen.items(), key=lambda it: (-it[1]["properties"].count, it[0]))
        for (type_, name), seen in often:
            schema, count = _fitting(seen)
            rule = TrackingPlanRule(
                type=CustomerEventType.ValueType(type_),
                event_name=name,
                schema=schema,
                policy=_ALLOW,
            )
            size, parts = size + rule.ByteSize() + _RULE_OVERHEAD_BYTES, parts + count
            if size > CONTENT_BYTES_MAX or parts > CONTENT_PARTS_MAX:
                left_out += len(self.seen) - len(content.rules)
                break
            content.rules.append(rule)
        if content.rules and not left_out:
            content.unplanned_policy = _ALLOW
        content.rules.sort(key=lambda rule: (rule.type, rule.event_name))
        return content, left_out


_RULE_OVERHEAD_BYTES = 8


def kind_of(customer_event: CustomerEvent) -> tuple[int, str]:
    """What has a rule of its own: pages and screens have as many names as there are urls."""
    is_named = customer_event.type == CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
    return customer_event.type, customer_event.name if is_named else ""


def _fitting(seen: Mapping[str, Seen]) -> tuple[str, int]:
    """The schema of one type and name, less deep when it would be too large, and its parts."""
    whole: dict[str, Any] = {
        "$schema": DRAFT_2020_12,
        "type": "object",
        "properties": {name: each.schema() for name, each in seen.items() if each.names},
    }
    for depth in range(SCHEMA_DEPTH_MAX // 2, 0, -1):
        schema = _cut(whole, depth)
        text = orjson.dumps(schema).decode()
        if len(text.encode()) <= SCHEMA_BYTES_MAX and _count(schema) <= SCHEMA_PARTS_MAX:
            return text, _count(schema)
    return '{"type":"object"}', 1


def _cut(schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """A schema that asks nothing below a depth."""
    kept = dict(schema)
    if depth == 0:
        for keyword in ("properties", "required", "items"):
            kept.pop(keyword, None)
        return kept
    if "properties" in kept:
        kept["properties"] = {n: _cut(each, depth - 1) for n, each in kept["properties"].items()}
    if "items" in kept:
        kept["items"] = _cut(kept["items"], depth - 1)
    return kept


def _count(schema: Mapping[str, Any]) -> int:
    """The parts of a schema without references, without the limit of a published one."""
    inner = [*schema.get("properties", {}).values()]
    if "items" in schema:
        inner.append(schema["items"])
    return 1 + sum(_count(each) for each in inner)


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "number"
    return "array" if isinstance(value, list) else "object"
