"""Transformations: which ones may be created, and how they change a customer event. Pure.

They are applied in the order of their ranks, each seeing what those before it made. What a step is
about and is not there, is left alone. A step that cannot be done, as its expression has no value
or a path is in the way, leaves the customer event as it was and flags it: what a source sent is
never lost to a mistake in an expression. The same goes for a `when`, which then does not hold.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from rapport.events.v1.customer_event_pb2 import Violation
from rapport.events.v1.events_pb2 import TransformationSettings, TransformationStep
from services.events.event_paths import Path, PathError, found_at, places_at, put, read_path
from services.events.expression_syntax import ExpressionError
from services.events.expressions import (
    VALUE_DEPTH_MAX,
    Expression,
    Work,
    accepted_expression,
    compiled_expression,
)
from services.events.plans import DETAIL_CHARACTERS_MAX, TYPE_WORDS, VIOLATIONS_MAX, pointer
from services.events.schema import (
    EVENT_BYTES_MAX,
    NAME_CHARACTERS_MAX,
    Reason,
    Refusal,
    depth_of,
)
from services.kernel.errors import FieldViolation

if TYPE_CHECKING:
    from services.events.schema import Opened

SETTINGS_BYTES_MAX = 16 * 1024
STEPS_MAX = 50
SOURCES_MAX = 100
KEPT_CHARACTERS_MAX = 100
REFUSAL_CHARACTERS_MAX = 500

TRANSFORMATION = "transformation"
VARIABLES = frozenset(
    {
        "type",
        "name",
        "user_id",
        "anonymous_id",
        "previous_id",
        "group_id",
        "properties",
        "traits",
        "context",
    }
)
"""What expressions know."""
_MASK = "*"

Act: TypeAlias = "Callable[[Opened, Work], Refusal | None]"


class StepError(ValueError):
    """When a step cannot be done; says why."""


@dataclass(frozen=True, slots=True)
class Step:
    """One change, and where it is."""

    path: Path
    act: Act


@dataclass(frozen=True, slots=True)
class Transformation:
    """One transformation, ready to be applied; `name` is `transformations/{id}`."""

    name: str
    sources: frozenset[str]
    type: int
    event_name: str
    when: Expression | None
    steps: Sequence[Step]

    def applies_to(self, opened: Opened, work: Work) -> bool:
        """Whether a customer event is one that is changed."""
        event = opened.event
        if self.type and event.type != self.type:
            return False
        if self.event_name and event.name != self.event_name:
            return False
        if self.when is None:
            return True
        try:
            return self.when.holds(seen_of(opened), work)
        except ExpressionError as error:
            self._flag(opened, (), f"when: {error}")
            return False

    def apply(self, opened: Opened, work: Work) -> Refusal | None:
        """Does the steps in order, up to one that refuses."""
        for number, step in enumerate(self.steps):
            try:
                refusal = step.act(opened, work)
            except (StepError, PathError, ExpressionError) as error:
                self._flag(opened, step.path, f"steps[{number}]: {error}")
                continue
            if refusal is not None:
                return refusal
        return None

    def _flag(self, opened: Opened, path: Path, detail: str) -> None:
        if len(opened.event.violations) < VIOLATIONS_MAX:
            opened.event.violations.append(
                Violation(
                    rule=TRANSFORMATION,
                    path=pointer(path),
                    detail=f"{self.name}, {detail}"[:DETAIL_CHARACTERS_MAX],
                )
            )


@dataclass(frozen=True, slots=True)
class SourceTransformations:
    """What is changed in what one source sends, in order."""

    transformations: Sequence[Transformation]

    def apply(self, opened: Opened) -> Refusal | None:
        """Changes a customer event, or refuses it; flags on it what could not be done."""
        work = Work()
        for transformation in self.transformations:
            if transformation.applies_to(opened, work):
                refusal = transformation.apply(opened, work)
                if refusal is not None:
                    return refusal
        return None


@dataclass(frozen=True, slots=True)
class Transformations:
    """What is changed in what a workspace's sources send, in order."""

    transformations: Sequence[Transformation]

    def of(self, source: str) -> SourceTransformations | None:
        """Those that a source's customer events meet; None when there are none."""
        own = [each for each in self.transformations if not each.sources or source in each.sources]
        return SourceTransformations(own) if own else None


