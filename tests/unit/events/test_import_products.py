"""A row becomes the entry of the catalogue that the mapping says, or says why it does not."""

from decimal import Decimal

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.events.v1.events_pb2 import CatalogueEntry
from rapport.events.v1.import_job_pb2 import (
    ImportEmptyValue,
    ImportField,
    ImportMapping,
    ImportValueType,
)
from rapport.events.v1.products_pb2 import ProductEntry
from services.events.import_products import CHARACTERS_MAX, TEXTS, ProductMapper, violations
from services.events.money import AMOUNT_MINOR_MAX
from tests.imports_world import product_mapping

ID = ImportField(target="product_id", column="id")
PRICED = product_mapping(product_id="id", price="price", currency="currency")


def mapped(mapping, **row):
    assert not list(violations(mapping))
    return ProductMapper.of(mapping).mapped(1, row)


def priced(price, currency="EUR"):
    made = mapped(PRICED, id="lamp", price=price, currency=currency)
    return made.entry.price if isinstance(made, ProductEntry) else (made.reason, made.column)


def wrong(*fields):
    return [violation.field for violation in violations(ImportMapping(fields=fields))]


def test_columns_and_constants_fill_an_entry():
    mapping = product_mapping(
        product_id="id", price="price", **{target: f"the {target}" for target in TEXTS[:-1]}
    )
    mapping.fields.add(target="currency", constant="gbp")
    mapping.fields.add(target="image_url", constant="https://example.com/none.png")
    texts = {f"the {target}": f" {target} of it " for target in TEXTS[:-1]}

    made = mapped(mapping, id=" lamp/1 ", price="2.55", **texts)

    texts = {target: f"{target} of it" for target in TEXTS[:-1]}
    entry = CatalogueEntry(
        price=Money(amount_minor=255, currency="GBP"),
        image_url="https://example.com/none.png",
        **texts,
    )
    assert ProductEntry(product_id="lamp/1", entry=entry) == made


def test_all_that_an_entry_has_can_be_mapped():
    fields = {field.name for field in CatalogueEntry.DESCRIPTOR.fields}

    assert fields == {*TEXTS, "price"}


def test_what_is_empty_is_left_out():
    made = mapped(PRICED, id=17850, price=None, currency=" ")

    assert ProductEntry(product_id="17850", entry=CatalogueEntry()) == made
    assert made.HasField("entry")


@pytest.mark.parametrize(
    ("price", "currency", "minor"),
    [
        ("2.55", "GBP", 255),
        (" 2.5 ", " gbp ", 250),
        (2.55, "GBP", 255),
        (0.1, "EUR", 10),
        (3, "EUR", 300),
        (Decimal("19.990"), "EUR", 1999),
        ("500", "JPY", 500),
        ("1.234", "BHD", 1234),
        (0, "EUR", 0),
        ("10000000000000.00", "EUR", AMOUNT_MINOR_MAX),
        (9999999999999.99, "EUR", AMOUNT_MINOR_MAX - 1),
    ],
)
def test_a_price_is_read_exactly(price, currency, minor):
    expected = Money(amount_minor=minor, currency=currency.strip().upper())

    assert expected == priced(price, currency)


@pytest.mark.parametrize(
    ("price", "currency", "reason", "column"),
    [
        ("2.55", "", "CURRENCY_MISSING", "currency"),
        ("2.55", "XAU", "CURRENCY_UNKNOWN", "currency"),
        ("2,55", "EUR", "AMOUNT_INVALID", "price"),
        ("2.55 EUR", "EUR", "AMOUNT_INVALID", "price"),
        ("-1", "EUR", "AMOUNT_INVALID", "price"),
        (True, "EUR", "AMOUNT_INVALID", "price"),
        (float("nan"), "EUR", "AMOUNT_INVALID", "price"),
        (Decimal("Infinity"), "EUR", "AMOUNT_INVALID", "price"),
        ({"amount": 1}, "EUR", "AMOUNT_INVALID", "price"),
        ("2.555", "EUR", "AMOUNT_ROUNDED", "price"),
        ("0.5", "JPY", "AMOUNT_ROUNDED", "price"),
        ("10000000000000.01", "EUR", "AMOUNT_TOO_LARGE", "price"),
        (1e300, "EUR", "AMOUNT_TOO_LARGE", "price"),
    ],
)
def test_what_is_no_exact_price_is_told_with_its_column(price, currency, reason, column):
    assert (reason, column) == priced(price, currency)


