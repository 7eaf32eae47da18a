"""The document of a subject access export: lines of JSON, the last of which says that it is whole.

Pure.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from rapport.common.v1.subjects_pb2 import SubjectRecord
from services.kernel.log.recorded import utc

FORMAT = 1

Held = Counter[tuple[str, str]]
"""How much is held, by service and system."""


def first_line(
    name: str, profile: str, identifiers: Iterable[tuple[str, str]], moment: datetime
) -> str:
    """Says whom the document is about."""
    return _line(
        {
            "type": "subject",
            "format": FORMAT,
            "name": name,
            "profile": profile,
            "identifiers": [{"type": kind, "value": value} for kind, value in identifiers],
            "export_time": _text(moment),
        }
    )


def record_line(service: str, record: SubjectRecord) -> str:
    """Says one thing that a service holds; its content is JSON already."""
    told: dict[str, Any] = {
        "type": "record",
        "service": service,
        "system": record.system,
        "resource": record.resource,
        "kind": record.kind,
    }
    for name in ("occur_time", "record_time"):
        if record.HasField(name):
            told[name] = _text(utc(getattr(record, name)))
    told["content"] = _content(record.content)
    return _line(told)


def last_line(held: Held) -> str:
    """Says that nothing is left, and how much was told."""
    counts = [
        {"service": service, "system": system, "count": count}
        for (service, system), count in sorted(held.items())
    ]
    return _line({"type": "end", "records": sum(held.values()), "counts": counts})


def _content(text: str) -> Any:
    """Returns a record's content; what is no JSON is told as its text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _line(told: Mapping[str, Any]) -> str:
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")) + "\n"


def _text(moment: datetime) -> str:
    return moment.isoformat()
