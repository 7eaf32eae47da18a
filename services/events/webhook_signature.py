"""Whether a delivery was sent by who holds the secret: schemes by configuration. Pure.

Every well-known way of signing is a preset, i.e. the configuration that anybody could write. A
signature counts as text: one bit of it changed, and it is another.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rapport.events.v1.events_pb2 import (
    WebhookEncoding,
    WebhookHash,
    WebhookHmac,
    WebhookPreset,
    WebhookSignature,
    WebhookToken,
)
from services.kernel.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

TOLERANCE_S: Final = 300
TOLERANCE_S_MAX: Final = 24 * 3600
SIGNATURES_MAX: Final = 10
"""Signatures of one delivery that are looked at; a sender has two while it changes its secret."""
SECRET_CHARACTERS_MIN: Final = 16
TEXT_CHARACTERS_MAX: Final = 200

KEY_PREFIX: Final = "whsec_"

_HASHES: Final = {
    WebhookHash.WEBHOOK_HASH_SHA256: "sha256",
    WebhookHash.WEBHOOK_HASH_SHA512: "sha512",
}
_HEX: Final = WebhookEncoding.WEBHOOK_ENCODING_HEX
_BASE64: Final = WebhookEncoding.WEBHOOK_ENCODING_BASE64
_SHA256: Final = WebhookHash.WEBHOOK_HASH_SHA256
_HEADER: Final = re.compile("[a-z0-9!#$%&'*+.^_`|~-]{1,100}")
_BODY: Final = "{body}"
_TIMESTAMP: Final = "{timestamp}"
_ID: Final = "{id}"
_PARTS: Final = re.compile(r"(\{body\}|\{timestamp\}|\{id\})")
_SECONDS: Final = re.compile("[0-9]{1,12}")

PRESETS: Final = {
    WebhookPreset.WEBHOOK_PRESET_STANDARD_WEBHOOKS: WebhookHmac(
        hash=_SHA256,
        encoding=_BASE64,
        header="webhook-signature",
        prefix="v1,",
        template="{id}.{timestamp}.{body}",
        timestamp_header="webhook-timestamp",
        id_header="webhook-id",
        is_key_encoded=True,
    ),
    WebhookPreset.WEBHOOK_PRESET_STRIPE: WebhookHmac(
        hash=_SHA256,
        encoding=_HEX,
        header="stripe-signature",
        template="{timestamp}.{body}",
        element="v1",
        timestamp_element="t",
    ),
    WebhookPreset.WEBHOOK_PRESET_GITHUB: WebhookHmac(
        hash=_SHA256,
        encoding=_HEX,
        header="x-hub-signature-256",
        prefix="sha256=",
        id_header="x-github-delivery",
    ),
    WebhookPreset.WEBHOOK_PRESET_SHOPIFY: WebhookHmac(
        hash=_SHA256,
        encoding=_BASE64,
        header="x-shopify-hmac-sha256",
        id_header="x-shopify-webhook-id",
    ),
}


class _Signed(NamedTuple):
    """What a delivery says about its signature: when, and which ones."""

    timestamp: str
    signatures: list[str]


def problem(
    signature: WebhookSignature,
    secrets: Iterable[str],
    *,
    body: bytes,
    headers: Mapping[str, str],
    now_s: float,
) -> str:
    """Why a delivery is not believed, in words; empty when it is.

    Header names are in small letters. Every secret is tried with every signature, so that how
    long it takes does not tell which one is near.
    """
    if signature.WhichOneof("scheme") == "token":
        return _token_problem(signature.token, secrets, headers)
    scheme = hmac_of(signature)
    value = headers.get(scheme.header, "")
    if not value:
        return f"the header {scheme.header} is missing"
    signed = _signed(scheme, value, headers)
    late = _time_problem(scheme, signed.timestamp, now_s)
    content = _content(scheme, signed.timestamp, body, headers)
    right = False
    for secret in secrets:
        expected = _written(scheme, hmac.digest(_key(scheme, secret), content, _hash(scheme)))
        for given in signed.signatures:
            right |= hmac.compare_digest(expected.encode(), given.encode())
    if late:
        return late
    return "" if right else f"no signature in {scheme.header} is right"


def hmac_of(signature: WebhookSignature) -> WebhookHmac:
    """The keyed hash that a scheme comes down to, a preset's own or the one configured."""
    if signature.WhichOneof("scheme") == "preset":
        return PRESETS[signature.preset]
    return signature.hmac


