"""B2B sales cases: deals with their attributes as custom fields, won or lost as they were. Pure.

The source has neither dates nor amounts nor reasons, so the deals have none but the word that it
has none.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Final

from deploy.demo.cargo import Cargo, DealToTell, Item, Refused, Source, Step, checksum
from rapport.deals.v1.service_pb2 import (
    Deal,
    DealState,
    LoseDealRequest,
    OpenDealRequest,
    WinDealRequest,
)

DATASET: Final = "b2b_deals"
STATUS: Final = "Status"
LOST_REASON: Final = "not recorded in the source"
# Custom fields that say where a deal comes from; all others are columns of the file.
OURS: Final = frozenset({"dataset"})


def read(source: Source) -> Cargo[DealToTell]:
    """Reads the file into deals."""
    rows = csv.DictReader(source.lines(), delimiter=";")
    if STATUS not in (rows.fieldnames or ()):
        raise ValueError(f"{source.name}: no column {STATUS}")
    items: list[Item[DealToTell]] = []
    refused: list[Refused] = []
    count = 0
    for count, row in enumerate(rows, start=1):
        try:
            items.append(read_row(count, rows.line_num, row))
        except ValueError as error:
            told = ";".join(str(value) for value in row.values())
            refused.append(Refused(source.name, rows.line_num, str(error), told))
    return Cargo(
        file=source.name,
        rows=count,
        items=items,
        refused=refused,
        filter=f'custom_fields.dataset = "{DATASET}"',
        measure=measure,
    )


def read_row(number: int, line: int, row: Mapping[str | None, str | None]) -> Item[DealToTell]:
    """Reads one case; raises ValueError when it has no end we know or not every field."""
    values = {name: value for name, value in row.items() if name and value is not None}
    if len(values) != len(row):
        raise ValueError("the number of fields is not the number of columns")
    status = values.pop(STATUS).strip()
    deal_id = f"b2b-{number}"
    name = f"deals/{deal_id}"
    endings: dict[str, Step] = {"Won": WinDealRequest(name=name), "Lost": lost(name)}
    if status not in endings:
        raise ValueError(f"{STATUS} is neither Won nor Lost: {status!r}")
    fields = {column.lower(): value.strip() for column, value in values.items()}
    opening = OpenDealRequest(
        deal_id=deal_id,
        display_name=f"Case {number}: {fields.get('product', 'no product')}",
        custom_fields={**fields, "dataset": DATASET},
    )
    tally = {
        status.upper(): 1,
        "fields": len(values),
        "checksum": checksum(
            f"{number}/{column.lower()}/{value.strip()}" for column, value in values.items()
        ),
    }
    return Item(line, deal_id, DealToTell(opening, (endings[status],)), tally)


def lost(name: str) -> LoseDealRequest:
    """Asks to lose a deal of which nobody wrote down why."""
    return LoseDealRequest(name=name, reason=LOST_REASON)


def measure(found: Deal) -> Mapping[str, int]:
    """Counts a deal that the platform gave back."""
    number = found.name.removeprefix("deals/b2b-")
    fields = {key: text for key, text in found.custom_fields.items() if key not in OURS}
    return {
        DealState.Name(found.state).removeprefix("DEAL_STATE_"): 1,
        "fields": len(fields),
        "checksum": checksum(f"{number}/{key}/{text}" for key, text in fields.items()),
    }
