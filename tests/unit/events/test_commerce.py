"""What customer events say of products and orders is read as the e-commerce spec means it."""

import json

import pytest

from services.events.commerce import (
    PARTS_MAX,
    PROBLEMS_KEPT_MAX,
    Line,
    Slot,
    lines_total,
    read_commerce,
    role_of,
)
from services.events.commerce_names import NAMES, Role
from services.events.commerce_values import ID_CHARACTERS_MAX, QUANTITY_MAX
from services.events.money import Amount

SPEC_ORDER = {
    "checkout_id": "fksdjfsdjfisjf9sdfjsd9f",
    "order_id": "50314b8e9bcf000000000000",
    "affiliation": "Google Store",
    "total": 27.50,
    "subtotal": 22.50,
    "revenue": 25.00,
    "shipping": 3,
    "tax": 2,
    "discount": 2.5,
    "coupon": "hasbros",
    "currency": "USD",
    "products": [
        {
            "product_id": "507f1f77bcf86cd799439011",
            "sku": "45790-32",
            "name": "Monopoly: 3rd Edition",
            "price": 19,
            "quantity": 1,
            "category": "Games",
            "url": "https://www.example.com/product/path",
            "image_url": "https://www.example.com/product/path.jpg",
        },
        {
            "product_id": "505bd76785ebb509fc183733",
            "sku": "46493-32",
            "name": "Uno Card Game",
            "price": 3,
            "quantity": 2,
            "category": "Games",
        },
    ],
}


def read(name, **properties):
    return read_commerce(name, json.dumps(properties))


def problems(commerce):
    return [(problem.reason, problem.path) for problem in commerce.statement.problems]


@pytest.mark.parametrize("name", [name for names in NAMES.values() for name in names])
def test_a_name_is_known_in_any_case_and_with_any_signs(name):
    spellings = [name, name.lower(), name.upper(), name.replace(" ", "_"), name.replace(" ", "")]
    spellings += [f" {name} ", name.lower().replace(" ", "-")]

    roles = {role_of(each) for each in spellings}

    assert len(roles) == 1
    assert None not in roles


@pytest.mark.parametrize("name", ["", "Song Played", "Order", "Order Completed Twice", "注文 完了"])
def test_another_name_is_none_of_the_spec_s(name):
    assert role_of(name) is None
    assert read_commerce(name, "{}") is None


def test_the_order_of_the_spec_is_read_whole():
    statement = read("Order Completed", **SPEC_ORDER).statement

    assert "50314b8e9bcf000000000000" == statement.order
    assert (Slot.WHOLE, 1, False) == (statement.slot, statement.parts, statement.is_update)
    assert {
        "total": "USD 2750",
        "subtotal": "USD 2250",
        "revenue": "USD 2500",
        "shipping": "USD 300",
        "tax": "USD 200",
        "discount": "USD 250",
    } == statement.amounts
    assert ("fksdjfsdjfisjf9sdfjsd9f", "Google Store", "hasbros") == (
        statement.checkout_id,
        statement.affiliation,
        statement.coupon,
    )
    assert Amount(2500, "USD") == lines_total(statement.lines)
    assert (
        Line(
            product="505bd76785ebb509fc183733",
            name="Uno Card Game",
            sku="46493-32",
            quantity=2,
            price="USD 300",
        )
        == (statement.lines[1])
    )
    assert () == statement.problems


def test_the_products_of_an_order_are_mentioned():
    first, second = read("Order Completed", **SPEC_ORDER).mentions

    assert "507f1f77bcf86cd799439011" == first.product
    assert {
        "sku": "45790-32",
        "name": "Monopoly: 3rd Edition",
        "category": "Games",
        "url": "https://www.example.com/product/path",
        "image_url": "https://www.example.com/product/path.jpg",
        "price": "USD 1900",
    } == first.said
    assert (0, 0, 0) == (second.views, second.adds, second.refunded)


def test_views_and_adds_are_counted_where_one_product_is_meant():
    lamp = {"product_id": "p"}

    def counts(name, **properties):
        (mention,) = read(name, **properties).mentions
        return mention.views, mention.adds

    assert (1, 0) == counts("Product Viewed", **lamp)
    assert (0, 1) == counts("Product Added", **lamp)
    assert (0, 0) == counts("Product Clicked", **lamp)
    assert (0, 0) == counts("Product List Viewed", products=[lamp])
    assert (0, 0) == counts("Cart Viewed", products=[lamp])


@pytest.mark.parametrize(
    ("properties", "product"),
    [
        ({"product_id": "p", "sku": "s"}, "p"),
        ({"productId": "p"}, "p"),
        ({"id": "v1", "sku": "s"}, "v1"),
        ({"sku": "s"}, "s"),
        ({"product_id": None, "sku": " s "}, "s"),
        ({"product_id": 507}, "507"),
        ({"product_id": "a/b c"}, "a/b c"),
        ({"product_id": "x" * ID_CHARACTERS_MAX}, "x" * ID_CHARACTERS_MAX),
    ],
)
def test_a_product_is_known_by_its_id_else_its_sku(properties, product):
    (mention,) = read("Product Viewed", **properties).mentions

    assert product == mention.product


@pytest.mark.parametrize("product_id", ["", None, True, [], "x" * (ID_CHARACTERS_MAX + 1)])
def test_a_product_without_an_id_is_no_product_and_told(product_id):
    commerce = read("Order Completed", order_id="1", products=[{"product_id": product_id}])

    assert () == commerce.mentions
    assert ("PRODUCT_ID_MISSING", "/products/0") in problems(commerce)


