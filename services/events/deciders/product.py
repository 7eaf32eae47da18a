"""The rules of a product's entry in the catalogue: the last one counts, whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import CatalogueEntry, ProductRecorded
from rapport.events.v1.products_pb2 import ProductEntry, RecordProductsRequest
from services.events.money import AMOUNT_MINOR_MAX
from services.kernel.command.decider import Decider
from services.kernel.errors import InvalidArgument
from services.kernel.iso4217 import EXPONENTS


@dataclass(frozen=True, slots=True)
class State:
    """A product's entry as its events leave it, serialised."""

    entry: bytes | None = None


def decide(command: ProductEntry, state: State) -> Sequence[Message]:
    """An entry that says the same as the last one is no news."""
    if state.entry == serialised(command.entry):
        return []
    return [ProductRecorded(entry=command.entry)]


def evolve(state: State, event: Message) -> State:
    """Returns the entry after an event."""
    match event:
        case ProductRecorded():
            return State(entry=serialised(event.entry))
    return state


DECIDER = Decider(
    category="product",
    collection="products",
    initial=State(),
    decide=decide,
    evolve=evolve,
)


def entries_of(request: RecordProductsRequest) -> Mapping[str, ProductEntry]:
    """The entries by product id; refuses an id twice, a blank one, and what is no money."""
    entries: dict[str, ProductEntry] = {}
    for place, each in enumerate(request.products):
        path = f"products[{place}]"
        product_id = each.product_id
        if product_id != product_id.strip() or "\0" in product_id:
            message = "has blanks around it, or holds the character U+0000"
            raise InvalidArgument.of(f"{path}.product_id", message)
        if product_id in entries:
            raise InvalidArgument.of(f"{path}.product_id", "stands twice")
        _check_price(each.entry, f"{path}.entry.price")
        entries[product_id] = each
    return entries


def _check_price(entry: CatalogueEntry, path: str) -> None:
    if not entry.HasField("price"):
        return
    if entry.price.currency not in EXPONENTS:
        message = "is no ISO 4217 code of a currency with a minor unit"
        raise InvalidArgument.of(f"{path}.currency", message)
    if not 0 <= entry.price.amount_minor <= AMOUNT_MINOR_MAX:
        raise InvalidArgument.of(f"{path}.amount_minor", f"lies between 0 and {AMOUNT_MINOR_MAX}")


def serialised(entry: CatalogueEntry) -> bytes:
    """The one form of entries that say the same."""
    return entry.SerializeToString(deterministic=True)
