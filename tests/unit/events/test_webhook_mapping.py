"""What a delivery means is said by expressions, which are checked, and bounded."""

import json
import time

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEventType
from rapport.events.v1.events_pb2 import WebhookMapping
from services.events.expression_syntax import EXPRESSION_CHARACTERS_MAX
from services.events.webhook_mapping import (
    BODY_BYTES_MAX,
    BODY_DEPTH_MAX,
    ITEMS_MAX,
    MAPPED_BYTES_MAX,
    CompiledMapping,
    Delivery,
    Unmapped,
)
from services.kernel.errors import InvalidArgument

BODY = {
    "id": "evt_1",
    "created": 1_700_000_000,
    "customer": 42,
    "email": "Ada@X.org",
    "total": 12.5,
    "lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}],
    "nested": {"a": None, "t": True},
}
TRACK = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK


def delivery(body=BODY, **changes):
    fields = {
        "webhook": "webhooks/w",
        "body": body if isinstance(body, bytes) else json.dumps(body).encode(),
        "headers": {"x-kind": "order"},
        "query": {"shop": "s-1"},
        "delivery_id": "d-1",
    }
    return Delivery(**fields | changes)


def mapped(sent=None, **expressions):
    mapping = CompiledMapping(WebhookMapping(**{"type": "'track'"} | expressions))
    return mapping.customer_events(delivery() if sent is None else sent)


@pytest.mark.parametrize(
    ("field", "expression", "said"),
    [
        ("name", "'Order ' + headers['x-kind']", "Order order"),
        ("name", "null", ""),
        ("user_id", "body.customer", "42"),
        ("user_id", "double(body.customer)", "42"),
        ("user_id", "body.email.lowerAscii()", "ada@x.org"),
        ("anonymous_id", "has(body.visitor) ? body.visitor : 'none'", "none"),
        ("group_id", "query.shop", "s-1"),
        ("message_id", "body.id", "evt_1"),
        ("properties", "{'total': body.total, 'n': size(body.lines)}", '{"n":2,"total":12.5}'),
        ("properties", "body.nested", '{"a":null,"t":true}'),
        ("properties", "{}", ""),
        (
            "properties",
            "{'products': body.lines.map(it, {'sku': it.sku})}",
            '{"products":[{"sku":"a"},{"sku":"b"}]}',
        ),
        (
            "properties",
            "{'at': timestamp('2026-01-02T03:04:05Z')}",
            '{"at":"2026-01-02T03:04:05+00:00"}',
        ),
        ("traits", "{'email': body.email}", '{"email":"Ada@X.org"}'),
        ("context", "{'shop': query['shop']}", '{"shop":"s-1"}'),
    ],
)
def test_a_field_is_what_its_expression_says(field, expression, said):
    [found] = mapped(**{field: expression})

    assert said == getattr(found, field)


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("body.created", 1_700_000_000),
        ("body.created * 1000", 1_700_000_000),
        ("'2023-11-14T22:13:20Z'", 1_700_000_000),
        ("'2023-11-14T23:13:20+01:00'", 1_700_000_000),
        ("timestamp('2023-11-14T22:13:20Z')", 1_700_000_000),
    ],
)
def test_a_time_may_be_written_in_any_way(expression, seconds):
    [found] = mapped(original_time=expression)

    assert seconds == found.original_time.seconds


@pytest.mark.parametrize(
    "said", ["track", "identify", "page", "screen", "group", "alias", "account"]
)
def test_each_type_has_its_word(said):
    [found] = mapped(type=f"'{said}'")

    assert f"CUSTOMER_EVENT_TYPE_{said.upper()}" == CustomerEventType.Name(found.type)


