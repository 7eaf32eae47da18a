"""What of a customer event is no person's, and may stay when the person goes. Pure.

What was done, when, with which products and for how much stays: names of track calls, times,
numbers, currencies, what products are called. Identifiers, traits, context and every other text go,
for nothing tells what a text says. An order's id becomes a hash, so that what was said of one order
is said of one order still.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from services.events.commerce import AMOUNTS, role_of
from services.events.naming import opened_again
from services.events.schema import JSON_DEPTH_MAX, Opened
from services.events.suppressed import identifiers_of
from services.kernel.erasing.subjects import normal_form

if TYPE_CHECKING:
    from collections.abc import Callable

    from services.kernel.erasing.subjects import Subject

PREFIX: Final = "anonymised-"
"""How the message id of a customer event begins that is nobody's any more."""

# An identify, group, alias or account call says who somebody is: nothing of it is left.
_STAYING: Final = frozenset(
    {
        CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK,
        CustomerEventType.CUSTOMER_EVENT_TYPE_PAGE,
        CustomerEventType.CUSTOMER_EVENT_TYPE_SCREEN,
    }
)
_TRACK: Final = CustomerEventType.CUSTOMER_EVENT_TYPE_TRACK
_TIMES: Final = ("original_time", "send_time", "corrected_time", "receive_time", "occur_time")
_OF_A_PRODUCT: Final = frozenset(
    {"product_id", "id", "sku", "name", "brand", "category", "variant"}
)
_AMOUNTS: Final = frozenset({*AMOUNTS, "price", "quantity"})
_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_CURRENCY: Final = re.compile(r"[A-Za-z]{3}")
_PLAIN_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?")
# Numbers that point to a person, or to where one lives.
_PERSONAL: Final = re.compile(
    r"(^|_)(id|ids|ip|zip|lat|lng|lon|age|ssn|iban|dob|fax|mobile|tel)(_|$)"
    r"|phone|post|latitude|longitude|birth|card|account|number|passport|user|customer|contact",
)
_CAPITAL: Final = re.compile(r"(?<=[a-z0-9])[A-Z]")


def anonymised(
    recorded: CustomerEvent, subject: Subject, message_id: str, pseudonym: Callable[[str], str]
) -> CustomerEvent | None:
    """A customer event without its person, or None when nothing of it is left.

    `pseudonym` hashes what must stay the same in several customer events.
    """
    if recorded.type not in _STAYING:
        return None
    is_track = recorded.type == _TRACK
    known = _known(recorded, subject)
    if is_track and not known.isdisjoint(_words(recorded.name)):
        return None
    left = CustomerEvent(
        message_id=message_id,
        type=recorded.type,
        # The name of a page or screen is a text like any other.
        name=recorded.name if is_track else "",
        source=recorded.source,
        time_flags=recorded.time_flags,
        import_name=recorded.import_name,
    )
    for field in _TIMES:
        if recorded.HasField(field):
            getattr(left, field).CopyFrom(getattr(recorded, field))
    properties = json.loads(recorded.properties or "{}")
    is_product = is_track and _is_of_a_product(recorded.name)
    kept = _kept(properties, known, is_product=is_product)
    order = properties.get("order_id", properties.get("orderId"))
    if is_track and isinstance(order, str | int) and f"{order}".strip():
        kept["order_id"] = pseudonym(f"{order}".strip())
    if kept:
        left.properties = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    return left


def _words(text: str) -> set[str]:
    return {word.casefold() for word in (text, *text.split())}


def _known(recorded: CustomerEvent, subject: Subject) -> set[str]:
    """What nothing may be called that stays: identifiers of the person, and all that come along."""
    known = {form for _, form in subject.forms}
    properties, traits, context = opened_again(recorded)
    opened = Opened(recorded, properties, traits, context)
    known |= {normal_form(type_name, raw) for type_name, raw in identifiers_of(opened)}
    return {form.casefold() for form in known if form}


def _is_of_a_product(name: str) -> bool:
    role = role_of(name)
    return role is not None and role.is_of_a_product


def _kept(
    said: dict[str, Any], known: set[str], *, is_product: bool, depth: int = 0
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in said.items():
        # What is no plain word may be a person's, who scored so much.
        if _WORD.fullmatch(key) is None or key.casefold() in known:
            continue
        name = _CAPITAL.sub(lambda found: f"_{found[0]}", key).lower()
        if name == "products" and isinstance(value, list) and depth < JSON_DEPTH_MAX:
            kept[key] = [
                _kept(each, known, is_product=True, depth=depth + 1)
                for each in value
                if isinstance(each, dict)
            ]
        elif _stays(name, value, is_product=is_product):
            kept[key] = value
    return kept


def _stays(name: str, value: object, *, is_product: bool) -> bool:
    """Whether a plain value is no person's."""
    if is_product and name in _OF_A_PRODUCT:
        return isinstance(value, str | int | float)
    if isinstance(value, str):
        if name == "currency":
            return _CURRENCY.fullmatch(value) is not None
        return name in _AMOUNTS and _PLAIN_NUMBER.fullmatch(value) is not None
    if isinstance(value, int | float):
        return _PERSONAL.search(name) is None
    return False