@pytest.mark.parametrize("product_id", [None, "", "  "])
def test_a_row_without_a_product_id_is_an_error(product_id):
    error = mapped(PRICED, id=product_id)

    assert ("VALUE_EMPTY", "id") == (error.reason, error.column)


@pytest.mark.parametrize("target", CHARACTERS_MAX)
def test_a_text_is_as_long_as_an_entry_holds(target):
    mapping = product_mapping(**{"product_id": "id"} | {target: "v"})
    longest = CHARACTERS_MAX[target]

    assert isinstance(mapped(mapping, id="lamp", v="x" * longest), ProductEntry)
    error = mapped(mapping, id="lamp", v="x" * (longest + 1))
    assert ("VALUE_INVALID", "v") == (error.reason, error.column)


@pytest.mark.parametrize("value", ["a\0b", "\ud800", b"\xff", object()])
def test_what_is_no_text_is_told(value):
    mapping = product_mapping(product_id="id", brand="v")

    assert "VALUE_INVALID" == mapped(mapping, id="lamp", v=value).reason
    assert "VALUE_INVALID" == mapped(mapping, id=value).reason


def test_a_value_that_is_needed_and_a_type_are_as_the_mapping_says():
    refuse = ImportEmptyValue.IMPORT_EMPTY_VALUE_REFUSE
    needed = ImportMapping(fields=[ID, ImportField(target="sku", column="v", when_empty=refuse)])
    whole = ImportValueType.IMPORT_VALUE_TYPE_INTEGER
    typed = ImportMapping(fields=[ImportField(target="product_id", column="id", type=whole)])

    assert "VALUE_EMPTY" == mapped(needed, id="lamp").reason
    assert "17850" == mapped(typed, id="17850.0").product_id
    assert "VALUE_INVALID" == mapped(typed, id="lamp").reason


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ([], "mapping.fields"),
        ([ID, ID], "mapping.fields[1].target"),
        ([ID, ImportField(target="traits.x", column="v")], "mapping.fields[1].target"),
        ([ID, ImportField(target="brand")], "mapping.fields[1]"),
        ([ID, ImportField(target="price", column="v")], "mapping.fields"),
        ([ID, ImportField(target="currency", constant="EUR")], "mapping.fields"),
        (
            [ImportField(target="product_id", column="id", constant="lamp")],
            "mapping.fields[0].constant",
        ),
        (
            [ID, ImportField(target="sku", constant="x" * 256)],
            "mapping.fields[1].constant",
        ),
        (
            [ID, ImportField(target="sku", column="v", when_empty=2)],
            "mapping.fields[1].when_empty",
        ),
        (
            [*PRICED.fields[:2], ImportField(target="currency", constant="XAU")],
            "mapping.fields[2].constant",
        ),
        (
            [ID, PRICED.fields[2], ImportField(target="price", constant="free")],
            "mapping.fields[2].constant",
        ),
        (
            [ID, PRICED.fields[2], ImportField(target="price", column="v", type=3)],
            "mapping.fields[2].type",
        ),
    ],
)
def test_a_mapping_that_maps_nothing_is_refused_by_its_place(fields, where):
    assert [where] == wrong(*fields)


def test_a_column_that_a_file_has_not_is_named():
    assert ["currency", "price"] == ProductMapper.of(PRICED).missing(["id"])
