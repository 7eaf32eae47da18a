"""A delivery is believed when its signature is right, in every scheme, and else never."""

import base64
import hashlib
import hmac

import pytest

from rapport.events.v1.events_pb2 import (
    WebhookEncoding,
    WebhookHash,
    WebhookHmac,
    WebhookPreset,
    WebhookSignature,
    WebhookToken,
)
from services.events.webhook_signature import (
    SECRET_CHARACTERS_MIN,
    SIGNATURES_MAX,
    TOLERANCE_S,
    TOLERANCE_S_MAX,
    check_secret,
    checked,
    delivery_id,
    problem,
    secret_headers,
)
from services.kernel.errors import InvalidArgument

HEX = WebhookEncoding.WEBHOOK_ENCODING_HEX
BASE64 = WebhookEncoding.WEBHOOK_ENCODING_BASE64
SHA256 = WebhookHash.WEBHOOK_HASH_SHA256
SHA512 = WebhookHash.WEBHOOK_HASH_SHA512
NOW_S = 1_614_265_330.0

STANDARD = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_STANDARD_WEBHOOKS)
STRIPE = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_STRIPE)
GITHUB = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_GITHUB)
SHOPIFY = WebhookSignature(preset=WebhookPreset.WEBHOOK_PRESET_SHOPIFY)
TOKEN = WebhookSignature(token=WebhookToken(header="authorization", prefix="Bearer "))


def plain(digest, encoding=HEX):
    scheme = WebhookHmac(hash=digest, encoding=encoding, header="x-signature")
    return WebhookSignature(hmac=scheme)


def digest_of(secret, content):
    return hmac.new(secret.encode(), content, hashlib.sha256).digest()