@pytest.mark.parametrize(
    ("field", "expression", "why"),
    [
        ("type", "'order'", "type: must be one of"),
        ("type", "1", "type: must be one of"),
        ("type", "null", "type: must be one of"),
        ("name", "body.nothing", "name: there is no 'nothing'"),
        ("name", "body.lines", "name: is neither a text nor"),
        ("user_id", "true", "user_id: is neither a text nor"),
        ("user_id", "1.5", "user_id: is neither a text nor"),
        ("properties", "[1]", "properties: is no map"),
        ("properties", "{'b': b'x'}", None),
        ("properties", "{1: 2}", "properties: a dict is no JSON"),
        ("original_time", "'soon'", "original_time: is no time"),
        ("original_time", "99999999999999999", "original_time: is no time"),
        ("original_time", "[]", "original_time: is no time"),
        ("when", "1", "when: is neither true nor false"),
        ("ends_membership", "'yes'", "ends_membership: is neither"),
        ("for_each", "body.email", "for_each: gives no list"),
        ("name", "1 / 0 == 1 ? 'a' : 'b'", "name: "),
        ("name", "'a' + 1", "name: "),
    ],
)
def test_what_does_not_fit_says_where_and_why(field, expression, why):
    if why is None:
        with pytest.raises(InvalidArgument):
            mapped(**{field: expression})
        return
    with pytest.raises(Unmapped, match=f"^{why}"):
        mapped(**{field: expression})


@pytest.mark.parametrize("body", [b"", b"{", b"a=1&b=2", b"\xff", b'"\\ud800"', b"NaN"])
def test_a_body_that_is_no_json_says_so(body):
    with pytest.raises(Unmapped, match=r"^the body is not JSON"):
        mapped(delivery(body))


@pytest.mark.parametrize(
    ("depth", "is_taken"), [(BODY_DEPTH_MAX, True), (BODY_DEPTH_MAX + 1, False)]
)
def test_a_body_may_be_nested_so_deep_and_no_deeper(depth, is_taken):
    body = b"[" * depth + b"]" * depth

    if is_taken:
        assert len(mapped(delivery(body))) == 1
    else:
        with pytest.raises(Unmapped, match="nested"):
            mapped(delivery(body))


def test_what_is_not_wanted_is_no_customer_event():
    assert mapped(when="headers['x-kind'] == 'refund'") == []
    assert len(mapped(when="headers['x-kind'] == 'order'")) == 1


def test_each_item_of_a_list_may_be_a_customer_event():
    found = mapped(
        for_each="body.lines",
        when="item.n > 0",
        name="'Line ' + string(index)",
        properties="{'sku': item.sku, 'order': body.id}",
    )

    assert ["Line 0", "Line 1"] == [it.name for it in found]
    assert ['{"order":"evt_1","sku":"a"}', '{"order":"evt_1","sku":"b"}'] == [
        it.properties for it in found
    ]
    assert len({it.message_id for it in found}) == 2


@pytest.mark.parametrize(("items", "is_taken"), [(ITEMS_MAX, True), (ITEMS_MAX + 1, False)])
def test_a_delivery_is_so_many_customer_events_and_no_more(items, is_taken):
    sent = delivery([{"id": place} for place in range(items)])

    if is_taken:
        assert items == len(mapped(sent, for_each="body", user_id="item.id"))
    else:
        with pytest.raises(Unmapped, match="more than 500"):
            mapped(sent, for_each="body", user_id="item.id")


@pytest.mark.parametrize(("more", "is_taken"), [(0, True), (1, False)])
def test_all_that_a_delivery_is_has_so_many_bytes_and_no_more(more, is_taken):
    """Else one that says the whole of itself in each of its items would be hundreds of it."""
    items = 256
    [one] = mapped(delivery({"s": "x" * 16_000}), message_id="'m'", properties="{'s': body.s}")
    room = MAPPED_BYTES_MAX // items - one.ByteSize()
    said = {"s": "x" * (16_000 + room + more), "l": [0] * items}
    asked = {"for_each": "body.l", "message_id": "'m'", "properties": "{'s': body.s}"}

    if is_taken:
        found = mapped(delivery(said), **asked)
        assert MAPPED_BYTES_MAX == sum(it.ByteSize() for it in found)
    else:
        with pytest.raises(Unmapped, match="bytes"):
            mapped(delivery(said), **asked)


