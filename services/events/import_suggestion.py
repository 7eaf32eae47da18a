"""A mapping to begin with, from what a file calls its columns and its first rows. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rapport.events.v1.import_job_pb2 import ImportField, ImportMapping, ImportValueType
from services.events.import_files import Row, value_in
from services.events.import_values import (
    boolean_of,
    integer_of,
    is_empty,
    number_of,
    time_reader,
)

# A file may have more columns, and longer names, than a mapping.
FIELDS_MAX = 500
NAME_CHARACTERS_MAX = 400

# What columns of the same meaning are called, the likeliest first, in letters and digits only.
_KNOWN = {
    "message_id": ("messageid", "eventid", "insertid", "uuid"),
    "type": ("type", "eventtype", "calltype"),
    "name": ("event", "eventname", "name", "action", "activity"),
    "user_id": ("userid", "customerid", "externalid", "memberid", "uid", "customer", "user"),
    "anonymous_id": ("anonymousid", "deviceid", "visitorid", "sessionid", "cookieid", "clientid"),
    "previous_id": ("previousid",),
    "group_id": ("groupid", "accountid", "companyid", "organizationid", "organisationid"),
    "original_time": (
        "originaltimestamp",
        "timestamp",
        "occurredat",
        "eventtime",
        "time",
        "datetime",
        "sentat",
        "createdat",
        "date",
        "invoicedate",
        "orderdate",
    ),
}
# The same of products.
_OF_PRODUCTS = {
    "product_id": (
        "productid",
        "itemid",
        "articleid",
        "id",
        "stockcode",
        "sku",
        "itemnumber",
        "articlenumber",
        "article",
        "item",
        "code",
    ),
    "sku": ("sku", "stockcode", "variantsku", "itemnumber", "articlenumber"),
    "display_name": ("displayname", "productname", "itemname", "title", "name", "description"),
    "brand": ("brand", "brandname", "vendor", "manufacturer"),
    "category": ("category", "categoryname", "productcategory", "producttype", "department"),
    "variant": ("variant", "variantname", "variation"),
    "price": ("price", "unitprice", "listprice", "variantprice", "productprice"),
    "currency": ("currency", "currencycode", "pricecurrency"),
    "url": ("url", "producturl", "link"),
    "image_url": ("imageurl", "imagelink", "imagesrc", "image", "picture"),
}
_OBJECTS = ("properties", "traits", "context")
_TYPES = ("track", "identify", "page", "screen", "group", "alias", "account")
_NAME = "Row Imported"
_OTHER = re.compile(r"[^a-z0-9]+")

_read_time = time_reader("", "")


def suggest(columns: Sequence[str], rows: Sequence[Row]) -> ImportMapping:
    """A mapping of all columns. Rows that tell of something done are track calls, else identify."""
    taken = {
        target: column
        for target, names in _KNOWN.items()
        if (column := _called(names, columns)) is not None
    }
    if "type" in taken and not _all(rows, taken["type"], _known_type):
        del taken["type"]
    is_track = "name" in taken or "original_time" in taken
    constants = {"type": "track" if is_track else "identify"}
    if is_track:
        constants["name"] = _NAME
    fields = [
        ImportField(
            target=target,
            column=taken.get(target, ""),
            constant="" if target in taken else constants[target],
            type=_id_type(rows, taken[target])
            if target.endswith("_id")
            else ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED,
        )
        for target in _KNOWN
        if target in taken or target in constants
    ]
    rest = "properties" if is_track or "type" in taken else "traits"
    others = [column for column in columns if column not in taken.values()]
    fields += [_other(column, rest, rows) for column in others if _can_be_named(column)]
    return ImportMapping(fields=_distinct(fields)[:FIELDS_MAX])


def suggest_products(columns: Sequence[str], rows: Sequence[Row]) -> ImportMapping:
    """A mapping of the columns that say something of products.

    A price without a currency is left out: which one it is nobody can tell from the file.
    """
    taken = {
        target: column
        for target, names in _OF_PRODUCTS.items()
        if (column := _called(names, columns)) is not None and _can_be_named(column)
    }
    if not {"price", "currency"} <= taken.keys():
        taken = {target: taken[target] for target in taken if target not in ("price", "currency")}
    as_it_is = ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED
    return ImportMapping(
        fields=[
            ImportField(
                target=target,
                column=column,
                type=_id_type(rows, column) if target in ("product_id", "sku") else as_it_is,
            )
            for target, column in taken.items()
        ]
    )


def _can_be_named(column: str) -> bool:
    return bool(column.strip(". ")) and len(column) <= NAME_CHARACTERS_MAX and "\0" not in column


def _other(column: str, rest: str, rows: Sequence[Row]) -> ImportField:
    root, _, path = column.partition(".")
    if column in _OBJECTS:
        return ImportField(target=column, column=column)
    within = f"{root}.{_key(path)}" if root in _OBJECTS and path else f"{rest}.{_key(column)}"
    return ImportField(target=within, column=column, type=_type(rows, column))


def _distinct(fields: Sequence[ImportField]) -> list[ImportField]:
    """The first field of each target: columns may differ in what a target does not keep."""
    return list({field.target: field for field in reversed(fields)}.values())[::-1]


def _called(names: Sequence[str], columns: Sequence[str]) -> str | None:
    plain = {_OTHER.sub("", column.lower()): column for column in reversed(columns)}
    return next((plain[name] for name in names if name in plain), None)


def _key(column: str) -> str:
    return column.strip().replace(".", "_")


def _type(rows: Sequence[Row], column: str) -> ImportValueType.ValueType:
    """The narrowest type that all texts of a column have; what is no text has its own."""
    for value_type, convert in (
        (ImportValueType.IMPORT_VALUE_TYPE_INTEGER, _plain_integer),
        (ImportValueType.IMPORT_VALUE_TYPE_NUMBER, _plain_number),
        (ImportValueType.IMPORT_VALUE_TYPE_BOOLEAN, _plain_boolean),
        (ImportValueType.IMPORT_VALUE_TYPE_TIME, _read_time),
    ):
        if _all(rows, column, convert):
            return value_type
    return ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED


def _id_type(rows: Sequence[Row], column: str) -> ImportValueType.ValueType:
    """Ids that were numbers once are written `17850.0`."""
    is_number = _all(rows, column, integer_of) and not _all(rows, column, _plain_integer)
    integer, as_it_is = (
        ImportValueType.IMPORT_VALUE_TYPE_INTEGER,
        ImportValueType.IMPORT_VALUE_TYPE_UNSPECIFIED,
    )
    return integer if is_number else as_it_is


def _all(rows: Sequence[Row], column: str, convert: Callable[[Any], object]) -> bool:
    """Whether a column has texts, and all of them can be converted."""
    values = [value for row in rows if not is_empty(value := value_in(row, column))]
    try:
        for value in values:
            if not isinstance(value, str):
                return False
            convert(value)
    except ValueError:
        return False
    return bool(values)


def _plain_integer(text: str) -> int:
    """A whole number that is written as such: with a leading zero it is a code."""
    if text.strip() != str(number := integer_of(text)):
        raise ValueError("is written otherwise")
    return number


def _plain_number(text: str) -> float:
    if re.match(r"\s*[+-]?0\d", text):
        raise ValueError("is written otherwise")
    return number_of(text)


def _plain_boolean(text: str) -> bool:
    if text.strip() in ("0", "1"):
        raise ValueError("is written otherwise")
    return boolean_of(text)


def _known_type(text: str) -> str:
    if text.strip().lower() not in _TYPES:
        raise ValueError("is no type")
    return text