def delivery_id(signature: WebhookSignature, headers: Mapping[str, str]) -> str:
    """The sender's own id of a delivery, the same when it is sent again; or nothing."""
    is_token = signature.WhichOneof("scheme") == "token"
    scheme = signature.token if is_token else hmac_of(signature)
    return headers.get(scheme.id_header, "")


def secret_headers(signature: WebhookSignature) -> frozenset[str]:
    """The headers that hold a secret, which nobody but the check of the signature may see."""
    if signature.WhichOneof("scheme") == "token":
        return frozenset({signature.token.header, "authorization", "cookie"})
    return frozenset({"authorization", "cookie"})


def checked(signature: WebhookSignature) -> WebhookSignature:
    """A way of signing with its names in one form; refuses one that means nothing."""
    match signature.WhichOneof("scheme"):
        case "preset":
            if signature.preset not in PRESETS:
                raise _invalid("preset", "is none of the well-known")
            return signature
        case "token":
            token = WebhookToken(
                header=_header("token.header", signature.token.header),
                prefix=_text("token.prefix", signature.token.prefix),
                id_header=_header("token.id_header", signature.token.id_header, is_needed=False),
            )
            return WebhookSignature(token=token)
        case "hmac":
            return WebhookSignature(hmac=_checked_hmac(signature.hmac))
    raise _invalid("", "say how deliveries are signed")


def check_secret(signature: WebhookSignature, secret: str) -> None:
    """Refuses a secret of a sender's that could be guessed, or that its scheme cannot read."""
    if len(secret) < SECRET_CHARACTERS_MIN:
        description = f"has fewer than {SECRET_CHARACTERS_MIN} characters"
        raise InvalidArgument.of("secret", description)
    if signature.WhichOneof("scheme") != "token" and hmac_of(signature).is_key_encoded:
        try:
            base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
        except ValueError as error:
            raise InvalidArgument.of("secret", "must be Base64 after its prefix") from error


def _checked_hmac(scheme: WebhookHmac) -> WebhookHmac:
    if scheme.hash not in _HASHES:
        raise _invalid("hmac.hash", "must be SHA256 or SHA512")
    if scheme.encoding not in (_HEX, _BASE64):
        raise _invalid("hmac.encoding", "must be HEX or BASE64")
    if scheme.tolerance_s > TOLERANCE_S_MAX:
        raise _invalid("hmac.tolerance_s", f"is more than {TOLERANCE_S_MAX}")
    found = WebhookHmac()
    found.CopyFrom(scheme)
    found.header = _header("hmac.header", scheme.header)
    for name in ("timestamp_header", "id_header"):
        header = _header(f"hmac.{name}", getattr(scheme, name), is_needed=False)
        setattr(found, name, header)
    if scheme.prefix.split() not in ([], [scheme.prefix]):
        raise _invalid("hmac.prefix", "must hold no blank: signatures have blanks between them")
    for name in ("prefix", "template", "element", "timestamp_element"):
        _text(f"hmac.{name}", getattr(scheme, name))
    _check_template(found)
    return found


