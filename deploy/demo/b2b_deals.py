"""B2B sales cases: deals with their attributes as custom fields, won or lost as they were. Pure.

The source has neither dates nor amounts nor reasons. So they are made up (`b2b_history`), which
each deal says in a custom field of its own; states and attributes are the source's.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from typing import Final

from deploy.deal_files.values import name_of
from deploy.demo.b2b_history import made_up
from deploy.demo.cargo import Cargo, Item, Refused, Source, Tally, checksum
from rapport.deals.v1.imports_pb2 import ImportedDeal
from rapport.deals.v1.service_pb2 import Deal, DealDetails, DealState
from services.kernel.log.recorded import utc

DATASET: Final = "b2b_deals"
STATUS: Final = "Status"
FILTER: Final = f'custom_fields.dataset = "{DATASET}"'
# Custom fields that say where a deal comes from; all others are columns of the file.
OURS: Final = {"dataset": DATASET, "made_up": "dates and amounts"}


def read(source: Source) -> Cargo[ImportedDeal]:
    """Reads the file into deals with histories."""
    rows = csv.DictReader(source.lines(), delimiter=";")
    if STATUS not in (rows.fieldnames or ()):
        raise ValueError(f"{source.name}: no column {STATUS}")
    items: list[Item[ImportedDeal]] = []
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
        filter=FILTER,
        measure=measure,
    )


def read_row(number: int, line: int, row: Mapping[str | None, str | None]) -> Item[ImportedDeal]:
    """Reads one case; raises ValueError when it has no end we know or not every field."""
    values = {name: value for name, value in row.items() if name and value is not None}
    if len(values) != len(row):
        raise ValueError("the number of fields is not the number of columns")
    status = values.pop(STATUS).strip()
    if status not in {"Won", "Lost"}:
        raise ValueError(f"{STATUS} is neither Won nor Lost: {status!r}")
    fields = {column.lower(): value.strip() for column, value in values.items()}
    deal = ImportedDeal(
        row=line,
        deal_id=f"b2b-case-{number}",
        details=DealDetails(
            display_name=f"Case {number}: {fields.get('product', 'no product')}",
            owner=name_of("members", fields.get("seller", "")),
            custom_fields={**fields, **OURS},
        ),
    )
    made_up(deal, number, is_won=status == "Won")
    tally = Tally(
        {
            status.upper(): 1,
            "fields": len(values),
            "cents": _cents(deal),
            "seconds from opening to end": _seconds(deal),
            "checksum": checksum(
                f"{number}/{column.lower()}/{value.strip()}" for column, value in values.items()
            ),
        }
    )
    return Item(line, deal.deal_id, deal, tally)


def measure(found: Deal) -> Mapping[str, int]:
    """Counts a deal that the platform gave back."""
    number = found.name.removeprefix("deals/b2b-case-")
    fields = {key: text for key, text in found.custom_fields.items() if key not in OURS}
    return {
        DealState.Name(found.state).removeprefix("DEAL_STATE_"): 1,
        "fields": len(fields),
        "cents": found.amount.amount_minor,
        "seconds from opening to end": found.close_time.seconds - found.open_time.seconds,
        "checksum": checksum(f"{number}/{key}/{text}" for key, text in fields.items()),
    }


def _cents(deal: ImportedDeal) -> int:
    """What a deal was worth in the end."""
    amounts = [
        change.details.amount for change in deal.changes if change.details.HasField("amount")
    ]
    return [deal.details.amount, *amounts][-1].amount_minor


def _seconds(deal: ImportedDeal) -> int:
    end = max(utc(change.occur_time) for change in deal.changes)
    return round((end - utc(deal.open_time)).total_seconds())