def message_ids(sent, **expressions):
    return [it.message_id for it in mapped(sent, **expressions)]


def test_a_delivery_that_is_sent_again_has_the_same_message_id():
    changed = json.dumps({**BODY, "attempt": 2}).encode()

    assert message_ids(delivery()) == message_ids(delivery())
    assert message_ids(delivery()) == message_ids(delivery(changed))
    assert message_ids(delivery()) != message_ids(delivery(delivery_id="d-2"))


def test_without_an_id_of_its_own_a_delivery_is_what_its_body_says():
    changed = {**BODY, "total": 13}

    assert message_ids(delivery(delivery_id="")) == message_ids(delivery(delivery_id=""))
    assert message_ids(delivery(delivery_id="")) != message_ids(delivery(changed, delivery_id=""))


def test_the_same_delivery_to_two_webhooks_is_two():
    assert message_ids(delivery()) != message_ids(delivery(webhook="webhooks/v"))


@pytest.mark.parametrize(
    "expression",
    [
        "body.",
        "bodi.id",
        "item.id",
        "nothing(body)",
        "body.email.matches(body.pattern)",
        "body.lines.map(a, body.lines.map(b, a))",
        "body.lines.map(body, body)",
        "b'bytes'",
        "[" * 200 + "]" * 200,
        "'" + "a" * (EXPRESSION_CHARACTERS_MAX - 1) + "'",
    ],
)
def test_an_expression_that_is_none_or_could_do_harm_is_refused_by_its_field(expression):
    with pytest.raises(InvalidArgument) as caught:
        CompiledMapping(WebhookMapping(type="'track'", name=expression))

    assert [it.field for it in caught.value.violations] == ["mapping.name"]


def test_every_wrong_expression_is_told_at_once():
    with pytest.raises(InvalidArgument) as caught:
        CompiledMapping(WebhookMapping(name="(", when="foo"))

    assert ["mapping.type", "mapping.when", "mapping.name"] == [
        it.field for it in caught.value.violations
    ]


def test_an_expression_may_be_so_long():
    text = "a" * (EXPRESSION_CHARACTERS_MAX - 2)

    assert text == mapped(name=f"'{text}'")[0].name


LONG = json.dumps({"l": [{"a": 1}] * 50_000, "s": "x" * 10_000}).encode()
WIDE = json.dumps({"l": [1] * 400, "s": "x" * (BODY_BYTES_MAX - 2000)}).encode()


@pytest.mark.parametrize("body", [LONG, WIDE])
@pytest.mark.parametrize(
    "expression",
    [
        "{'a': body.l.map(x, x)}",
        "{'a': body.l.map(x, body.l)}",
        "{'a': body.l.map(x, body.s)}",
        "{'a': body.l.filter(x, x in body.l)}",
        "{'a': [body.s].map(x, " + "+".join("x" * 400) + ")}",
        "{'a': " + "+".join(["body.s"] * 110) + "}",
        "{'a': (" + "+".join(["body.l"] * 100) + ").map(x, x)}",
    ],
)
def test_an_expression_that_asks_for_too_much_is_stopped_soon(expression, body):
    started = time.perf_counter()

    with pytest.raises(Unmapped, match="looks too often"):
        mapped(delivery(body), properties=expression)

    assert time.perf_counter() - started < 5


def test_a_loop_over_what_an_expression_holds_itself_is_charged_for_too():
    sent = delivery(list(range(ITEMS_MAX)))
    bomb = "{'a': [" + ",".join("1" * 450) + "].map(x, x)}"

    with pytest.raises(Unmapped, match="looks too often"):
        mapped(sent, for_each="body", properties=bomb, traits=bomb, context=bomb)
