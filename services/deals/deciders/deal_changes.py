"""How a deal is changed: field by field, each with a fact of its own.

What a forecast is made of can be changed while the deal is open only; a report about the past would
otherwise be another one tomorrow. A change may be told late, but not before an earlier one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rapport.deals.v1.events_pb2 import (
    DealAmountChanged,
    DealAssigned,
    DealCompanyChanged,
    DealContactsChanged,
    DealCustomFieldsChanged,
    DealExpectedCloseChanged,
    DealForecastCategoryOverridden,
    DealNextStepChanged,
    DealProbabilityOverridden,
    DealRenamed,
)
from rapport.deals.v1.service_pb2 import DealDetails
from services.deals.deal import AMOUNT_MINOR_MAX, participants
from services.deals.deciders.deal_moves import still_open, told_time
from services.deals.deciders.deal_worth import lined, said_by_hand
from services.deals.exchange import known_currency
from services.deals.moments import known_moment
from services.kernel.errors import InvalidArgument
from services.kernel.log.recorded import timestamp_of, utc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from google.protobuf.message import Message
    from google.protobuf.timestamp_pb2 import Timestamp

    from rapport.common.v1.money_pb2 import Money
    from rapport.deals.v1.service_pb2 import UpdateDealRequest
    from rapport.deals.v1.values_pb2 import DealContact
    from services.deals.deal import State

FIELDS: Final = frozenset(DealDetails.DESCRIPTOR.fields_by_name)
CUSTOM_FIELDS_MAX: Final = 200


def update(now: datetime, command: UpdateDealRequest, state: State) -> Sequence[Message]:
    """One fact for each field that becomes another; what is so already is no news."""
    paths = meant(command)
    worth = list(_worth(command, paths, state))
    if worth:
        still_open(command.name, state)
    facts = [*_about(command.deal, paths, state), *worth]
    occur_time = told_time(now, command, state.change_time)
    for fact in facts:
        fact.occur_time.CopyFrom(occur_time)  # type: ignore[attr-defined]  # each of them has one
    return facts


def meant(command: UpdateDealRequest) -> set[str]:
    """The paths of an update mask: all fields for `*`, those that are set when there is none.

    Raises InvalidArgument for a path that is no field.
    """
    paths = set(command.update_mask.paths)
    if not paths:
        return {descriptor.name for descriptor, _ in command.deal.ListFields()}
    if "*" in paths:
        return set(FIELDS)
    for path in sorted(paths):
        name, _, key = path.partition(".")
        is_inside = path != name
        if name not in FIELDS or (is_inside and (name != "custom_fields" or not key)):
            raise InvalidArgument.of("update_mask", f"{path} is no field of a deal to be changed")
    return paths


def _about(deal: DealDetails, paths: set[str], state: State) -> Iterator[Message]:
    """The facts about names and people."""
    if "display_name" in paths and deal.display_name != state.display_name:
        name = known_name("deal.display_name", deal.display_name)
        yield DealRenamed(display_name=name, previous_display_name=state.display_name)
    if "contacts" in paths:
        contacts = known_contacts("deal.contacts", deal.contacts)
        if participants(contacts) != state.contacts:
            yield DealContactsChanged(contacts=contacts)
    if "company" in paths and deal.company != state.company:
        yield DealCompanyChanged(company=deal.company, previous_company=state.company)
    owner = deal.owner if "owner" in paths else state.owner
    team = deal.team if "team" in paths else state.team
    if (owner, team) != (state.owner, state.team):
        yield DealAssigned(
            owner=owner, team=team, previous_owner=state.owner, previous_team=state.team
        )
    if "next_step" in paths and deal.next_step != state.next_step:
        yield DealNextStepChanged(next_step=deal.next_step)
    custom_fields = _custom_fields(deal, paths, state)
    if custom_fields != state.custom_fields:
        yield DealCustomFieldsChanged(custom_fields=custom_fields)


def _worth(command: UpdateDealRequest, paths: set[str], state: State) -> Iterator[Message]:
    """The facts that a forecast is made of."""
    deal = command.deal
    if "amount" in paths:
        amount = known_amount("deal.amount", deal.amount) if deal.HasField("amount") else None
        if amount != state.amount:
            is_lined = bool(deal.line_items.items if "line_items" in paths else state.line_items)
            said_by_hand(command.name, state, is_lined=is_lined)
            yield DealAmountChanged(amount=amount, previous_amount=state.amount)
    if "line_items" in paths:
        yield from lined(deal.line_items, state, "deal.line_items")
    if "expected_close_time" in paths:
        is_expected = deal.HasField("expected_close_time")
        known = known_time("deal.expected_close_time", deal.expected_close_time)
        expected = utc(known) if is_expected else None
        previous = state.expected_close_time
        if expected != previous:
            yield DealExpectedCloseChanged(
                expected_close_time=known if is_expected else None,
                previous_expected_close_time=None if previous is None else timestamp_of(previous),
            )
    category = deal.forecast_category_override
    if "forecast_category_override" in paths and category != state.forecast_category:
        yield DealForecastCategoryOverridden(forecast_category=category)
    if "probability_bp_override" in paths:
        is_said = deal.HasField("probability_bp_override")
        probability = deal.probability_bp_override if is_said else None
        if probability != state.probability_bp:
            yield DealProbabilityOverridden(probability_bp=probability)


def _custom_fields(deal: DealDetails, paths: set[str], state: State) -> dict[str, str]:
    """All custom fields after a change of all of them, or of those named; an empty one is none."""
    said = dict(deal.custom_fields)
    if "custom_fields" in paths:
        return said
    after = dict(state.custom_fields)
    for path in paths:
        name, _, key = path.partition(".")
        if name == "custom_fields":
            after[key] = said.get(key, "")
            if not after[key]:
                del after[key]
    if len(after) > CUSTOM_FIELDS_MAX:
        raise InvalidArgument.of("deal.custom_fields", f"are at most {CUSTOM_FIELDS_MAX}")
    return after


def known_name(field: str, name: str) -> str:
    """Refuses a name that nobody can read."""
    if not name.strip():
        raise InvalidArgument.of(field, "a deal needs a name")
    return name


def known_contacts(field: str, contacts: Sequence[DealContact]) -> Sequence[DealContact]:
    """Refuses a contact that takes part twice."""
    seen = set()
    for place, each in enumerate(contacts):
        if each.contact in seen:
            raise InvalidArgument.of(f"{field}[{place}].contact", f"{each.contact} stands twice")
        seen.add(each.contact)
    return contacts


def known_amount(field: str, amount: Money) -> Money:
    """Refuses what could not be added up."""
    known_currency(amount.currency, f"{field}.currency")
    if not 0 <= amount.amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidArgument.of(f"{field}.amount_minor", f"lies between 0 and {AMOUNT_MINOR_MAX}")
    return amount


def known_time(field: str, time: Timestamp) -> Timestamp:
    """Refuses a moment that no calendar has."""
    known_moment(field, time)
    return time
