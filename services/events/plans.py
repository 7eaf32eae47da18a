"""Tracking plans: which contents may be published, and how one judges a customer event. Pure.

A rule's schema is held against `{type, name, user_id, ..., properties, traits, context}`; the
common rule is held against every customer event, beside the one of its type and name. Of several
policies that come to bear the strictest decides. What OMIT_PROPERTY leaves out is the property
that is wrong; in a list, the nearest property that holds it. What cannot be mended by leaving out,
such as a property that is missing, is flagged. What was mended is judged again: should the plan
now ask for quarantine or refusal, that is what happens, and the customer event stays whole.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jsonschema_rs

from rapport.events.v1.customer_event_pb2 import CustomerEventType, Violation
from rapport.events.v1.events_pb2 import TrackingPlanContent, TrackingPlanRule, ViolationPolicy
from services.events.door import Judgement, Verdict
from services.events.plan_schemas import (
    SchemaError,
    Validator,
    compiled,
    compiled_schema,
    count_parts,
    faults_of_each,
    read_schema,
)
from services.events.schema import NAME_CHARACTERS_MAX, count_values
from services.kernel.errors import FieldViolation

if TYPE_CHECKING:
    from services.events.schema import Opened

RULES_MAX = 1_000
CONTENT_BYTES_MAX = 256 * 1024
"""A version is one event, and the log takes 512 KiB in one."""
CONTENT_PARTS_MAX = 50_000
"""Subschemas of all rules together, each counted as often as a reference leads to it."""
DESCRIPTION_CHARACTERS_MAX = 2_000
VIOLATIONS_MAX = 20
DETAIL_CHARACTERS_MAX = 200
PATH_CHARACTERS_MAX = 500
OMISSION_ROUNDS_MAX = 10
"""Leaving out may uncover what must be left out, too; beyond this many times it is quarantined."""
FAULTS_MAX = 10_000
"""Where more could be wrong in lists, it is not all looked for: each takes time and room."""
COMPILED_PLANS_MAX = 256

UNPLANNED = "unplanned"
OMITTABLE = frozenset({"properties", "traits", "context"})

_TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
_ALLOW = ViolationPolicy.VIOLATION_POLICY_ALLOW_AND_FLAG
_OMIT = ViolationPolicy.VIOLATION_POLICY_OMIT_PROPERTY
_QUARANTINE = ViolationPolicy.VIOLATION_POLICY_QUARANTINE
_REFUSE = ViolationPolicy.VIOLATION_POLICY_REFUSE
_POLICIES = frozenset({_ALLOW, _OMIT, _QUARANTINE, _REFUSE})
_TYPES = frozenset(CustomerEventType.values()) - {CustomerEventType.CUSTOMER_EVENT_TYPE_UNSPECIFIED}
TYPE_WORDS = {
    value: name.removeprefix("CUSTOMER_EVENT_TYPE_").lower()
    for name, value in CustomerEventType.items()
}
_ID_FIELDS = ("name", "user_id", "anonymous_id", "previous_id", "group_id")
_UNEXPECTED = frozenset({"additionalProperties", "unevaluatedProperties"})

Path: TypeAlias = tuple[str | int, ...]
_AS_PLANNED = Judgement(Verdict.LET_IN, ())


class _Breach(NamedTuple):
    """A rule that does not hold: where, what may be left out to mend it, and what follows."""

    keyword: str
    path: Path
    detail: str
    policy: ViolationPolicy.ValueType
    omittable: Path | None


@dataclass(slots=True)
class _Rule:
    """A rule whose schema is compiled when the first customer event meets it."""

    schema: str
    policy: ViolationPolicy.ValueType
    unexpected_policy: ViolationPolicy.ValueType
    _validator: Validator | None = None
    _faults_of_each: int = 0

    @classmethod
    def of(cls, rule: TrackingPlanRule) -> _Rule:
        return cls(rule.schema, rule.policy, rule.unplanned_property_policy or rule.policy)

    def holds(self, instance: Mapping[str, Any]) -> bool:
        return self._compiled().is_valid(instance)

    def breaches(self, instance: Mapping[str, Any]) -> Iterator[_Breach]:
        validator = self._compiled()
        if self._faults_of_each * count_values(instance) > FAULTS_MAX:
            errors = _first_error(validator, instance)
            # What is behind the first is not known, so the stricter policy decides.
            policies = dict.fromkeys((True, False), max(self.policy, self.unexpected_policy))
        else:
            errors = validator.iter_errors(instance)
            policies = {True: self.unexpected_policy, False: self.policy}
        for error in errors:
            keyword = _keyword(error)
            policy = policies[keyword in _UNEXPECTED]
            at = tuple(error.instance_path)
            for path, detail in _places(error, keyword, at, instance):
                mendable = keyword != "required"
                omittable = _omittable(path) if mendable else None
                yield _Breach(keyword, path, detail, policy, omittable)

    def _compiled(self) -> Validator:
        if self._validator is None:
            self._validator, self._faults_of_each = _published(self.schema)
        return self._validator


@dataclass(frozen=True, slots=True)
class CompiledPlan:
    """A content ready to judge by; `name` is `trackingPlans/{id}@{version}`."""

    name: str
    unplanned_policy: ViolationPolicy.ValueType
    common: _Rule | None
    rules: Mapping[tuple[int, str], _Rule] = field(repr=False)

    def judge(self, opened: Opened) -> Judgement:
        """Judges a customer event, and leaves out of it what the plan says to leave out."""
        instance = instance_of(opened)
        rules = self._rules_for(opened.event.type, opened.event.name)
        if rules is not None and all(rule.holds(instance) for rule in rules):
            return _AS_PLANNED
        if rules is None:
            return self._judged(self._unplanned(instance))
        return self._mended(rules, instance, opened)

    def _rules_for(self, type_: int, name: str) -> Sequence[_Rule] | None:
        """What is held against a type and name, the common rule first; None if unplanned."""
        rule = self.rules.get((type_, name)) or self.rules.get((type_, ""))
        common = () if self.common is None else (self.common,)
        if rule is not None:
            return (*common, rule)
        return None if type_ == _TRACK and self.unplanned_policy else common

    def _unplanned(self, instance: Mapping[str, Any]) -> list[_Breach]:
        """What is wrong with a track call that no rule is about."""
        breach = _Breach(
            UNPLANNED, ("name",), "no rule is about this name", self.unplanned_policy, None
        )
        return [breach, *(self.common.breaches(instance) if self.common else ())]

    def _mended(
        self, rules: Sequence[_Rule], instance: dict[str, Any], opened: Opened
    ) -> Judgement:
        """Leaves out what is wrong, until nothing is left that could be."""
        found: dict[tuple[str, Path], _Breach] = {}
        omitted: set[str] = set()
        for _ in range(OMISSION_ROUNDS_MAX + 1):
            breaches = [breach for rule in rules for breach in rule.breaches(instance)]
            for breach in breaches:
                found.setdefault((breach.keyword, breach.path), breach)
                if breach.policy > found[breach.keyword, breach.path].policy:
                    found[breach.keyword, breach.path] = breach
            paths = {b.omittable for b in breaches if b.omittable and b.policy == _OMIT}
            if any(b.policy > _OMIT for b in breaches):
                return self._judged(found.values())
            if not paths:
                for name in omitted:
                    setattr(opened, name, instance[name])
                opened.changed |= omitted
                return self._judged(found.values())
            instance = _without(instance, paths, omitted)
        endless = _Breach(
            "omission",
            (),
            "leaving out uncovers ever more that must be left out",
            _QUARANTINE,
            None,
        )
        return self._judged([endless, *found.values()])

    def _judged(self, breaches: Iterable[_Breach]) -> Judgement:
        """The strictest policy's verdict; the violations that led to it come first."""
        ordered = sorted(breaches, key=lambda b: (-b.policy, pointer(b.path), b.keyword, b.detail))
        violations = [
            Violation(
                rule=breach.keyword,
                path=pointer(breach.path)[:PATH_CHARACTERS_MAX],
                detail=breach.detail[:DETAIL_CHARACTERS_MAX],
                tracking_plan=self.name,
            )
            for breach in ordered[:VIOLATIONS_MAX]
        ]
        strictest = ordered[0].policy
        if strictest == _REFUSE:
            return Judgement(Verdict.REFUSE, violations)
        verdict = Verdict.QUARANTINE if strictest == _QUARANTINE else Verdict.LET_IN
        return Judgement(verdict, violations)


