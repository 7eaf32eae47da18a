"""What files call what a deal has: columns of one row per deal, and of one per change. Pure.

Names are compared without case, and without what is neither letter nor digit. What means nothing
here is one of the workspace's own fields.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.deals.deal_cells import CUSTOM

FIELDS: Final = {
    "deal_id": ("id", "record_id", "opportunity_id", "hs_object_id", "deal_number"),
    "name": ("deal_name", "opportunity_name", "display_name", "title"),
    "pipeline": ("pipeline_name",),
    "stage": ("deal_stage", "stage_name"),
    "state": ("status", "deal_status"),
    "amount": ("deal_amount", "deal_value"),
    "currency": ("currency_code", "deal_currency_code", "currency_iso_code", "amount_currency"),
    "owner": ("deal_owner", "opportunity_owner", "owner_name", "owner_id", "hubspot_owner_id"),
    "team": ("hubspot_team", "hubspot_team_id", "owner_team"),
    "company": ("account", "account_name", "account_id", "company_name", "associated_company"),
    "contact": ("primary_contact", "contact_name", "contact_id", "associated_contact"),
    "contacts": (),
    "open_time": ("open_date", "create_date", "created_date", "created_at", "opened"),
    "expected_close_time": ("expected_close", "expected_close_date"),
    "close_time": ("closed_at", "closed_date", "date_closed"),
    "close_date": (),
    "next_step": (),
    "forecast_category": (),
    "probability_bp": (),
    "closed_from": (),
    "lost_reason": ("closed_lost_reason", "loss_reason"),
    "lost_note": (),
    "custom_fields": (),
}
"""What a deal has, and what else other CRMs call it."""

CHANGE: Final = {
    "deal_id": FIELDS["deal_id"],
    "time": ("timestamp", "changed_at", "change_date", "created_date", "modified_date"),
    "field": ("field_name", "property", "property_name"),
    "value": ("new_value", "property_value"),
}
"""What a change has, likewise."""

UNCHANGING: Final = frozenset(
    {"deal_id", "open_time", "close_time", "closed_from", "custom_fields"}
)
"""What no change is told of: it follows from the others."""

_KEY_LENGTH_MAX: Final = 63
_WORD_END: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NEITHER: Final = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """What each column of a file means, in their order."""

    is_of_changes: bool
    columns: tuple[tuple[str, str], ...]


def layout_of(header: Sequence[str]) -> Layout:
    """What a file is, by the names of its columns; else ValueError, which says what to do."""
    known = known_names(CHANGE)
    found = [known.get(plain(name), "") for name in header]
    is_of_changes = set(CHANGE) <= set(found)
    fields = found if is_of_changes else [field_of(name) for name in header]
    for field in {*fields} - {""}:
        same = [name for name, each in zip(header, fields, strict=True) if each == field]
        if len(same) > 1:
            raise ValueError(f"{' and '.join(same)} both mean {field}: rename or remove one")
    if is_of_changes:
        return Layout(is_of_changes=True, columns=tuple(zip(header, fields, strict=True)))
    for needed in ("deal_id", "open_time"):
        if needed not in fields:
            raise ValueError(
                f"no column means {needed}: call one {needed} or {', '.join(FIELDS[needed])}"
                "; a file of changes has the columns deal_id, time, field and value"
            )
    return Layout(is_of_changes=False, columns=tuple(zip(header, fields, strict=True)))


def field_of(name: str) -> str:
    """What a column, or the field of a change, means: of a deal, or of the workspace's own."""
    if name.startswith(CUSTOM):
        return name
    return _FIELDS.get(plain(name)) or f"{CUSTOM}{key_of(name)}"


def plain(name: str) -> str:
    """`Deal Stage` and `dealstage` and `DealStage` → `dealstage`."""
    return _NEITHER.sub("", name.lower())


def key_of(name: str) -> str:
    """`Closed by (name)` → `closed_by_name`, and `2nd try` → `x_2nd_try`."""
    key = _NEITHER.sub("_", _WORD_END.sub("_", name).lower()).strip("_")
    started = key if key[:1].isalpha() else f"x_{key}".rstrip("_")
    return started[:_KEY_LENGTH_MAX]


def known_names(fields: dict[str, tuple[str, ...]]) -> dict[str, str]:
    """What each plain name means."""
    return {plain(name): field for field, others in fields.items() for name in (field, *others)}


_FIELDS: Final = known_names(FIELDS)
