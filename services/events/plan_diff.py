"""How two contents of a tracking plan differ: rule by rule, property by property. Pure.

A property is what a schema names under `properties`, at any depth, references followed; a list's
items are `*`. Of each it is told whether its type, whether it is required, or anything else that is
said of it has changed. Words for people only, such as `title`, do not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, TypeAlias

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanRule, ViolationPolicy
from rapport.events.v1.tracking_plans_pb2 import (
    ChangeKind,
    PropertyChange,
    RuleChange,
    ValueChange,
)
from services.events.plan_schemas import Schema, SchemaError, read_schema, resolved

PROPERTY_CHANGES_MAX = 10_000

_ADDED = ChangeKind.CHANGE_KIND_ADDED
_REMOVED = ChangeKind.CHANGE_KIND_REMOVED
_CHANGED = ChangeKind.CHANGE_KIND_CHANGED
_UNSAID = frozenset(
    {
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "definitions",
        "description",
        "examples",
        "properties",
        "required",
        "title",
        "type",
    }
)

Key: TypeAlias = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Property:
    """What a schema says of one property."""

    type: str
    required: bool
    rest: str


@dataclass(slots=True)
class PlanDiff:
    """The changes that lead from one content to another."""

    changes: list[RuleChange] = field(default_factory=list)
    unplanned_policy: ValueChange | None = None
    is_complete: bool = True


def diff(before: TrackingPlanContent, after: TrackingPlanContent) -> PlanDiff:
    """What is otherwise after than before, in the order of types and names."""
    told = PlanDiff()
    old, new = rules_by_key(before), rules_by_key(after)
    left = PROPERTY_CHANGES_MAX
    for key in sorted(old.keys() | new.keys()):
        change, is_complete = _rule_change(key, old.get(key), new.get(key), left)
        if change is not None:
            told.changes.append(change)
            left -= len(change.properties)
        told.is_complete &= is_complete
    policies = _value(
        "unplanned_policy", _policy(before.unplanned_policy), _policy(after.unplanned_policy)
    )
    told.unplanned_policy = next(policies, None)
    return told


def rules_by_key(content: TrackingPlanContent) -> dict[Key, TrackingPlanRule]:
    """The rules by type and name; the common one, which has neither, is the first."""
    rules: dict[Key, TrackingPlanRule] = {}
    if content.HasField("common"):
        rules[CustomerEventType.CUSTOMER_EVENT_TYPE_UNSPECIFIED, ""] = content.common
    for rule in content.rules:
        rules[rule.type, rule.event_name] = rule
    return rules


def properties_of(schema: Schema, root: Schema) -> Iterator[tuple[str, Property]]:
    """Each property that a schema names, with its JSON pointer; the schema itself has ``."""
    pending: list[tuple[str, Any, bool]] = [("", schema, False)]
    while pending:
        path, part, is_required = pending.pop()
        part = resolved(part, root)
        if not isinstance(part, dict):
            yield path, Property("", is_required, _text(part))
            continue
        yield path, Property(_type_of(part), is_required, _rest_of(part))
        required = part.get("required")
        names = part.get("properties")
        for name, inner in names.items() if isinstance(names, dict) else ():
            escaped = name.replace("~", "~0").replace("/", "~1")
            is_needed = isinstance(required, list) and name in required
            pending.append((f"{path}/{escaped}", inner, is_needed))
        if isinstance(part.get("items"), dict):
            pending.append((f"{path}/*", part["items"], False))


def _rule_change(
    key: Key, old: TrackingPlanRule | None, new: TrackingPlanRule | None, left: int
) -> tuple[RuleChange | None, bool]:
    """How a rule differs, and whether all of it could be told."""
    before, after = _properties(old), _properties(new)
    values = list(_rule_values(old, new, before.pop("", None), after.pop("", None)))
    changes = _property_changes(before, after)
    properties = list(islice(changes, left))
    is_complete = next(changes, None) is None
    if old is not None and new is not None and not values and not properties and is_complete:
        return None, True
    kind = _ADDED if old is None else _REMOVED if new is None else _CHANGED
    change = RuleChange(
        type=CustomerEventType.ValueType(key[0]),
        event_name=key[1],
        kind=kind,
        values=values,
        properties=properties,
    )
    return change, is_complete


def _properties(rule: TrackingPlanRule | None) -> dict[str, Property]:
    if rule is None:
        return {}
    try:
        schema = read_schema(rule.schema)
        return dict(properties_of(schema, schema))
    except SchemaError:
        return {"": Property("", required=False, rest=rule.schema)}


def _rule_values(
    old: TrackingPlanRule | None,
    new: TrackingPlanRule | None,
    before: Property | None,
    after: Property | None,
) -> Iterator[ValueChange]:
    one, other = old or TrackingPlanRule(), new or TrackingPlanRule()
    for name in ("policy", "unplanned_property_policy"):
        yield from _value(name, _policy(getattr(one, name)), _policy(getattr(other, name)))
    yield from _value("description", one.description, other.description)
    for change in _property_values(before, after):
        if change.field != "required":
            yield change


def _property_changes(
    before: Mapping[str, Property], after: Mapping[str, Property]
) -> Iterator[PropertyChange]:
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old != new:
            kind = _ADDED if old is None else _REMOVED if new is None else _CHANGED
            yield PropertyChange(path=path, kind=kind, values=_property_values(old, new))


def _property_values(old: Property | None, new: Property | None) -> Iterator[ValueChange]:
    for name, read in (
        ("type", lambda it: it.type),
        ("required", lambda it: "true" if it.required else "false"),
        ("schema", lambda it: it.rest),
    ):
        yield from _value(name, read(old) if old else "", read(new) if new else "")


def _value(name: str, before: str, after: str) -> Iterator[ValueChange]:
    if before != after:
        yield ValueChange(field=name, before=before, after=after)


def _policy(policy: ViolationPolicy.ValueType) -> str:
    return ViolationPolicy.Name(policy).removeprefix("VIOLATION_POLICY_") if policy else ""


def _type_of(part: Mapping[str, Any]) -> str:
    said = part.get("type", "")
    return " or ".join(sorted(map(str, said))) if isinstance(said, list) else str(said)


def _rest_of(part: Mapping[str, Any]) -> str:
    """What a schema says beside types and properties; empty when nothing."""
    rest = {
        keyword: value
        for keyword, value in part.items()
        if keyword not in _UNSAID and not (keyword == "items" and isinstance(value, dict))
    }
    return _text(rest) if rest else ""


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