# Each scheme with what its own documents, or RFC 4231, say is right.
PUBLISHED = {
    "standard webhooks": (
        STANDARD,
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        b'{"test": 2432232314}',
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
    ),
    "github": (
        GITHUB,
        "It's a Secret to Everybody",
        b"Hello, World!",
        {
            "x-hub-signature-256": "sha256="
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        },
    ),
    "rfc 4231, sha-256": (
        plain(SHA256),
        "Jefe",
        b"what do ya want for nothing?",
        {"x-signature": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    ),
    "rfc 4231, sha-512": (
        plain(SHA512),
        "Jefe",
        b"what do ya want for nothing?",
        {
            "x-signature": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
            "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"
        },
    ),
    # These two publish how to sign and no example of it.
    "stripe": (
        STRIPE,
        "whsec_test_secret_of_stripe",
        b'{"id": "evt_1"}',
        {
            "stripe-signature": "t=1614265330,v1="
            + digest_of("whsec_test_secret_of_stripe", b'1614265330.{"id": "evt_1"}').hex()
            + ",v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"
        },
    ),
    "shopify": (
        SHOPIFY,
        "hush-hush-hush-hush",
        b'{"id": 1}',
        {
            "x-shopify-hmac-sha256": base64.b64encode(
                digest_of("hush-hush-hush-hush", b'{"id": 1}')
            ).decode()
        },
    ),
    "token": (
        TOKEN,
        "a secret of the sender",
        b"{}",
        {"authorization": "Bearer a secret of the sender"},
    ),
}


def found(signature, secret, body, headers, *, now_s=NOW_S):
    secrets = [secret] if isinstance(secret, str) else secret
    return problem(signature, secrets, body=body, headers=headers, now_s=now_s)


@pytest.mark.parametrize("case", PUBLISHED)
def test_what_is_signed_as_its_scheme_says_is_believed(case):
    assert found(*PUBLISHED[case]) == ""


@pytest.mark.parametrize("case", sorted(set(PUBLISHED) - {"token"}))
def test_one_byte_of_the_body_changed_and_it_is_believed_no_longer(case):
    signature, secret, body, headers = PUBLISHED[case]

    problems = [
        found(
            signature, secret, bytes([*body[:place], body[place] ^ 1, *body[place + 1 :]]), headers
        )
        for place in range(len(body))
    ]

    assert all(problems)


@pytest.mark.parametrize("case", PUBLISHED)
def test_another_secret_is_not_believed(case):
    signature, secret, body, headers = PUBLISHED[case]

    assert found(signature, f"{secret[:-1]}_", body, headers) != ""


@pytest.mark.parametrize("case", PUBLISHED)
def test_without_its_headers_it_is_not_believed(case):
    signature, secret, body, _ = PUBLISHED[case]

    assert found(signature, secret, body, {}) != ""


@pytest.mark.parametrize("case", PUBLISHED)
def test_without_any_secret_nothing_is_believed(case):
    signature, _, body, headers = PUBLISHED[case]

    assert found(signature, [], body, headers) != ""


@pytest.mark.parametrize("case", PUBLISHED)
def test_any_of_several_secrets_will_do(case):
    signature, secret, body, headers = PUBLISHED[case]

    assert found(signature, ["another secret of them", secret], body, headers) == ""


@pytest.mark.parametrize("case", ["standard webhooks", "stripe"])
@pytest.mark.parametrize(
    ("late_s", "is_believed"),
    [
        (TOLERANCE_S, True),
        (TOLERANCE_S + 1, False),
        (-TOLERANCE_S, True),
        (-TOLERANCE_S - 1, False),
    ],
)
def test_what_was_sent_too_long_ago_or_will_be_is_not_believed(case, late_s, is_believed):
    assert is_believed == (found(*PUBLISHED[case], now_s=NOW_S + late_s) == "")


def test_another_time_in_the_signature_header_is_not_believed():
    signature, secret, body, headers = PUBLISHED["stripe"]
    later = headers["stripe-signature"].replace("t=1614265330", "t=1614265331")

    assert found(signature, secret, body, {"stripe-signature": later}) != ""


def test_two_times_in_the_signature_header_are_none():
    signature, secret, body, headers = PUBLISHED["stripe"]
    twice = f"{headers['stripe-signature']},t=1614265330"

    assert found(signature, secret, body, {"stripe-signature": twice}) != ""


@pytest.mark.parametrize("case", ["standard webhooks", "stripe"])
def test_a_sender_that_changes_its_secret_may_send_several_signatures(case):
    signature, secret, body, headers = PUBLISHED[case]
    name = "webhook-signature" if case == "standard webhooks" else "stripe-signature"
    more = (
        f"v1,{'A' * 43}= v1a,xyz {headers[name]}"
        if case == "standard webhooks"
        else headers[name].replace("v1=", f"v1={'0' * 64},v1=")
    )

    assert found(signature, secret, body, headers | {name: more}) == ""


@pytest.mark.parametrize(
    ("others", "is_believed"), [(SIGNATURES_MAX - 1, True), (SIGNATURES_MAX, False)]
)
def test_so_many_signatures_are_looked_at_and_no_more(others, is_believed):
    signature, secret, body, headers = PUBLISHED["github"]
    name = "x-hub-signature-256"
    many = " ".join([f"sha256={'0' * 64}"] * others + [headers[name]])

    assert is_believed == (found(signature, secret, body, {name: many}) == "")


def test_names_inside_what_was_sent_are_not_filled_in():
    scheme = WebhookHmac(
        hash=SHA256, encoding=HEX, header="x-sig", template="{id}.{body}", id_header="x-id"
    )
    signed = digest_of("a secret of the sender", b"{body}.{id}").hex()

    sent = found(
        WebhookSignature(hmac=scheme),
        "a secret of the sender",
        b"{id}",
        {"x-sig": signed, "x-id": "{body}"},
    )

    assert sent == ""


def test_a_delivery_has_the_id_that_its_sender_gave_it():
    assert delivery_id(GITHUB, {"x-github-delivery": "d-1"}) == "d-1"
    assert delivery_id(GITHUB, {}) == ""
    assert delivery_id(TOKEN, {}) == ""


def test_a_secret_that_travels_in_a_header_is_seen_by_nobody_else():
    token = WebhookSignature(token=WebhookToken(header="x-token"))

    assert {"x-token", "authorization"} <= secret_headers(token)


def hmac_with(**fields):
    known = {"hash": SHA256, "encoding": HEX, "header": "x-sig"}
    return WebhookSignature(hmac=WebhookHmac(**known | fields))


@pytest.mark.parametrize(
    ("signature", "field"),
    [
        (WebhookSignature(), "signature"),
        (WebhookSignature(preset=0), "signature.preset"),
        (WebhookSignature(preset=99), "signature.preset"),
        (WebhookSignature(token=WebhookToken()), "signature.token.header"),
        (WebhookSignature(token=WebhookToken(header="x y")), "signature.token.header"),
        (hmac_with(hash=0), "signature.hmac.hash"),
        (hmac_with(encoding=0), "signature.hmac.encoding"),
        (hmac_with(header=""), "signature.hmac.header"),
        (hmac_with(prefix="a b"), "signature.hmac.prefix"),
        (hmac_with(prefix="a\n"), "signature.hmac.prefix"),
        (hmac_with(prefix="a" * 201), "signature.hmac.prefix"),
        (hmac_with(template="{id}"), "signature.hmac.template"),
        (hmac_with(template="{body}{body}"), "signature.hmac.template"),
        (hmac_with(template="{body}{other}"), "signature.hmac.template"),
        (hmac_with(template="{timestamp}.{body}"), "signature.hmac.template"),
        (hmac_with(timestamp_header="x-time"), "signature.hmac.template"),
        (hmac_with(template="{id}.{body}"), "signature.hmac.id_header"),
        (
            hmac_with(template="{timestamp}{body}", timestamp_element="t"),
            "signature.hmac.element",
        ),
        (
            hmac_with(
                template="{timestamp}{body}",
                timestamp_element="t",
                element="v1",
                timestamp_header="x-time",
            ),
            "signature.hmac.timestamp_header",
        ),
        (hmac_with(tolerance_s=TOLERANCE_S_MAX + 1), "signature.hmac.tolerance_s"),
    ],
)
def test_a_way_of_signing_that_means_nothing_is_refused(signature, field):
    with pytest.raises(InvalidArgument) as caught:
        checked(signature)

    assert [it.field for it in caught.value.violations] == [field]


def test_names_of_headers_are_taken_in_any_letters():
    found = checked(hmac_with(header=" X-Sig ", tolerance_s=TOLERANCE_S_MAX))

    assert found.hmac.header == "x-sig"


@pytest.mark.parametrize(
    ("signature", "secret"),
    [
        (GITHUB, "s" * SECRET_CHARACTERS_MIN),
        (STANDARD, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ],
)
def test_a_secret_may_be_as_its_sender_made_it(signature, secret):
    check_secret(signature, secret)


@pytest.mark.parametrize(
    ("signature", "secret"),
    [
        (GITHUB, "s" * (SECRET_CHARACTERS_MIN - 1)),
        (STANDARD, "whsec_this is no Base64 at all"),
    ],
)
def test_a_secret_must_be_long_enough_and_readable(signature, secret):
    with pytest.raises(InvalidArgument) as caught:
        check_secret(signature, secret)

    assert [it.field for it in caught.value.violations] == ["secret"]
