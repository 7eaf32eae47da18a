"""A schema of a plan is taken when it costs little and fetches nothing, else refused with why."""

import json
import time

import pytest

from services.events.plan_schemas import (
    PATTERN_BYTES_MAX,
    PATTERNS_MAX,
    SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX,
    SCHEMA_PARTS_MAX,
    SchemaError,
    compiled,
    count_parts,
    faults_of_each,
)

DEFINED = {"$defs": {"sku": {"type": "string"}}, "properties": {"sku": {"$ref": "#/$defs/sku"}}}


def of_properties(count):
    return {"properties": {f"p{number}": {} for number in range(count)}}


def nested(depth):
    schema = {}
    for _ in range(depth - 1):
        schema = {"properties": {"a": schema}}
    return schema


def of_bytes(size):
    text = json.dumps({"description": ""})
    return text.replace('""', f'"{"x" * (size - len(text))}"')


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        DEFINED,
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {"$id": "https://example.com/plan", "type": "object"},
        {"properties": {"$ref": {"type": "string"}, "$anchor": {}}},
        {"enum": [{"$ref": "https://example.com"}]},
        {"pattern": "^[a-z]{2,5}-\\d+$"},
        {"pattern": "(a+)+$"},
    ],
)
def test_a_schema_of_the_two_drafts_is_taken(schema):
    compiled(json.dumps(schema))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is not JSON"),
        ("[]", "must be a JSON object"),
        ('{"type": "strin"}', "/type"),
        ('{"properties": {"a": {"minimum": "1"}}}', "/properties/a/minimum"),
        ('{"$schema": "http://json-schema.org/draft-04/schema#"}', "$schema must be"),
        ('{"$ref": "https://example.com/x.json"}', "a $ref must look like"),
        ('{"properties": {"a": {"$ref": "file:///x"}}}', "a $ref must look like"),
        ('{"$defs": {"a": {"$ref": "http://127.0.0.1:9/"}}}', "Retrieval is disabled"),
        ('{"$ref": "#"}', "a $ref must look like"),
        ('{"$ref": "#/$defs/nowhere"}', "leads nowhere"),
        ('{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}', "leads back"),
        ('{"$dynamicRef": "#a"}', "$dynamicRef is not understood"),
        ('{"properties": {"a": {"$id": "http://x"}}}', "only the whole schema"),
        ('{"required": ["a\\u0000b"]}', "U+0000"),
        ('{"properties": {"a\\\\\\u0000b": false}}', "U+0000"),
        ('{"pattern": "(?=a)b"}', "/pattern"),
        ('{"pattern": "(a)\\\\1"}', "/pattern"),
        ('{"pattern": "(x{1,50}){1,50}y"}', "/pattern"),
    ],
)
def test_what_is_no_schema_or_costs_too_much_is_refused_with_why(text, why):
    with pytest.raises(SchemaError) as refused:
        compiled(text)

    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("at_the_edge", "past_it", "limit"),
    [
        (of_bytes(SCHEMA_BYTES_MAX), of_bytes(SCHEMA_BYTES_MAX + 1), "SCHEMA_BYTES_MAX"),
        (
            json.dumps(of_properties(SCHEMA_PARTS_MAX - 1)),
            json.dumps(of_properties(SCHEMA_PARTS_MAX)),
            "SCHEMA_PARTS_MAX",
        ),
        (
            json.dumps(nested(SCHEMA_DEPTH_MAX)),
            json.dumps(nested(SCHEMA_DEPTH_MAX + 1)),
            "SCHEMA_DEPTH_MAX",
        ),
        (
            json.dumps({"allOf": [{"pattern": "a"}] * PATTERNS_MAX}),
            json.dumps(
                {"patternProperties": {"b": {}}, "allOf": [{"pattern": "a"}] * PATTERNS_MAX}
            ),
            "PATTERNS_MAX",
        ),
    ],
)
def test_a_limit_is_kept_at_its_edge(at_the_edge, past_it, limit):
    compiled(at_the_edge)
    with pytest.raises(SchemaError) as refused:
        compiled(past_it)

    assert limit in str(refused.value)


@pytest.mark.parametrize(
    ("schema", "faults"),
    [
        (True, 0),
        ({"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string"}}}, 0),
        ({"items": {"type": "string"}}, 1),
        ({"items": False}, 1),
        ({"properties": {"l": {"items": {"required": ["a", "b"]}}}}, 3),
        ({"$defs": {"x": {"items": {"enum": [1]}}}, "items": {"$ref": "#/$defs/x"}}, 3),
        ({"additionalProperties": {"dependentRequired": {"a": ["b", "c"]}}}, 3),
    ],
)
def test_what_may_be_wrong_with_each_of_many_is_counted(schema, faults):
    assert faults == faults_of_each(schema)


def test_references_that_double_at_each_step_are_counted_as_often_as_they_are_met():
    doubled = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(8)}
    schema = {"$ref": "#/$defs/a0", "$defs": {**doubled, "a8": {}}}

    assert count_parts(schema) > 2**8
    further = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(30)}
    with pytest.raises(SchemaError):
        compiled(json.dumps({"$ref": "#/$defs/a0", "$defs": {**further, "a30": {}}}))


def test_the_largest_regular_expression_judges_the_largest_text_in_a_moment():
    count = 1
    while True:
        try:
            validator = compiled(json.dumps({"pattern": f"(x{{1,{count + 1}}}){{1,{count + 1}}}y"}))
        except SchemaError:
            break
        count += 1
    begun = time.perf_counter()
    is_valid = validator.is_valid("x" * 32_000)

    assert PATTERN_BYTES_MAX
    assert not is_valid
    assert time.perf_counter() - begun < 2.0
