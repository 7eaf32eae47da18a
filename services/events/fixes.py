"""How customer events in quarantine are mended before they are judged again. Pure.

What they say may be mended; what they are may not: message id, who, when and where from stay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from services.events.door import Admitted, Door, readmit
from services.events.schema import Refusal, read_json
from services.kernel.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rapport.events.v1.quarantine_pb2 import QuarantineFix

_MENDED = ("name", "properties", "traits", "context")
_OURS = ("message_id", "receive_time", "occur_time", "source", "import_name", "time_flags")
"""What the platform says of a customer event; it is no part of what is judged."""


@dataclass(frozen=True, slots=True)
class Fixes:
    """What a request says about mending: by message id, and a merge patch for all of them."""

    by_message_id: Mapping[str, QuarantineFix] = field(default_factory=dict)
    patch: Mapping[str, Any] = field(default_factory=dict)

    def mended(self, kept: CustomerEvent) -> CustomerEvent:
        """What a customer event says once it is mended."""
        mended = CustomerEvent()
        mended.CopyFrom(kept)
        fix: Any = self.by_message_id.get(kept.message_id)
        if fix is not None:
            for name in _MENDED:
                if fix.HasField(name):
                    setattr(mended, name, getattr(fix, name))
        for name, patch in self.patch.items():
            setattr(mended, name, _patched(name, getattr(mended, name), patch))
        return mended


def read_patch(text: str) -> Mapping[str, Any]:
    """Reads a merge patch for what may be mended, or raises InvalidArgument."""
    found = read_json("merge_patch", text)
    if isinstance(found, Refusal):
        raise InvalidArgument.of("merge_patch", found.detail)
    strange = sorted(set(found) - set(_MENDED))
    if strange:
        description = f"mends {', '.join(_MENDED)} only, not {', '.join(strange)}"
        raise InvalidArgument.of("merge_patch", description)
    for name, value in found.items():
        taken: type = str if name == "name" else dict
        if value is not None and not isinstance(value, taken):
            what = "a text" if taken is str else "an object"
            raise InvalidArgument.of("merge_patch", f"{name} must be {what}, or null")
    return found


def judged_again(door: Door, mended: CustomerEvent) -> Admitted | Refusal:
    """What a door makes of a customer event that was in quarantine, as it would be recorded.

    It is judged as it would be had it just been sent; its message id and our times are kept.
    """
    ours = CustomerEvent(**{name: getattr(mended, name) for name in _OURS})
    bare: Any = mended
    for name in (*_OURS, "violations"):
        bare.ClearField(name)
    found = readmit(door, mended)
    if isinstance(found, Admitted):
        found.opened.event.MergeFrom(ours)
    return found


def merged(target: object, patch: object) -> object:
    """The JSON value that a merge patch makes of another (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result: dict[str, Any] = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def _patched(name: str, text: str, patch: Any) -> str:
    """A field of a customer event after its part of a merge patch."""
    if patch is None:
        return ""
    if name == "name":
        return f"{patch}"
    found = read_json(name, text)
    if isinstance(found, Refusal):
        # What cannot be read cannot be mended in part; whoever judges it next says so.
        return text
    return orjson.dumps(merged(found, patch)).decode()