def _check_template(scheme: WebhookHmac) -> None:
    """What is signed must be known, and what must be known must be signed."""
    template = scheme.template or _BODY
    pieces = _PARTS.split(template)
    if pieces.count(_BODY) != 1 or any(set(text) & {"{", "}"} for text in pieces[::2]):
        description = "must hold {body} once, and no other name but {timestamp} and {id}"
        raise _invalid("hmac.template", description)
    if scheme.timestamp_header and scheme.timestamp_element:
        raise _invalid("hmac.timestamp_header", "or timestamp_element is needed, not both")
    if scheme.timestamp_element and not scheme.element:
        raise _invalid("hmac.element", "must name the signatures among the elements")
    if (_TIMESTAMP in pieces) != bool(scheme.timestamp_header or scheme.timestamp_element):
        raise _invalid("hmac.template", "must hold {timestamp} just when a header or element does")
    if _ID in pieces and not scheme.id_header:
        raise _invalid("hmac.id_header", "must be named, as {id} is signed")


def _signed(scheme: WebhookHmac, value: str, headers: Mapping[str, str]) -> _Signed:
    if not scheme.element:
        return _Signed(
            headers.get(scheme.timestamp_header, ""), list(_prefixed(scheme.prefix, value.split()))
        )
    elements = [part.strip().partition("=")[::2] for part in value.split(",")]
    given = [text for name, text in elements if name == scheme.element]
    timestamps = [text for name, text in elements if name == scheme.timestamp_element]
    if not scheme.timestamp_element:
        timestamps = [headers.get(scheme.timestamp_header, "")]
    # Of several times nobody could say which one is signed.
    timestamp = timestamps[0] if len(timestamps) == 1 else ""
    return _Signed(timestamp, list(_prefixed(scheme.prefix, given)))


def _prefixed(prefix: str, given: Iterable[str]) -> Iterator[str]:
    found = (text.removeprefix(prefix) for text in given if text.startswith(prefix))
    for _, text in zip(range(SIGNATURES_MAX), found, strict=False):
        yield text


def _time_problem(scheme: WebhookHmac, timestamp: str, now_s: float) -> str:
    """Why a delivery may be one that somebody kept and sends again."""
    if not (scheme.timestamp_header or scheme.timestamp_element):
        return ""
    if not _SECONDS.fullmatch(timestamp):
        return "it does not say when it was sent"
    tolerance_s = scheme.tolerance_s or TOLERANCE_S
    if abs(now_s - int(timestamp)) > tolerance_s:
        return f"it was sent more than {tolerance_s} s before or after now"
    return ""


def _content(scheme: WebhookHmac, timestamp: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """The bytes that are signed. Names inside what was sent are no names."""
    known = {
        _BODY: body,
        _TIMESTAMP: timestamp.encode(),
        _ID: headers.get(scheme.id_header, "").encode(),
    }
    pieces = _PARTS.split(scheme.template or _BODY)
    return b"".join(known.get(piece, piece.encode()) for piece in pieces)


def _key(scheme: WebhookHmac, secret: str) -> bytes:
    if not scheme.is_key_encoded:
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(KEY_PREFIX), validate=True)
    except binascii.Error:
        # From before the scheme was another: it signs as it is.
        return secret.encode()


def _hash(scheme: WebhookHmac) -> str:
    return _HASHES[scheme.hash]


def _written(scheme: WebhookHmac, digest: bytes) -> str:
    return digest.hex() if scheme.encoding == _HEX else base64.b64encode(digest).decode()


def _token_problem(token: WebhookToken, secrets: Iterable[str], headers: Mapping[str, str]) -> str:
    value = headers.get(token.header, "")
    right = False
    for secret in secrets:
        right |= hmac.compare_digest(f"{token.prefix}{secret}".encode(), value.encode())
    return "" if right else f"the header {token.header} is missing or wrong"


def _header(field: str, name: str, *, is_needed: bool = True) -> str:
    """A header's name in small letters, as it is looked up."""
    found = name.strip().lower()
    if (found or is_needed) and not _HEADER.fullmatch(found):
        raise _invalid(field, "is no name of a header")
    return found


def _text(field: str, text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
        raise _invalid(field, f"must be at most {TEXT_CHARACTERS_MAX} printable characters")
    return text


def _invalid(field: str, description: str) -> InvalidArgument:
    return InvalidArgument.of(f"signature.{field}" if field else "signature", description)
