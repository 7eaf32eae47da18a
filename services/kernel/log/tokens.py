"""Write tokens: opaque proof of where a write landed; a read accepts it as "as fresh as this"."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from rapport.common.v1.tokens_pb2 import Landing, WriteToken
from services.kernel.errors import InvalidArgument, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping


def encode_write_token(service: str, positions: Mapping[int, int]) -> str:
    """Wrap the last position per partition of one service's log."""
    landings = [
        Landing(service=service, partition=partition, position=position)
        for partition, position in sorted(positions.items())
    ]
    token = WriteToken(landings=landings).SerializeToString(deterministic=True)
    return base64.urlsafe_b64encode(token).decode().rstrip("=")


def decode_write_token(token: str, *, field: str = "read_token") -> list[Landing]:
    """Unwrap a token that a client hands back in a field, else raise InvalidArgument."""
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        landings = list(WriteToken.FromString(raw).landings)
    except (ValueError, DecodeError) as error:
        raise _invalid(field) from error
    if token and not landings:
        raise _invalid(field)
    return landings


def _invalid(field: str) -> InvalidArgument:
    return InvalidArgument.of(
        field,
        "is not a token that a write returned; leave it empty or pass one on unchanged",
        reason=Reason.READ_TOKEN_INVALID,
    )
