"""JSON Schemas of tracking plans: which ones are taken, and how one is compiled. Pure.

A schema is held against every customer event, so what it may cost is bounded when it is published:
nothing is ever fetched, references stay within the schema and never lead in a circle, and the parts
that a customer event meets are counted with every reference followed. Regular expressions are
those of a linear-time engine, which knows neither look-around nor back-references.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import jsonschema_rs
import orjson

SCHEMA_BYTES_MAX = 32 * 1024
SCHEMA_PARTS_MAX = 2_000
"""Subschemas that one customer event may meet, each counted as often as a reference leads to it."""
SCHEMA_DEPTH_MAX = 32
PATTERN_BYTES_MAX = 100_000
"""What a regular expression may take when it is compiled; the time it takes grows with it."""
PATTERNS_MAX = 100
"""Regular expressions in one schema, which are all kept compiled."""
_CACHE_BYTES_MAX = 2_000_000

DRAFT_7 = "http://json-schema.org/draft-07/schema"
DRAFT_2020_12 = "https://json-schema.org/draft/2020-12/schema"

Schema: TypeAlias = dict[str, Any] | bool
Validator: TypeAlias = jsonschema_rs.Draft7Validator | jsonschema_rs.Draft202012Validator

_DRAFTS: Mapping[object, type[Validator]] = {
    DRAFT_7: jsonschema_rs.Draft7Validator,
    DRAFT_7.replace("http:", "https:"): jsonschema_rs.Draft7Validator,
    DRAFT_2020_12: jsonschema_rs.Draft202012Validator,
    DRAFT_2020_12.replace("https:", "http:"): jsonschema_rs.Draft202012Validator,
}

_REFERENCE = re.compile(r"#/(\$defs|definitions)/([^/~%]+)")
_FORBIDDEN = (
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
)
_OF_ONE = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_OF_LIST = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_OF_NAMES = frozenset({"dependencies", "dependentSchemas", "patternProperties", "properties"})


_OF_MANY = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "items",
        "patternProperties",
        "propertyNames",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""What of a schema is held against as many values as there are."""


class SchemaError(ValueError):
    """When a text is no JSON Schema that may be published; says why."""


def compiled(text: str) -> Validator:
    """A schema ready to validate by, else SchemaError."""
    return compiled_schema(read_schema(text))


def compiled_schema(schema: Schema, *, pattern_bytes_max: int = PATTERN_BYTES_MAX) -> Validator:
    """The same of a schema that was read."""
    draft = _DRAFTS.get(_dialect(schema))
    if draft is None:
        raise SchemaError(f"$schema must be {DRAFT_7}# or {DRAFT_2020_12}")
    count_parts(schema)
    try:
        # Masked, as violations are kept for people who may not see the values.
        validator: Validator = draft(
            schema,
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(
                size_limit=pattern_bytes_max, dfa_size_limit=_CACHE_BYTES_MAX
            ),
            mask="the value",
            offline=True,
        )
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"/{part}" for part in error.instance_path)
        raise SchemaError(f"{place or '/'}: {error.message}"[:500]) from None
    except ValueError as error:
        raise SchemaError(f"{error}"[:500]) from None
    return validator


