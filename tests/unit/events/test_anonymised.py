"""What is left of a customer event when its person goes."""

import json

import pytest

from rapport.events.v1.customer_event_pb2 import CustomerEvent, CustomerEventType
from services.events.anonymised import anonymised
from services.kernel.erasing.subjects import Subject

TYPES = {name.rpartition("_")[2]: value for name, value in CustomerEventType.items()}
NOBODY = Subject.of("acme", b"", ())


def left_of(properties=None, *, subject=NOBODY, **fields):
    fields = {
        "type": TYPES["TRACK"],
        "name": "Order Completed",
        "properties": json.dumps(properties or {}),
    } | fields
    return anonymised(
        CustomerEvent(**fields), subject, "anonymised-1", lambda text: f"#{len(text)}"
    )


def kept(properties, **fields):
    return json.loads(left_of(properties, **fields).properties or "{}")


def test_identifiers_traits_context_and_violations_go_and_times_stay():
    left = left_of(
        message_id="m-1",
        user_id="u-1",
        anonymous_id="a-1",
        previous_id="p-1",
        group_id="g-1",
        traits='{"name":"Ada"}',
        context='{"ip":"10.0.0.1"}',
        violations=[{"rule": "required"}],
        original_time={"seconds": 1},
        receive_time={"seconds": 2},
        occur_time={"seconds": 1},
        source="sources/shop",
        import_name="imports/one",
    )

    assert (
        CustomerEvent(
            message_id="anonymised-1",
            type=TYPES["TRACK"],
            name="Order Completed",
            original_time={"seconds": 1},
            receive_time={"seconds": 2},
            occur_time={"seconds": 1},
            source="sources/shop",
            import_name="imports/one",
        )
        == left
    )


def test_amounts_currencies_and_products_stay_and_texts_go():
    product = {"product_id": "p", "name": "Hat", "price": "2.50", "quantity": 2, "note": "Ada's"}

    assert {
        "order_id": "#3",
        "total": "12.50",
        "currency": "GBP",
        "tax": 1.5,
        "products": [{"product_id": "p", "name": "Hat", "price": "2.50", "quantity": 2}],
    } == kept(
        {
            "order_id": "o-1",
            "total": "12.50",
            "currency": "GBP",
            "tax": 1.5,
            "coupon": "ADA-10",
            "shipping": "to Ada",
            "name": "Ada",
            "address": {"street": "Main Street"},
            "products": [product, "Ada"],
        }
    )


def test_numbers_that_point_to_a_person_go():
    assert {"score": 3, "imageWidth": 7} == kept(
        {
            "score": 3,
            "imageWidth": 7,
            "phone": 491511234,
            "userId": 17,
            "zipCode": 10115,
            "postal_code": 10115,
            "lat": 52.5,
            "age": 36,
            "cardNumber": 4111,
            "customer_id": 5,
            "isAda": None,
        }
    )


def test_what_is_called_by_a_person_goes_with_its_number():
    assert {"score": 3} == kept(
        {"score": 3, "ada@example.org": 3, "Ada Lovelace": 3, "u1": 3}, user_id="U1"
    )


@pytest.mark.parametrize("name", ["IDENTIFY", "GROUP", "ALIAS", "ACCOUNT"])
def test_of_who_somebody_is_nothing_is_left(name):
    assert left_of(type=TYPES[name]) is None


def test_what_is_called_by_an_identifier_is_not_left():
    ada = Subject.of("acme", b"", [("email", "ada@example.org")])

    assert left_of(name="Wrote to ADA@example.org", subject=ada) is None
    assert left_of(name="Called u-1", user_id="u-1") is None
    assert "Called" == left_of(name="Called", user_id="u-1").name


def test_pages_lose_their_name_and_name_no_product():
    left = left_of({"sku": "Ada", "depth": 2}, type=TYPES["PAGE"], name="Ada's page")

    assert ("", {"depth": 2}) == (left.name, json.loads(left.properties))


def test_one_product_is_known_as_well_as_a_list_of_them():
    assert {"sku": "s-1", "price": 2} == kept(
        {"sku": "s-1", "price": 2, "reviewer": "Ada"}, name="Product Reviewed"
    )