def in_order(
    named: Iterable[tuple[str, TransformationSettings]], *, hash_key: bytes
) -> Transformations:
    """Transformations by their names, ready to be applied, whatever the order they come in."""
    ordered = sorted(named, key=lambda each: (each[1].rank, each[0]))
    return Transformations([compiled(name, it, hash_key=hash_key) for name, it in ordered])


def compiled(name: str, settings: TransformationSettings, *, hash_key: bytes) -> Transformation:
    """Settings that were found valid, ready to be applied."""
    return Transformation(
        name=name,
        sources=frozenset(settings.sources),
        type=settings.type,
        event_name=settings.event_name,
        when=accepted_expression(settings.when, VARIABLES) if settings.when else None,
        steps=[_compiled_step(step, hash_key) for step in settings.steps],
    )


def seen_of(opened: Opened) -> Mapping[str, Any]:
    """What expressions see of a customer event."""
    event = opened.event
    return {
        "type": TYPE_WORDS.get(event.type, ""),
        "name": event.name,
        "user_id": event.user_id,
        "anonymous_id": event.anonymous_id,
        "previous_id": event.previous_id,
        "group_id": event.group_id,
        "properties": opened.properties,
        "traits": opened.traits,
        "context": opened.context,
    }


def _compiled_step(step: TransformationStep, hash_key: bytes) -> Step:
    match step.WhichOneof("step"):
        case "rename_event":
            return Step(("name",), partial(_set_text, "name", step.rename_event.event_name))
        case "rename_property":
            old, new = (
                read_path(step.rename_property.path),
                read_path(step.rename_property.new_path),
            )
            return Step(old, partial(_rename, old, new))
        case "drop":
            path = read_path(step.drop.path)
            return Step(path, partial(_drop, path))
        case "hash":
            path = read_path(step.hash.path)
            return Step(path, partial(_replace, path, partial(hashed, hash_key)))
        case "mask":
            path = read_path(step.mask.path)
            return Step(path, partial(_replace, path, partial(masked, step.mask.kept_characters)))
        case "set":
            path = read_path(step.set.path)
            expression = accepted_expression(step.set.expression, VARIABLES)
            return Step(path, partial(_set, path, expression))
    return Step((), lambda *_: Refusal(Reason.DROPPED, step.refuse.detail))


def hashed(key: bytes, value: Any) -> Any:
    """A keyed SHA-256 in hexadecimal, of a text as it is, of anything else as JSON; null stays."""
    if value is None:
        return None
    if isinstance(value, list):
        return [hashed(key, item) for item in value]
    content = (
        value.encode()
        if isinstance(value, str)
        else orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    )
    return hmac.digest(key, content, "sha256").hex()


def masked(kept_characters: int, value: Any) -> Any:
    """A text with `*` for all but its last characters; what is neither text nor number stays."""
    if isinstance(value, list):
        return [masked(kept_characters, item) for item in value]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    text = str(value)
    kept = kept_characters if len(text) > kept_characters else 0
    return _MASK * (len(text) - kept) + text[len(text) - kept :]


def _set_text(name: str, text: str, opened: Opened, _: Work) -> None:
    setattr(opened.event, name, text)


def _rename(old: Path, new: Path, opened: Opened, _: Work) -> None:
    holders = found_at(opened, old)
    if not holders:
        return
    if old[:-1] == new[:-1] and len(old) > 1:
        if any(new[-1] in holder for holder in holders):
            raise StepError(f"{new[-1]} is there, too")
        for holder in holders:
            holder[new[-1]] = holder[old[-1]]
            del holder[old[-1]]
    else:
        if len(holders) > 1:
            raise StepError("is there more than once")
        if found_at(opened, new):
            raise StepError(f"{new[-1]} is there, too")
        value = holders[0][old[-1]]
        if depth_of(value) + len(new) > VALUE_DEPTH_MAX:
            raise StepError(f"would be nested more than {VALUE_DEPTH_MAX} levels deep")
        put(places_at(opened, new), value)
        del holders[0][old[-1]]
    _mark(opened, old, new)


def _drop(path: Path, opened: Opened, _: Work) -> None:
    for holder in found_at(opened, path):
        del holder[path[-1]]
        _mark(opened, path)


def _replace(path: Path, change: Callable[[Any], Any], opened: Opened, _: Work) -> None:
    for holder in found_at(opened, path):
        holder[path[-1]] = change(holder[path[-1]])
        _mark(opened, path)


