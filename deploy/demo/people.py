"""Lists of people: a contact per row, whoever it may be a duplicate of. Pure.

A row without a name is sent like any other: that nobody could tell who it is, is the platform's
rule to apply. Blank cells are left out.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Final

from deploy.demo.cargo import Cargo, Followed, Item, Refused, Source, checksum
from rapport.contacts.v1.service_pb2 import Contact, CreateContactRequest

ID: Final = "rec_id"
GIVEN_NAME: Final = "given_name"
FAMILY_NAME: Final = "surname"
# A custom field that says where a contact comes from; all others are columns of the file.
DATASET: Final = "dataset"


def read(source: Source) -> Cargo[CreateContactRequest]:
    """Reads the file into contacts."""
    dataset = source.path.name.partition(".")[0].lower()
    rows = csv.reader(source.lines(), skipinitialspace=True)
    columns = [column.strip() for column in next(rows, [])]
    if not {ID, GIVEN_NAME, FAMILY_NAME} <= set(columns):
        raise ValueError(f"{source.name}: no columns {ID}, {GIVEN_NAME} and {FAMILY_NAME}")
    items: list[Item[CreateContactRequest]] = []
    refused: list[Refused] = []
    count = 0
    for row in rows:
        count += 1
        try:
            items.append(read_row(dataset, rows.line_num, columns, row))
        except ValueError as error:
            refused.append(Refused(source.name, rows.line_num, str(error), ",".join(row)))
    return Cargo(
        file=source.name,
        rows=count,
        items=items,
        refused=refused,
        filter=f'custom_fields.{DATASET} = "{dataset}"',
        measure=measure,
        followed=_followed(items),
    )


def read_row(
    dataset: str, line: int, columns: Sequence[str], row: Sequence[str]
) -> Item[CreateContactRequest]:
    """Reads one person; raises ValueError when the row does not fit the columns."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} fields instead of {len(columns)}")
    cells = {column: cell.strip() for column, cell in zip(columns, row, strict=True)}
    if not cells[ID]:
        raise ValueError(f"no {ID}")
    contact_id = f"{dataset}-{cells[ID]}"
    others = {
        column: cell
        for column, cell in cells.items()
        if cell and column not in {GIVEN_NAME, FAMILY_NAME}
    }
    message = CreateContactRequest(
        contact_id=contact_id,
        given_name=cells[GIVEN_NAME],
        family_name=cells[FAMILY_NAME],
        custom_fields={**others, DATASET: dataset},
    )
    filled = [f"{contact_id}/{column}/{cell}" for column, cell in cells.items() if cell]
    tally = {"contacts": 1, "filled cells": len(filled), "checksum": checksum(filled)}
    return Item(line, contact_id, message, tally)


def measure(found: Contact) -> Mapping[str, int]:
    """Counts a contact that the platform gave back."""
    contact_id = found.name.removeprefix("contacts/")
    cells = {**found.custom_fields, GIVEN_NAME: found.given_name, FAMILY_NAME: found.family_name}
    del cells[DATASET]
    filled = [f"{contact_id}/{column}/{cell}" for column, cell in cells.items() if cell]
    return {"contacts": 1, "filled cells": len(filled), "checksum": checksum(filled)}


def _followed(items: Sequence[Item[CreateContactRequest]]) -> Followed | None:
    """The last person with a name: what was sent last arrives last."""
    for item in reversed(items):
        if item.message.given_name or item.message.family_name:
            return Followed(f"contact_id:{item.key}", frozenset({item.key}))
    return None