def compiled_plan(name: str, content: TrackingPlanContent) -> CompiledPlan:
    """A content that may be published, ready to judge by."""
    return CompiledPlan(
        name=name,
        unplanned_policy=content.unplanned_policy,
        common=_Rule.of(content.common) if content.HasField("common") else None,
        rules={(rule.type, rule.event_name): _Rule.of(rule) for rule in content.rules},
    )


@lru_cache(maxsize=COMPILED_PLANS_MAX)
def published_plan(name: str, content: bytes) -> CompiledPlan:
    """The same of a version in its stored form, which never changes."""
    return compiled_plan(name, TrackingPlanContent.FromString(content))


def instance_of(opened: Opened) -> dict[str, Any]:
    """What schemas are held against."""
    event = opened.event
    instance: dict[str, Any] = {
        "type": TYPE_WORDS.get(event.type, ""),
        "properties": opened.properties,
        "traits": opened.traits,
        "context": opened.context,
    }
    for name in _ID_FIELDS:
        text = getattr(event, name)
        if text:
            instance[name] = text
    return instance


def invalidities(content: TrackingPlanContent, field_: str = "content") -> list[FieldViolation]:
    """What keeps a content from being drafted, each by its field."""
    if content.ByteSize() > CONTENT_BYTES_MAX:
        detail = f"has more than CONTENT_BYTES_MAX bytes, which is {CONTENT_BYTES_MAX}"
        return [FieldViolation(field_, detail)]
    if len(content.rules) > RULES_MAX:
        return [FieldViolation(f"{field_}.rules", f"are more than RULES_MAX, which is {RULES_MAX}")]
    found = list(_invalid_rules(content, field_))
    if content.HasField("common"):
        common = content.common
        if common.type or common.event_name:
            detail = "is about every type and name, so it says neither"
            found.append(FieldViolation(f"{field_}.common", detail))
        found += _invalid_rule(common, f"{field_}.common")
    unplanned = content.unplanned_policy
    if unplanned and (unplanned not in _POLICIES or unplanned == _OMIT):
        detail = "must be to allow, quarantine or refuse: there is no property to omit"
        found.append(FieldViolation(f"{field_}.unplanned_policy", detail))
    if not found and _parts_in(content) > CONTENT_PARTS_MAX:
        detail = f"has more than CONTENT_PARTS_MAX subschemas, which is {CONTENT_PARTS_MAX}"
        found.append(FieldViolation(field_, detail))
    return found