def read_schema(text: str) -> Schema:
    """A schema as JSON, else SchemaError."""
    if len(text.encode()) > SCHEMA_BYTES_MAX:
        raise SchemaError(f"has more than SCHEMA_BYTES_MAX bytes, which is {SCHEMA_BYTES_MAX}")
    if "\0" in text or "\\u0000" in text.replace("\\\\", ""):
        # What it names could be told of no customer event: no column holds it.
        raise SchemaError("contains the character U+0000")
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise SchemaError(f"is not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise SchemaError("must be a JSON object, or true or false")
    return schema


def resolved(schema: Schema, root: Schema) -> Schema:
    """What a reference at the top of a subschema leads to, beside what is said there."""
    if not isinstance(schema, dict) or "$ref" not in schema:
        return schema
    target = _target(schema["$ref"], root)
    rest = {key: value for key, value in schema.items() if key != "$ref"}
    found = resolved(target, root)
    return {**found, **rest} if isinstance(found, dict) else found


def _dialect(schema: Schema) -> object:
    said = schema.get("$schema", DRAFT_2020_12) if isinstance(schema, dict) else DRAFT_2020_12
    return said.removesuffix("#") if isinstance(said, str) else None


def count_parts(root: Schema) -> int:
    """How many subschemas a customer event may meet, references followed; else SchemaError."""
    count = patterns = 0
    walk: list[tuple[Any, int, frozenset[str]]] = [(root, 1, frozenset())]
    while walk:
        part, depth, followed = walk.pop()
        count += 1
        if count > SCHEMA_PARTS_MAX:
            raise SchemaError(
                f"has more than SCHEMA_PARTS_MAX subschemas, which is {SCHEMA_PARTS_MAX}"
            )
        if depth > SCHEMA_DEPTH_MAX:
            raise SchemaError(
                f"is nested more than SCHEMA_DEPTH_MAX levels, which is {SCHEMA_DEPTH_MAX}"
            )
        if not isinstance(part, dict):
            continue
        _check_words(part, is_root=part is root)
        patterns += ("pattern" in part) + _length(part.get("patternProperties"))
        if patterns > PATTERNS_MAX:
            detail = f"has more than PATTERNS_MAX regular expressions, which is {PATTERNS_MAX}"
            raise SchemaError(detail)
        walk += [(inner, depth + 1, followed) for inner in parts_of(part)]
        if "$ref" in part:
            reference = part["$ref"]
            target = _target(reference, root)
            if reference in followed:
                raise SchemaError(f"the reference {reference} leads back to itself")
            walk.append((target, depth + 1, followed | {reference}))
    return count


def faults_of_each(root: Schema) -> int:
    """How much may be wrong with each of the many values of a list or an object, at the most."""
    found = 0
    walk: list[tuple[Any, bool]] = [(root, False)]
    while walk:
        part, is_of_many = walk.pop()
        if not isinstance(part, dict):
            found += is_of_many
            continue
        if is_of_many:
            found += len(part) + sum(map(_length, (part.get("required"), *_dependent(part))))
        for keyword, value in part.items():
            inside = is_of_many or keyword in _OF_MANY
            walk += [(inner, inside) for inner in parts_of({keyword: value})]
        if "$ref" in part:
            walk.append((_target(part["$ref"], root), is_of_many))
    return found


def _dependent(part: Mapping[str, Any]) -> Iterator[Any]:
    for keyword in ("dependentRequired", "dependencies"):
        named = part.get(keyword)
        yield from named.values() if isinstance(named, dict) else ()


def _length(value: Any) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def parts_of(part: Mapping[str, Any]) -> Iterator[Any]:
    """The subschemas directly inside a schema that a value may meet."""
    for keyword, value in part.items():
        if keyword in _OF_LIST and isinstance(value, list):
            yield from value
        elif keyword in _OF_ONE and isinstance(value, dict | bool):
            yield value
        elif keyword in _OF_NAMES and isinstance(value, dict):
            yield from (inner for inner in value.values() if isinstance(inner, dict | bool))


def _check_words(part: Mapping[str, Any], *, is_root: bool) -> None:
    for word in _FORBIDDEN:
        if word in part:
            raise SchemaError(f"{word} is not understood")
    if not is_root and ("$id" in part or "$schema" in part):
        raise SchemaError("only the whole schema may have a $schema or an $id")


def _target(reference: object, root: Schema) -> Schema:
    found = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if found is None:
        raise SchemaError("a $ref must look like #/$defs/name or #/definitions/name")
    named = root.get(found[1]) if isinstance(root, dict) else None
    target = named.get(found[2]) if isinstance(named, dict) else None
    if not isinstance(target, dict | bool):
        raise SchemaError(f"the reference {reference} leads nowhere")
    return target