def _set(path: Path, expression: Expression, opened: Opened, work: Work) -> None:
    value = expression.value(seen_of(opened), work)
    # Else a few steps that each set what they see twice would fill the memory.
    size = len(orjson.dumps(value))
    if size > EVENT_BYTES_MAX:
        raise StepError(f"its value has more than {EVENT_BYTES_MAX} bytes")
    places = places_at(opened, path)
    work.take(size * len(places))
    put(places, value)
    _mark(opened, path)


def _mark(opened: Opened, *paths: Path) -> None:
    opened.changed.update(path[0] for path in paths if len(path) > 1)


def invalidities(settings: TransformationSettings, field: str = "settings") -> list[FieldViolation]:
    """What keeps a transformation from being created, each by its field."""
    if settings.ByteSize() > SETTINGS_BYTES_MAX:
        detail = f"have more than SETTINGS_BYTES_MAX bytes, which is {SETTINGS_BYTES_MAX}"
        return [FieldViolation(field, detail)]
    return [*_invalid_scope(settings, field), *_invalid_steps(settings, field)]


def _invalid_scope(settings: TransformationSettings, field: str) -> Iterator[FieldViolation]:
    if len(settings.sources) > SOURCES_MAX:
        yield FieldViolation(f"{field}.sources", f"are more than {SOURCES_MAX}")
    for number, source in enumerate(settings.sources[:SOURCES_MAX]):
        collection, _, source_id = source.partition("/")
        if collection != "sources" or not source_id or "/" in source_id:
            yield FieldViolation(f"{field}.sources[{number}]", "must look like sources/{id}")
    if settings.type not in TYPE_WORDS:
        yield FieldViolation(f"{field}.type", "is no type of customer events")
    if not _is_name(settings.event_name):
        yield FieldViolation(f"{field}.event_name", "is no name that a customer event can have")
    if settings.when:
        yield from _invalid(f"{field}.when", _read_expression, settings.when)


def _invalid_steps(settings: TransformationSettings, field: str) -> Iterator[FieldViolation]:
    if not settings.steps:
        yield FieldViolation(f"{field}.steps", "are needed: a transformation does something")
    if len(settings.steps) > STEPS_MAX:
        yield FieldViolation(f"{field}.steps", f"are more than STEPS_MAX, which is {STEPS_MAX}")
    for number, step in enumerate(settings.steps[:STEPS_MAX]):
        yield from _invalid_step(step, f"{field}.steps[{number}]")


def _invalid_step(step: TransformationStep, place: str) -> Iterator[FieldViolation]:
    kind = step.WhichOneof("step")
    if kind is None:
        yield FieldViolation(place, "says nothing to do")
        return
    said, place = getattr(step, kind), f"{place}.{kind}"
    for name in ("path", "new_path"):
        if name in said.DESCRIPTOR.fields_by_name:
            yield from _invalid(f"{place}.{name}", read_path, getattr(said, name))
    if kind == "rename_property" and _leads_into(said.path, said.new_path):
        yield FieldViolation(f"{place}.new_path", "leads into the other path, or back to it")
    if kind == "rename_event" and not (said.event_name.strip() and _is_name(said.event_name)):
        yield FieldViolation(f"{place}.event_name", "is no name that a customer event can have")
    if kind == "mask" and said.kept_characters > KEPT_CHARACTERS_MAX:
        yield FieldViolation(f"{place}.kept_characters", f"is more than {KEPT_CHARACTERS_MAX}")
    if kind == "set":
        yield from _invalid(f"{place}.expression", _read_expression, said.expression)
    if kind == "refuse" and not _is_detail(said.detail):
        detail = f"must say why, in at most {REFUSAL_CHARACTERS_MAX} characters"
        yield FieldViolation(f"{place}.detail", detail)


def _invalid(place: str, read: Callable[[str], object], text: str) -> Iterator[FieldViolation]:
    try:
        read(text)
    except (PathError, ExpressionError) as error:
        yield FieldViolation(place, str(error))


def _read_expression(text: str) -> Expression:
    return compiled_expression(text, VARIABLES)


def _leads_into(path: str, other: str) -> bool:
    try:
        one, two = read_path(path), read_path(other)
    except PathError:
        return False
    shorter = min(len(one), len(two))
    return one[:shorter] == two[:shorter]


def _is_detail(text: str) -> bool:
    return bool(text.strip()) and len(text) <= REFUSAL_CHARACTERS_MAX and "\0" not in text


def _is_name(text: str) -> bool:
    return len(text) <= NAME_CHARACTERS_MAX and "\0" not in text