def _parts_in(content: TrackingPlanContent) -> int:
    """The subschemas of a content's rules, each found valid."""
    return sum(count_parts(read_schema(rule.schema)) for rule in content.rules)


def _invalid_rules(content: TrackingPlanContent, field_: str) -> Iterator[FieldViolation]:
    seen: set[tuple[int, str]] = set()
    for number, rule in enumerate(content.rules):
        place = f"{field_}.rules[{number}]"
        if rule.type not in _TYPES:
            yield FieldViolation(f"{place}.type", "must be one of the types of customer events")
        if len(rule.event_name) > NAME_CHARACTERS_MAX or "\0" in rule.event_name:
            yield FieldViolation(f"{place}.event_name", "is no name that a customer event can have")
        if (rule.type, rule.event_name) in seen:
            yield FieldViolation(place, "is the second one about this type and name")
        seen.add((rule.type, rule.event_name))
        yield from _invalid_rule(rule, place)


def _invalid_rule(rule: TrackingPlanRule, place: str) -> Iterator[FieldViolation]:
    if rule.policy not in _POLICIES:
        yield FieldViolation(f"{place}.policy", "must say what follows when the rule is broken")
    if rule.unplanned_property_policy not in {0, *_POLICIES}:
        yield FieldViolation(f"{place}.unplanned_property_policy", "is no policy")
    if len(rule.description) > DESCRIPTION_CHARACTERS_MAX:
        detail = f"is longer than {DESCRIPTION_CHARACTERS_MAX} characters"
        yield FieldViolation(f"{place}.description", detail)
    try:
        compiled(rule.schema)
    except SchemaError as error:
        yield FieldViolation(f"{place}.schema", f"{error}")


def _published(schema: str) -> tuple[Validator, int]:
    """A schema that was taken when it was published; should it no longer be, it asks nothing."""
    try:
        return compiled(schema), faults_of_each(read_schema(schema))
    except SchemaError:
        return compiled_schema(True), 0


def _first_error(validator: Validator, instance: Mapping[str, Any]) -> Iterator[Any]:
    try:
        validator.validate(instance)
    except jsonschema_rs.ValidationError as error:
        yield error


def pointer(path: Path) -> str:
    """A path as a JSON pointer."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def _keyword(error: Any) -> str:
    """The JSON Schema keyword that does not hold."""
    name: str = error.kind.name
    if name == "falseSchema":
        last = error.schema_path[-1] if error.schema_path else ""
        return last if last in _UNEXPECTED else "false"
    return name


def _places(
    error: Any, keyword: str, at: Path, instance: Mapping[str, Any]
) -> Iterator[tuple[Path, str]]:
    """Where a schema does not hold: at what is missing or unexpected, not at its holder."""
    if keyword == "required":
        yield (*at, error.kind.property), "is required"
    elif keyword == "propertyNames" and isinstance(error.kind.error.instance, str):
        yield (*at, error.kind.error.instance), "has a name that is not allowed"
    elif keyword in _UNEXPECTED:
        names = getattr(error.kind, "unexpected", None)
        for name in _at(instance, at) if names is None else names:
            yield (*at, name), "is not in the plan"
    else:
        yield at, error.message


def _omittable(path: Path) -> Path | None:
    """The property to leave out: the one at a path, or the nearest that holds it in a list."""
    if len(path) < 2 or path[0] not in OMITTABLE:  # noqa: PLR2004, the object and its property
        return None
    while isinstance(path[-1], int):
        path = path[:-1]
    return path if len(path) > 1 else None


def _at(instance: Any, path: Path) -> Any:
    for part in path:
        instance = instance[part]
    return instance


def _without(instance: dict[str, Any], paths: set[Path], omitted: set[str]) -> dict[str, Any]:
    """The instance without some properties; `omitted` learns which objects were copied."""
    for path in sorted(paths, key=len, reverse=True):
        name = str(path[0])
        if name not in omitted:
            instance = {**instance, name: copy.deepcopy(instance[name])}
            omitted.add(name)
        holder = _at(instance, path[:-1])
        holder.pop(path[-1], None)
    return instance
