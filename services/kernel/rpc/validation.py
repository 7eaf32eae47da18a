"""Requests judged by the rules in their protos, every broken rule at once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.message import DecodeError, Message
from protovalidate import Validator

from services.kernel.errors import FieldViolation, InvalidArgument

_validator = Validator()


def validate(message: Message) -> None:
    """Raises InvalidArgument with a violation for each rule of its proto the message breaks."""
    found = _validator.collect_violations(message)
    if found:
        raise InvalidArgument(_violation(each.proto) for each in found)


def request_parser(
    type_name: str, deserialize: Callable[[bytes], Any] | None
) -> Callable[[bytes], Any]:
    """Returns what makes a judged request of bytes; without `deserialize` bytes are forwarded."""
    if deserialize is None:
        return lambda received: received

    def parse(received: bytes) -> Message:
        try:
            request: Message = deserialize(received)
        except (DecodeError, ValueError) as error:
            violation = FieldViolation("", f"the bytes are no {type_name}")
            raise InvalidArgument([violation]) from error
        validate(request)
        return request

    return parse


async def parse_each(
    parse: Callable[[bytes], Any], received: AsyncIterator[bytes]
) -> AsyncIterator[Any]:
    """Judges a stream message by message."""
    async for body in received:
        yield parse(body)


def _violation(proto: Any) -> FieldViolation:
    return FieldViolation(field=_path(proto.field), description=proto.message, reason=proto.rule_id)


def _path(field: Any) -> str:
    """Writes a path as one would in code: `events[3].properties["plan"].value`."""
    if field is None:
        return ""
    path = ""
    for element in field.elements:
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            key = element.subscript.value
            path += f'["{key}"]' if isinstance(key, str) else f"[{key}]"
    return path
