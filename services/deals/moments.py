"""Moments that are told: what every calendar and every column has. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import storable

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp


def known_moment(field: str, told: Timestamp) -> datetime:
    """The moment in a field of a request; raises InvalidArgument for one that cannot be kept."""
    try:
        return storable(told)
    except OverflowError as error:
        raise InvalidArgument.of(field, "lies outside the calendar") from error
