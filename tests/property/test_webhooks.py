"""Laws of webhooks: nothing that comes crashes, and nothing but what was signed is believed."""

import base64
import hashlib
import hmac
import json
from contextlib import suppress

from hypothesis import assume, given
from hypothesis import strategies as st

from rapport.events.v1.events_pb2 import (
    WebhookEncoding,
    WebhookHash,
    WebhookHmac,
    WebhookMapping,
    WebhookSignature,
    WebhookToken,
)
from services.events.expression_syntax import ExpressionError
from services.events.expressions import compiled_expression
from services.events.webhook_mapping import CompiledMapping, Delivery, Unmapped
from services.events.webhook_signature import PRESETS, problem
from services.kernel.errors import InvalidArgument

NOW_S = 1_700_000_000.0
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SCHEMES = [
    *(WebhookSignature(preset=preset) for preset in PRESETS),
    WebhookSignature(
        hmac=WebhookHmac(
            hash=WebhookHash.WEBHOOK_HASH_SHA512,
            encoding=WebhookEncoding.WEBHOOK_ENCODING_BASE64,
            header="x-sig",
            template="v0:{timestamp}:{body}",
            timestamp_header="x-time",
            prefix="v0=",
        )
    ),
]
NAMES = [
    *("webhook-id", "webhook-timestamp", "webhook-signature", "stripe-signature"),
    *("x-hub-signature-256", "x-shopify-hmac-sha256", "x-sig", "x-time", "x-token"),
]
HEADERS = st.dictionaries(st.sampled_from(NAMES), st.text(max_size=60), max_size=9)


def signed(scheme, body, delivery_id):
    """The headers of a sender that keeps to a scheme."""
    found = PRESETS[scheme.preset] if scheme.preset else scheme.hmac
    timestamp = str(int(NOW_S))
    key = SECRET.encode()
    if found.is_key_encoded:
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
    content = b""
    for piece in (found.template or "{body}").replace("}", "}|").replace("{", "|{").split("|"):
        known = {"{body}": body, "{timestamp}": timestamp.encode(), "{id}": delivery_id.encode()}
        content += known.get(piece, piece.encode())
    is_long = found.hash == WebhookHash.WEBHOOK_HASH_SHA512
    digest = hmac.new(key, content, hashlib.sha512 if is_long else hashlib.sha256).digest()
    is_hex = found.encoding == WebhookEncoding.WEBHOOK_ENCODING_HEX
    text = found.prefix + (digest.hex() if is_hex else base64.b64encode(digest).decode())
    if found.element:
        text = f"{found.timestamp_element}={timestamp},{found.element}={text}"
    headers = {found.header: text}
    if found.timestamp_header:
        headers[found.timestamp_header] = timestamp
    if found.id_header:
        headers[found.id_header] = delivery_id
    return headers


@given(st.sampled_from(SCHEMES), st.binary(max_size=200), st.text("abc-1", max_size=20))
def test_what_was_signed_is_believed(scheme, body, delivery_id):
    headers = signed(scheme, body, delivery_id)

    assert problem(scheme, [SECRET], body=body, headers=headers, now_s=NOW_S) == ""


@given(st.sampled_from(SCHEMES), st.binary(max_size=200), st.binary(max_size=200))
def test_another_body_is_not_believed(scheme, body, other):
    assume(body != other)
    headers = signed(scheme, body, "d-1")

    assert problem(scheme, [SECRET], body=other, headers=headers, now_s=NOW_S) != ""


@given(st.sampled_from(SCHEMES), st.binary(max_size=50), st.data())
def test_a_signature_with_one_character_changed_is_not_believed(scheme, body, data):
    headers = signed(scheme, body, "d-1")
    name = next(iter(headers))
    place = data.draw(st.integers(0, len(headers[name]) - 1))
    other = data.draw(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=","))
    changed = headers[name][:place] + other + headers[name][place + 1 :]
    assume(changed != headers[name])

    sent = headers | {name: changed}

    assert problem(scheme, [SECRET], body=body, headers=sent, now_s=NOW_S) != ""


@given(
    st.sampled_from([*SCHEMES, WebhookSignature(token=WebhookToken(header="x-token"))]),
    st.binary(max_size=100),
    HEADERS,
)
def test_whatever_comes_unsigned_is_refused_in_words(scheme, body, headers):
    assert problem(scheme, [SECRET], body=body, headers=headers, now_s=NOW_S) != ""


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)
BODIES = st.binary(max_size=100) | JSON.map(lambda value: json.dumps(value).encode())
MAPPINGS = [
    CompiledMapping(
        WebhookMapping(
            type="'track'", name="body", user_id="body", properties="body", original_time="body"
        )
    ),
    CompiledMapping(
        WebhookMapping(
            type="body.type",
            for_each="body",
            name="item.name",
            when="has(item.a)",
            traits="item",
            group_id="string(size(item))",
        )
    ),
    CompiledMapping(WebhookMapping(type="'identify'", original_time="body", traits="{'it': body}")),
    CompiledMapping(WebhookMapping(type="'group'", for_each="body", original_time="item")),
]


@given(st.sampled_from(MAPPINGS), BODIES, HEADERS)
def test_whatever_comes_is_customer_events_or_says_why_not(mapping, body, headers):
    sent = Delivery("webhooks/w", body, headers, {}, "")
    with suppress(Unmapped):
        found = mapping.customer_events(sent)

        assert all(it.message_id for it in found)
        assert found == mapping.customer_events(sent)


PARTS = ["body", "headers", ".", ".a", "[", "]", "(", ")", "'a'", '"', "1", "+", "-", "!", "?", ":"]
PARTS += [".map(", ".filter(", "x", ",", "{", "}", "&&", "in", " ", "/", "//", "size(", "r'", "\\"]


@given(st.text(max_size=40) | st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
def test_whatever_is_written_is_an_expression_or_says_why_not(source):
    with suppress(InvalidArgument):
        CompiledMapping(WebhookMapping(type="'track'", name=source))
    with suppress(ExpressionError):
        compiled_expression(source, frozenset({"body"}))
