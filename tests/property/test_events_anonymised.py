"""Whatever a customer event says: of its texts nothing is left but what products are called."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from rapport.events.v1.customer_event_pb2 import CustomerEvent
from services.events.anonymised import anonymised
from services.kernel.erasing.subjects import Subject

SECRET = "zq7secret"
NOBODY = Subject.of("acme", b"", ())

NAMES = ["total", "price", "currency", "products", "note", "email", "order_id", "value", "quantity"]
names = st.sampled_from([*NAMES, SECRET]) | st.text(max_size=8)
texts = st.text(max_size=8).map(lambda text: f"{text}{SECRET}")
plain = texts | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
values = st.recursive(
    plain | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(names, values, max_size=6).map(json.dumps)


@settings(max_examples=50)
@given(
    kind=st.sampled_from([1, 3, 4]),
    name=st.sampled_from(["Order Completed", "Seen"]),
    said=st.lists(objects, min_size=3, max_size=3),
)
def test_no_text_is_left(kind, name, said):
    properties, traits, context = said
    sent = CustomerEvent(
        message_id=SECRET,
        type=kind,
        name=name if kind == 1 else SECRET,
        user_id=SECRET,
        anonymous_id=SECRET,
        group_id=SECRET,
        properties=properties,
        traits=traits,
        context=context,
    )
    left = anonymised(sent, NOBODY, "anonymised-1", lambda _: "a hash")

    assert SECRET not in str(left)
    assert left.properties == "" or json.loads(left.properties)
    assert left == anonymised(left, NOBODY, "anonymised-1", lambda _: "a hash")
