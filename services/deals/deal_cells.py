"""Deals as cells of text: what an export writes and an import reads. Pure.

Amounts are decimals in the currency's own unit, times RFC 3339 in UTC, contacts and custom fields
JSON objects. A cell that a spreadsheet would take for a formula gets an apostrophe, which is taken
away again when it is read; so does one that has such apostrophes already, and nothing is lost.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from decimal import Decimal, InvalidOperation
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from rapport.deals.v1.service_pb2 import DealState
from rapport.deals.v1.values_pb2 import ForecastCategory
from services.deals.deal import State, evolve
from services.kernel.iso4217 import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

DEAL_COLUMNS: Final = (
    "deal_id",
    "name",
    "state",
    "stage",
    "amount",
    "currency",
    "open_time",
    "expected_close_time",
    "close_time",
    "owner",
    "team",
    "company",
    "contacts",
    "next_step",
    "forecast_category",
    "probability_bp",
    "closed_from",
    "lost_reason",
    "lost_note",
    "custom_fields",
)
"""The columns of a file of deals. More may be added at the end."""

CHANGE_COLUMNS: Final = ("deal_id", "time", "field", "value")
"""The columns of a file of changes."""

CUSTOM: Final = "custom_fields."
"""What the field of a change begins with when it is one of the workspace's own."""

EXPONENT_DEFAULT: Final = 2
"""The digits after the point of a currency that ISO 4217 does not know."""

_FORMULA: Final = re.compile(r"'*([\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
_AMOUNT: Final = re.compile(r"[0-9]+(\.[0-9]+)?|[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?")


def safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def meant(cell: str) -> str:
    """The text that `safe` made a cell of; a cell that it did not is its own."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def amount_text(amount_minor: int, currency: str) -> str:
    """`1234.50` for 123450 EUR."""
    return f"{Decimal(amount_minor).scaleb(-EXPONENTS.get(currency, EXPONENT_DEFAULT)):f}"


def minor_of(text: str, currency: str) -> int:
    """123450 for `1234.50` EUR or `1,234.5` EUR, exactly; else ValueError, which says why."""
    if not _AMOUNT.fullmatch(text):
        raise ValueError(f"{text!r} is no amount such as 1234.50")
    exponent = EXPONENTS.get(currency, EXPONENT_DEFAULT)
    try:
        minor = Decimal(text.replace(",", "")).scaleb(exponent)
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is too large") from error
    if minor != minor.to_integral_value():
        raise ValueError(f"{text!r} is finer than {exponent} digits, as {currency} is counted")
    return int(minor)


def time_text(moment: datetime | None) -> str:
    """`2026-03-01T12:00:00Z`; nothing for no moment."""
    if moment is None:
        return ""
    return moment.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def deal_cells(deal_id: str, state: State, close_time: datetime | None) -> list[str]:
    """A deal as a row under `DEAL_COLUMNS`."""
    cells = _cells(state) | {
        "deal_id": deal_id,
        "open_time": time_text(state.open_time),
        "close_time": time_text(close_time),
        "closed_from": state.closed_from,
        "custom_fields": _object(state.custom_fields),
    }
    return [safe(cells[column]) for column in DEAL_COLUMNS]


def history_of(told: Sequence[tuple[datetime, Message]]) -> list[tuple[datetime, State]]:
    """What a deal was from when on, in the order in which things occurred.

    `told` are its facts in the order of their recording. What was so for no time is left out.
    """
    found: list[tuple[datetime, State]] = []
    state = State()
    for moment, fact in sorted(told, key=itemgetter(0)):
        state = evolve(state, fact)
        if found and found[-1][0] == moment:
            found.pop()
        found.append((moment, state))
    return found


def change_cells(deal_id: str, history: Sequence[tuple[datetime, State]]) -> Iterator[list[str]]:
    """A deal's history as rows under `CHANGE_COLUMNS`: what became another, and what it became."""
    before: dict[str, str] = {}
    for moment, state in history:
        after = _cells(state)
        after |= {f"{CUSTOM}{key}": text for key, text in sorted(state.custom_fields.items())}
        for field in {**after, **before}:
            text = after.get(field, "")
            if text != before.get(field, ""):
                yield [deal_id, time_text(moment), field, safe(text)]
        before = after


def _cells(state: State) -> dict[str, str]:
    """What is written of a deal's own fields in either layout."""
    probability = state.probability_bp
    category = ForecastCategory.Name(state.forecast_category) if state.forecast_category else ""
    return {
        "name": state.display_name,
        "state": DealState.Name(state.state).removeprefix("DEAL_STATE_"),
        "stage": state.stage,
        "amount": amount_text(state.amount_minor, state.currency) if state.currency else "",
        "currency": state.currency,
        "expected_close_time": time_text(state.expected_close_time),
        "owner": state.owner,
        "team": state.team,
        "company": state.company,
        "contacts": _object({each.contact: each.role for each in state.contacts}),
        "next_step": state.next_step,
        "forecast_category": category.removeprefix("FORECAST_CATEGORY_"),
        "probability_bp": "" if probability is None else f"{probability}",
        "lost_reason": state.lost_reason,
        "lost_note": state.lost_note,
    }


def _object(pairs: dict[str, str]) -> str:
    """Pairs as a JSON object in their order; nothing for none."""
    return json.dumps(pairs, ensure_ascii=False) if pairs else ""
