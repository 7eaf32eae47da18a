"""What a transformation makes of a customer event, seen at the door without letting it in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from rapport.events.v1.transformations_pb2 import TransformedCustomerEvent
from services.events.door import Door, admit
from services.events.expressions import Work
from services.events.schema import Refusal

if TYPE_CHECKING:
    from services.events.schema import Opened
    from services.events.transforming import Transformation


@dataclass(slots=True)
class _Watched:
    """One transformation, and whether it applied."""

    transformation: Transformation
    applied: bool = False

    def apply(self, opened: Opened) -> Refusal | None:
        sources, source = self.transformation.sources, opened.event.source
        if sources and source and source not in sources:
            return None
        work = Work()
        self.applied = self.transformation.applies_to(opened, work)
        return self.transformation.apply(opened, work) if self.applied else None


def transformed(transformation: Transformation, sent: CustomerEvent) -> TransformedCustomerEvent:
    """What becomes of a customer event, which itself is left as it is."""
    sample = CustomerEvent()
    sample.CopyFrom(sent)
    sample.ClearField("violations")
    watched = _Watched(transformation)
    found = admit(Door(transformations=watched), sample)
    told = TransformedCustomerEvent(before=sent, applies=watched.applied)
    if isinstance(found, Refusal):
        told.reason, told.detail = found.reason, found.detail
    else:
        told.after.CopyFrom(sample)
    return told
