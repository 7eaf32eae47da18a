"""A suggested mapping knows what columns are usually called, and what their values look like."""

import pytest

from rapport.events.v1.import_job_pb2 import ImportValueType
from services.events import import_products
from services.events.import_mapping import violations
from services.events.import_suggestion import suggest, suggest_products

RETAIL = [
    "InvoiceNo",
    "StockCode",
    "Description",
    "Quantity",
    "InvoiceDate",
    "UnitPrice",
    "CustomerID",
    "Country",
]
LINE = dict(
    zip(
        RETAIL,
        ["536365", "85123A", "LANTERN", "6", "2010-12-01 08:26:00", "2.55", "17850.0", "UK"],
        strict=True,
    )
)


def told(columns, rows=()):
    mapping = suggest(columns, rows)
    assert not list(violations(mapping))
    return {
        field.target: (
            field.column or f"={field.constant}",
            ImportValueType.Name(field.type).removeprefix("IMPORT_VALUE_TYPE_"),
        )
        for field in mapping.fields
    }


def test_rows_with_a_time_are_track_calls_with_properties():
    assert {
        "type": ("=track", "UNSPECIFIED"),
        "name": ("=Row Imported", "UNSPECIFIED"),
        "user_id": ("CustomerID", "INTEGER"),
        "original_time": ("InvoiceDate", "UNSPECIFIED"),
        "properties.InvoiceNo": ("InvoiceNo", "INTEGER"),
        "properties.StockCode": ("StockCode", "UNSPECIFIED"),
        "properties.Description": ("Description", "UNSPECIFIED"),
        "properties.Quantity": ("Quantity", "INTEGER"),
        "properties.UnitPrice": ("UnitPrice", "NUMBER"),
        "properties.Country": ("Country", "UNSPECIFIED"),
    } == told(RETAIL, [LINE])


def test_rows_of_people_are_identify_calls_with_traits():
    assert {
        "type": ("=identify", "UNSPECIFIED"),
        "user_id": ("user_id", "UNSPECIFIED"),
        "traits.email": ("email", "UNSPECIFIED"),
        "traits.zip": ("zip", "UNSPECIFIED"),
    } == told(["user_id", "email", "zip"], [{"user_id": "1", "email": "a@x", "zip": "0815"}])


def test_what_another_platform_exported_is_mapped_as_it_is():
    row = {"type": "track", "event": "Won", "userId": "u", "messageId": "m", "properties": {}}

    assert {"type", "name", "user_id", "message_id", "properties", "context.ip"} == set(
        told([*row, "context.ip"], [row])
    )


@pytest.mark.parametrize("columns", [[], [""], ["."], ["a", "A", "a.", "properties."], ["x" * 600]])
def test_whatever_columns_are_called_the_suggestion_can_be_used(columns):
    mapping = suggest(columns, [])

    assert [] == [each for each in violations(mapping) if "constant" not in each.field]


def told_of_products(columns, rows=()):
    mapping = suggest_products(columns, rows)
    assert not list(import_products.violations(mapping))
    return {field.target: field.column for field in mapping.fields}


def test_columns_of_products_are_known_by_what_they_are_usually_called():
    columns = ["id", "Title", "SKU", "Vendor", "Product Type", "Image Src", "weight"]

    assert {
        "product_id": "id",
        "sku": "SKU",
        "display_name": "Title",
        "brand": "Vendor",
        "category": "Product Type",
        "image_url": "Image Src",
    } == told_of_products(columns)


def test_a_price_is_suggested_with_its_currency_only():
    assert {"product_id": "StockCode", "sku": "StockCode", "display_name": "Description"} == (
        told_of_products(RETAIL, [LINE])
    )
    assert {"price": "UnitPrice", "currency": "Currency"}.items() <= (
        told_of_products([*RETAIL, "Currency"], [LINE]).items()
    )


def test_a_product_id_that_was_a_number_once_is_whole():
    [field] = suggest_products(["Item ID"], [{"Item ID": "17850.0"}]).fields

    assert ImportValueType.IMPORT_VALUE_TYPE_INTEGER == field.type
