"""One detail of a deal, set as a cell says it. Pure."""

from __future__ import annotations

from typing import Final

from deploy.deal_files.values import (
    category_of,
    contacts_of,
    moment_of,
    name_of,
    pairs_of,
    whole_of,
)
from rapport.deals.v1.service_pb2 import DealDetails
from services.deals.deal_cells import CUSTOM
from services.kernel.log.recorded import timestamp_of

_NAMES: Final = {"owner": "members", "team": "teams", "company": "companies"}
_TEXTS: Final = {"name": "display_name", "next_step": "next_step"}


def set_detail(details: DealDetails, name: str, text: str, date_format: str = "") -> str:
    """Sets what a cell says; returns its path, or nothing for what is no detail.

    Raises ValueError, which says what to do.
    """
    if name in _TEXTS:
        setattr(details, _TEXTS[name], text)
        return _TEXTS[name]
    if name in _NAMES:
        setattr(details, name, name_of(_NAMES[name], text))
        return name
    if name in {"contact", "contacts"}:
        known = {each.contact for each in details.contacts}
        details.contacts.extend(each for each in contacts_of(text) if each.contact not in known)
        return "contacts"
    if name == "custom_fields":
        details.custom_fields.update(pairs_of(text))
        return name
    if name.startswith(CUSTOM):
        if text:
            details.custom_fields[name.removeprefix(CUSTOM)] = text
        return name
    return _set_forecast(details, name, text, date_format)


def _set_forecast(details: DealDetails, name: str, text: str, date_format: str) -> str:
    """Likewise, of what a forecast is made of, but for the amount, which takes two cells."""
    match name:
        case "expected_close_time" | "close_date":
            if text.strip():
                moment = moment_of(text, date_format)
                details.expected_close_time.CopyFrom(timestamp_of(moment))
            return "expected_close_time"
        case "forecast_category":
            details.forecast_category_override = category_of(text)
            return "forecast_category_override"
        case "probability_bp":
            number = whole_of(text)
            if number is not None:
                details.probability_bp_override = number
            return "probability_bp_override"
    return ""
