"""How a row of a file becomes an entry of the catalogue. Pure.

Prices are read from the digits that the file has, as those of customer events are; one that is no
exact amount of its currency is the row's error, for nobody rounds what a catalogue says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor

from rapport.events.v1.events_pb2 import CatalogueEntry
from rapport.events.v1.import_job_pb2 import (
    ImportEmptyValue,
    ImportField,
    ImportMapping,
)
from rapport.events.v1.products_pb2 import ProductEntry
from services.events.import_fields import (
    Found,
    MappedField,
    RowErrorRaised,
    common_violations,
    constant_violations,
    missing_columns,
)
from services.events.import_files import Row, RowError
from services.events.money import Amount, MoneyProblem, read_amount
from services.kernel.errors import FieldViolation
from services.kernel.iso4217 import EXPONENTS

ID = "product_id"
TEXTS = ("display_name", "sku", "brand", "category", "variant", "url", "image_url")
PRICE = ("price", "currency")
TARGETS = (ID, *TEXTS, *PRICE)

_DETAILS = {
    MoneyProblem.CURRENCY_MISSING: "is needed where there is a price",
    MoneyProblem.CURRENCY_UNKNOWN: "is no ISO 4217 code of a currency with a minor unit",
    MoneyProblem.AMOUNT_INVALID: "is no plain number from 0 on",
    MoneyProblem.AMOUNT_TOO_LARGE: "is larger than anything costs",
    MoneyProblem.AMOUNT_ROUNDED: "has more digits than its currency",
}
_OF_THE_CURRENCY = (MoneyProblem.CURRENCY_MISSING, MoneyProblem.CURRENCY_UNKNOWN)


def _characters_max(field: FieldDescriptor) -> int:
    """How long a text may be, as its proto says."""
    rules = field.GetOptions().Extensions[cast("Any", validate_pb2).field]
    return int(rules.string.max_len)


CHARACTERS_MAX = {
    ID: _characters_max(ProductEntry.DESCRIPTOR.fields_by_name[ID]),
    **{text: _characters_max(CatalogueEntry.DESCRIPTOR.fields_by_name[text]) for text in TEXTS},
}
"""How long the texts of an entry may be."""


@dataclass(frozen=True, slots=True)
class ProductMapper:
    """Makes entries of the catalogue of the rows of one import."""

    fields: Mapping[str, MappedField]

    @classmethod
    def of(cls, mapping: ImportMapping) -> ProductMapper:
        """A mapper for a mapping without violations."""
        return cls({field.target: MappedField.of(field) for field in mapping.fields})

    def mapped(self, _: int, row: Row) -> ProductEntry | RowError:
        """The entry that a row is, or why it is none."""
        try:
            return ProductEntry(product_id=self._product_id(row), entry=self._entry(row))
        except RowErrorRaised as raised:
            return raised.error

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that the mapping names and a file with these columns has not."""
        return missing_columns(self.fields.values(), columns)

    def _product_id(self, row: Row) -> str:
        product_id = self._text(row, ID)
        if not product_id:
            raise self.fields[ID].error("VALUE_EMPTY", f"{ID} is needed and empty", "")
        return product_id

    def _entry(self, row: Row) -> CatalogueEntry:
        entry = CatalogueEntry()
        for text in TEXTS:
            setattr(entry, text, self._text(row, text))
        currency = self._text(row, "currency").upper()
        found = self._found(row, "price")
        if found is not None:
            amount = self._amount(found.value, currency)
            entry.price.amount_minor, entry.price.currency = amount.minor, amount.currency
        return entry

    def _found(self, row: Row, target: str) -> Found | None:
        field = self.fields.get(target)
        return None if field is None else field.found(row)

    def _text(self, row: Row, target: str) -> str:
        found = self._found(row, target)
        if found is None:
            return ""
        field = self.fields[target]
        try:
            return _text_of(field, found.value)
        except (ValueError, TypeError, RecursionError) as error:
            raise field.error("VALUE_INVALID", f"{target}: {error}", found.value) from None

    def _amount(self, written: Any, currency: str) -> Amount:
        amount, problem = read_amount(_digits_of(written), currency)
        if problem in _OF_THE_CURRENCY:
            raise self.fields["currency"].error(problem, f"currency {_DETAILS[problem]}", currency)
        if amount is None or amount.minor < 0 or problem is not None:
            problem = problem or MoneyProblem.AMOUNT_INVALID
            raise self.fields["price"].error(problem, f"price {_DETAILS[problem]}", written)
        return amount


def violations(mapping: ImportMapping) -> Iterator[FieldViolation]:
    """What no row could be mapped by, each with its place in the request."""
    targets = {field.target for field in mapping.fields}
    if ID not in targets:
        yield FieldViolation("mapping.fields", f"{ID} is needed: from a column")
    if len(targets.intersection(PRICE)) == 1:
        yield FieldViolation("mapping.fields", "a price needs a currency, and it a price")
    for place, field in enumerate(mapping.fields):
        where = f"mapping.fields[{place}]"
        if field.target not in TARGETS:
            yield FieldViolation(f"{where}.target", f"must be one of {', '.join(TARGETS)}")
        if field.target == ID and field.constant:
            yield FieldViolation(f"{where}.constant", "all rows would be the same product")
        if field.target == "price" and field.type:
            yield FieldViolation(f"{where}.type", "a price is read exactly: name no type")
        if field.when_empty == ImportEmptyValue.IMPORT_EMPTY_VALUE_NULL:
            yield FieldViolation(f"{where}.when_empty", "nothing in an entry is null")
    yield from common_violations(mapping)
    yield from constant_violations(mapping, TARGETS, _check_alone)


def _check_alone(field: ImportField) -> None:
    """Raises ValueError when a constant fits no row."""
    if field.target == "currency" and field.constant.strip().upper() not in EXPONENTS:
        raise ValueError(_DETAILS[MoneyProblem.CURRENCY_UNKNOWN])
    if field.target == "price":
        amount, _ = read_amount(field.constant, "EUR")
        if amount is None or amount.minor < 0:
            raise ValueError(_DETAILS[MoneyProblem.AMOUNT_INVALID])
    else:
        _text_of(MappedField.of(field), field.constant)


def _text_of(field: MappedField, value: Any) -> str:
    """A value as the text that an entry holds."""
    text = field.text(value)
    text.encode()  # a UnicodeEncodeError is a ValueError
    if "\0" in text:
        raise ValueError("holds the character U+0000")
    longest = CHARACTERS_MAX.get(field.target)
    if longest is not None and len(text) > longest:
        raise ValueError(f"is longer than {longest} characters")
    return text


def _digits_of(written: Any) -> Any:
    """A number by its digits; those that tell a float from all others are what was written."""
    match written:
        case bool():
            return None
        case int():
            return Decimal(written)
        case float() if math.isfinite(written):
            return Decimal(repr(written))
        case Decimal() if not written.is_finite():
            return None
    return written
