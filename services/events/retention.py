"""Which customer events a rule of retention takes, and from when on. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import RetentionTreatment
from services.events.anonymised import PREFIX
from services.kernel.log.recorded import utc

if TYPE_CHECKING:
    from datetime import datetime

    from rapport.events.v1.customer_event_pb2 import CustomerEvent
    from rapport.events.v1.events_pb2 import RetentionSettings

MESSAGES = "customer events"
"""What an erasure counts whole messages as."""

_ANONYMISE = RetentionTreatment.RETENTION_TREATMENT_ANONYMISE


def before(settings: RetentionSettings, now: datetime) -> datetime:
    """What was received before this moment is old enough."""
    return now - timedelta(days=settings.keep_days)


def anonymises(settings: RetentionSettings) -> bool:
    """Whether what is no person's stays."""
    return settings.treatment == _ANONYMISE


def takes(settings: RetentionSettings, said: CustomerEvent, now: datetime) -> bool:
    """Whether a customer event is one that the rule takes now."""
    if anonymises(settings) and said.message_id.startswith(PREFIX):
        return False  # it is nobody's already
    return (
        settings.source in ("", said.source)
        and settings.type in (0, said.type)
        and settings.event_name in ("", said.name)
        and utc(said.receive_time) < before(settings, now)
    )