def test_a_product_that_is_named_twice_is_mentioned_once_with_the_later_word():
    twice = [{"sku": "s", "name": "Lamp", "brand": "A"}, {"sku": "s", "name": "Desk"}]

    commerce = read("Order Completed", order_id="1", products=twice)

    (mention,) = commerce.mentions
    assert {"sku": "s", "name": "Desk", "brand": "A"} == mention.said
    assert 2 == len(commerce.statement.lines)


@pytest.mark.parametrize(
    ("properties", "problem"),
    [
        ({"total": 5}, ("CURRENCY_MISSING", "/total")),
        ({"total": 5, "currency": "XYZ"}, ("CURRENCY_UNKNOWN", "/total")),
        ({"total": "5 EUR", "currency": "EUR"}, ("AMOUNT_INVALID", "/total")),
        ({"total": 1e30, "currency": "EUR"}, ("AMOUNT_TOO_LARGE", "/total")),
        ({"tax": 0.125, "currency": "EUR"}, ("AMOUNT_ROUNDED", "/tax")),
        ({"total_minor": 1.5, "currency": "EUR"}, ("AMOUNT_INVALID", "/total_minor")),
        ({"products": "p"}, ("PRODUCT_INVALID", "/products")),
        ({"products": ["p"]}, ("PRODUCT_INVALID", "/products/0")),
        ({"products": [{"sku": "s", "name": {}}]}, ("TEXT_INVALID", "/products/0/name")),
        ({"products": [{"sku": "s", "price": "free"}], "currency": "EUR"}, None),
        ({"products": [{"sku": "s", "quantity": 1.5}]}, ("QUANTITY_INVALID", None)),
        ({"products": [{"sku": "s", "quantity": QUANTITY_MAX + 1}]}, ("QUANTITY_INVALID", None)),
        ({"parts": PARTS_MAX + 1}, ("PART_INVALID", "/parts")),
        ({"coupon": []}, ("TEXT_INVALID", "/coupon")),
    ],
)
def test_what_cannot_be_read_is_told_where_it_stands(properties, problem):
    commerce = read("Order Completed", order_id="1", **properties)

    reason, path = problem or ("AMOUNT_INVALID", "/products/0/price")
    assert [(reason, path or "/products/0/quantity")] == problems(commerce)
    assert 1 == commerce.statement.problem_count


def test_the_largest_quantity_and_number_of_parts_are_taken():
    commerce = read(
        "Order Completed",
        order_id="1",
        parts=PARTS_MAX,
        products=[{"sku": "s", "quantity": QUANTITY_MAX}],
    )

    assert PARTS_MAX == commerce.statement.parts
    assert QUANTITY_MAX == commerce.statement.lines[0].quantity


def test_of_very_many_problems_the_first_are_kept_and_all_are_counted():
    commerce = read("Order Completed", order_id="1", products=[1] * 1_000)

    assert PROBLEMS_KEPT_MAX == len(commerce.statement.problems)
    assert 1_000 == commerce.statement.problem_count


def test_a_product_s_own_problems_are_counted_with_it_once_each():
    products = [{"sku": "s", "price": 1}, {"sku": "s", "price": 2}, {"sku": "t"}]

    first, second = read("Order Completed", order_id="1", products=products).mentions

    assert {"CURRENCY_MISSING": 1} == first.problems
    assert {} == second.problems


def test_what_is_wrong_with_an_order_that_has_no_id_is_counted_with_its_products():
    commerce = read("Order Completed", total="ten", currency="EUR", products=[{"sku": "s"}])

    assert commerce.statement is None
    assert {"AMOUNT_INVALID": 1, "ORDER_ID_MISSING": 1} == commerce.mentions[0].problems


@pytest.mark.parametrize("part", [None, 1, "two", PARTS_MAX + 1])
def test_a_part_that_has_no_place_is_no_part_of_the_order(part):
    commerce = read("Order Continued", order_id="1", part=part, products=[{"sku": "s"}])

    assert commerce.statement is None
    assert {"PART_INVALID": 1} == commerce.mentions[0].problems


def test_a_refund_counts_how_much_it_is_whatever_its_sign():
    line = {"sku": "s", "quantity": -2, "price": 5}

    commerce = read("Order Refunded", order_id="1", total=-10, currency="EUR", products=[line])

    assert {"total": "EUR 1000"} == commerce.statement.amounts
    assert (2, 2) == (commerce.statement.lines[0].quantity, commerce.mentions[0].refunded)
    assert not commerce.statement.is_whole_refund


def test_a_refund_that_says_nothing_but_the_order_is_the_whole_order():
    assert read("Order Refunded", order_id="1", currency="EUR").statement.is_whole_refund
    assert not read("Order Refunded", order_id="1", total="?").statement.is_whole_refund
    assert not read("Order Refunded", order_id="1", products=[]).statement.is_whole_refund


def test_events_without_products_and_orders_are_known_and_say_nothing_here():
    for name in NAMES[Role.ASIDE]:
        commerce = read(name, order_id="1", coupon_id="x")
        assert ((), None) == (commerce.mentions, commerce.statement)


def test_numbers_are_read_from_their_digits():
    commerce = read_commerce(
        "Product Viewed",
        '{"sku": 1e2, "price": 0.30, "currency": "usd", "id": 12345678901234567890}',
    )

    (mention,) = commerce.mentions
    assert "12345678901234567890" == mention.product
    assert {"sku": "100", "price": "USD 30"} == mention.said
