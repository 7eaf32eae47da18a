"""The events of the e-commerce spec by name, and what each does to products and orders. Pure."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import Final


class Role(Enum):
    """What an event of the spec does; the flags say what it is about."""

    VIEW = ("view", True, False)
    ADD = ("add", True, False)
    PRODUCT = ("product", True, False)
    LIST = ("list", False, False)
    COMPLETE = ("complete", False, True)
    UPDATE = ("update", False, True)
    CONTINUE = ("continue", False, True)
    REFUND = ("refund", False, True)
    CANCEL = ("cancel", False, True)
    ASIDE = ("aside", False, False)

    def __init__(self, _word: str, *flags: bool) -> None:
        """Whether its properties are those of one product, and whether it is about an order."""
        self.is_of_a_product, self.is_of_an_order = flags


NAMES: Final = MappingProxyType(
    {
        Role.VIEW: ("Product Viewed", "Viewed Product"),
        Role.ADD: ("Product Added", "Added Product", "Wishlist Product Added to Cart"),
        Role.PRODUCT: (
            "Product Clicked",
            "Clicked Product",
            "Product Removed",
            "Removed Product",
            "Product Added to Wishlist",
            "Product Removed from Wishlist",
            "Product Shared",
            "Product Reviewed",
        ),
        Role.LIST: (
            "Product List Viewed",
            "Viewed Product List",
            "Viewed Product Category",
            "Product List Filtered",
            "Cart Viewed",
            "Viewed Cart",
            "Cart Shared",
            "Checkout Started",
            "Started Order",
        ),
        Role.COMPLETE: ("Order Completed", "Completed Order"),
        Role.UPDATE: ("Order Updated", "Updated Order"),
        Role.CONTINUE: ("Order Continued",),
        Role.REFUND: ("Order Refunded", "Refunded Order", "Refund Continued"),
        Role.CANCEL: ("Order Cancelled", "Order Canceled", "Cancelled Order"),
        Role.ASIDE: (
            "Products Searched",
            "Promotion Viewed",
            "Viewed Promotion",
            "Promotion Clicked",
            "Clicked Promotion",
            "Checkout Step Viewed",
            "Viewed Checkout Step",
            "Checkout Step Completed",
            "Completed Checkout Step",
            "Payment Info Entered",
            "Coupon Entered",
            "Coupon Applied",
            "Coupon Denied",
            "Coupon Removed",
        ),
    }
)
"""The names of the spec, those of its first version too, and two for parts of what is large."""

ROLES: Final = MappingProxyType(
    {name.casefold().replace(" ", ""): role for role, names in NAMES.items() for name in names}
)
