"""What every client of the Segment protocol relies on, a test for each point of the list.

Numbers in the names are the list's; 15 (a kill between acceptance and answer) and 16 (an alias
merges) need the services behind, and are shown by `tests/chaos` and `tests/integration/identity`.
"""

from __future__ import annotations

import base64
import gzip
import json
from itertools import count

import pytest

from gateway.tracking import BODY_BYTES_MAX, EVENTS_MAX
from rapport.events.v1 import service_pb2 as events
from rapport.events.v1.customer_event_pb2 import CustomerEventType
from services.kernel.errors import ResourceExhausted
from tests.contract.gateway_world import key

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITE_KEY = key("web")
TRACK = {"type": "track", "event": "Order Placed", "userId": "u1", "messageId": "m1"}
EVENT_BYTES_MAX = 32 * 1024


class EventsService:
    """Records as the events service does, as far as a client notices: ids once, sizes."""

    def __init__(self):
        self.recorded = {}
        self._positions = count(1)

    def record(self, request, _):
        return events.RecordCustomerEventsResponse(
            receipts=[self._receipt(sent) for sent in request.customer_events]
        )

    def _receipt(self, sent):
        if sent.ByteSize() > EVENT_BYTES_MAX:
            outcome = events.RECEIPT_OUTCOME_REFUSED
            return events.Receipt(
                message_id=sent.message_id, outcome=outcome, reason="EVENT_TOO_LARGE", detail="…"
            )
        known = self.recorded.get(sent.message_id)
        outcome = events.RECEIPT_OUTCOME_DUPLICATE if known else events.RECEIPT_OUTCOME_ACCEPTED
        if known is None:
            known = self.recorded[sent.message_id] = (sent, next(self._positions))
        return events.Receipt(message_id=sent.message_id, outcome=outcome, position=known[1])


@pytest.fixture
def world(shared_world):
    shared_world.events = EventsService()
    shared_world.services["events"].says["RecordCustomerEvents"] = shared_world.events.record
    return shared_world


def basic(text):
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


async def post(world, body, path="/v1/batch", headers=None, **more):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = basic(f"{WRITE_KEY}:") if headers is None else headers
    return await world.http.post(path, content=content, headers=headers | more)


async def recorded(world, *items, path="/v1/batch", **around):
    """Sends items and returns what the events service got of them."""
    answer = await post(world, {"batch": list(items), **around}, path)
    assert answer.status_code == 200, answer.text
    sent = [world.events.recorded[it["messageId"]][0] for it in answer.json()["receipts"]]
    return sent[0] if len(sent) == 1 else sent


def outcomes(answer):
    return [receipt["outcome"] for receipt in answer.json()["receipts"]]


@pytest.mark.parametrize("items", [[TRACK], [TRACK, TRACK], [TRACK, {"type": "no"}], []])
async def test_1_an_accepted_batch_is_answered_with_exactly_200_and_success(world, items):
    answer = await post(world, {"batch": items})

    assert (answer.status_code, answer.json()["success"]) == (200, True)
    assert len(answer.json()["receipts"]) == len(items)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/batch", b"{", None, 400),
        ("/v1/batch", {}, None, 400),
        ("/v1/batch", {"batch": [TRACK]}, {}, 401),
        ("/v1/batch", {"batch": [TRACK]}, basic(f"{key('none')}:"), 403),
        ("/v1/batch", b" " * (BODY_BYTES_MAX + 1), None, 413),
        ("/v1/batch", b"{}", basic(f"{WRITE_KEY}:") | {"content-encoding": "br"}, 415),
        ("/v2/batch", {"batch": [TRACK]}, None, 404),
    ],
)
async def test_2_an_error_has_a_code_and_a_message_beside_its_status(
    world, path, body, headers, status
):
    answer = await post(world, body, path, headers)

    assert answer.status_code == status
    assert isinstance(answer.json()["code"], str)
    assert answer.json()["code"]
    assert answer.json()["message"]


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "x/y", None])
@pytest.mark.parametrize("said", [True, False], ids=["Content-Encoding", "magic bytes"])
async def test_3_gzip_is_unpacked_whatever_the_content_type(world, content_type, said):
    more = {"content-encoding": "gzip"} if said else {}
    more |= {"content-type": content_type} if content_type else {}

    answer = await post(world, gzip.compress(json.dumps({"batch": [TRACK]}).encode()), **more)

    assert outcomes(answer) == ["accepted"]


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "text/plain",
        "text/plain;charset=UTF-8",
        "application/x-www-form-urlencoded",
        None,
    ],
)
async def test_4_json_is_read_under_any_content_type(world, content_type):
    more = {"content-type": content_type} if content_type else {}

    assert outcomes(await post(world, {"batch": [TRACK]}, **more)) == ["accepted"]


@pytest.mark.parametrize(
    ("headers", "in_body", "query"),
    [
        (basic(f"{WRITE_KEY}:"), {}, ""),
        (basic(WRITE_KEY), {}, ""),
        ({}, {"writeKey": WRITE_KEY}, ""),
        ({}, {"batch": [TRACK | {"writeKey": WRITE_KEY}]}, ""),
        ({"authorization": f"Bearer {WRITE_KEY}"}, {}, ""),
        ({"authorization": "Bearer an.oauth.token"}, {"writeKey": WRITE_KEY}, ""),
        ({"x-api-key": WRITE_KEY}, {}, ""),
        ({}, {}, f"?writeKey={WRITE_KEY}"),
    ],
    ids=["colon", "no colon", "body", "item", "bearer", "oauth", "x-api-key", "query"],
)
async def test_5_the_write_key_is_found_wherever_a_client_puts_it(world, headers, in_body, query):
    answer = await post(world, {"batch": [TRACK], **in_body}, f"/v1/batch{query}", headers)

    assert outcomes(answer) == ["accepted"]


async def test_5_items_with_the_key_of_another_source_are_refused(world):
    other = TRACK | {"messageId": "m2", "writeKey": "wk_other_secret"}
    batch = {"batch": [TRACK | {"writeKey": WRITE_KEY}, other, TRACK | {"messageId": "m3"}]}

    answer = await post(world, batch, headers={})

    assert outcomes(answer) == ["accepted", "refused", "accepted"]
    assert answer.json()["receipts"][1]["reason"] == "WRITE_KEY_DIFFERS"
    assert outcomes(await post(world, {"batch": [other]})) == ["accepted"]


async def test_6_null_and_absent_ids_are_equal(world):
    ids = ("anonymousId", "groupId", "previousId")

    told = await recorded(world, TRACK | dict.fromkeys(ids))
    untold = await recorded(world, TRACK | {"messageId": "m2"})

    told.message_id = untold.message_id
    assert told == untold


async def test_7_the_traits_of_an_identify_are_its_own_or_its_contexts(world):
    identify = {"type": "identify", "userId": "u1"}

    own, inside = await recorded(
        world,
        identify | {"traits": {"plan": "gold"}},
        identify | {"context": {"traits": {"plan": "gold"}}},
    )

    assert json.loads(own.traits) == json.loads(inside.traits) == {"plan": "gold"}


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-01T00:00:05Z"


@pytest.mark.parametrize(
    ("item", "around", "times"),
    [
        ({"timestamp": OLD}, {}, (OLD, None, None)),
        ({"originalTimestamp": OLD}, {}, (OLD, None, None)),
        ({"originalTimestamp": OLD, "timestamp": NEW}, {}, (OLD, NEW, None)),
        ({"sentAt": NEW}, {}, (None, None, NEW)),
        ({}, {"sentAt": NEW}, (None, None, NEW)),
        ({"sentAt": NEW}, {"sentAt": OLD}, (None, None, NEW)),
        ({}, {}, (None, None, None)),
    ],
)
async def test_8_every_time_that_a_source_says_is_kept(world, item, around, times):
    sent = await recorded(world, TRACK | item, **around)

    names = ("original_time", "corrected_time", "send_time")
    told = (getattr(sent, name).ToJsonString() if sent.HasField(name) else None for name in names)
    assert times == tuple(told)


async def test_9_context_and_integrations_of_the_batch_hold_for_each_item(world):
    first, second = await recorded(
        world,
        TRACK | {"context": {"app": {"build": 2}}, "integrations": {"Mail": True}},
        TRACK | {"messageId": "m2"},
        context={"app": {"name": "shop", "build": 1}},
        integrations={"All": False},
    )

    assert json.loads(first.context) == {
        "app": {"name": "shop", "build": 2},
        "integrations": {"All": False, "Mail": True},
    }
    assert json.loads(second.context) == {
        "app": {"name": "shop", "build": 1},
        "integrations": {"All": False},
    }


SHORT = {"t": "track", "i": "identify", "p": "page", "s": "screen", "g": "group", "a": "alias"}
LONG = {call: call for call in (*SHORT.values(), "account")}


@pytest.mark.parametrize("prefix", ["", "/v1", "/beacon/v1", "/v1/beacon"])
@pytest.mark.parametrize("end", ["", "/"], ids=["plain", "slash at the end"])
async def test_10_a_call_has_a_long_and_a_short_path(world, prefix, end):
    for name, call in [*SHORT.items(), *LONG.items()]:
        answer = await post(world, {"userId": "u", "messageId": name}, f"{prefix}/{name}{end}")

        sent, _ = world.events.recorded[name]
        assert outcomes(answer) == ["accepted"]
        assert CustomerEventType.Name(sent.type).endswith(call.upper())


@pytest.mark.parametrize("path", ["/v1/batch", "/v1/b", "/batch", "/b", "/v1/import", "/beacon"])
async def test_10_so_has_a_batch(world, path):
    assert outcomes(await post(world, {"batch": [TRACK]}, path)) == ["accepted"]


@pytest.mark.parametrize("path", ["/v1/t", "/t", "/v1/batch", "/v1/pixel/track"])
async def test_10_a_browser_is_told_beforehand_that_it_may_send(world, path):
    asked = {
        "origin": "https://shop.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,x-custom",
    }

    answer = await world.http.options(path, headers=asked)

    assert answer.status_code in {200, 204}
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.headers["access-control-allow-headers"] == "authorization,x-custom"
    assert int(answer.headers["access-control-max-age"]) > 0


@pytest.mark.parametrize(("body", "status"), [({"batch": [TRACK]}, 200), (b"{", 400)])
@pytest.mark.parametrize("origin", [None, "https://shop.example"])
async def test_10_a_browser_may_read_each_answer(world, body, status, origin):
    more = {"origin": origin} if origin else {}

    answer = await post(world, body, **more)

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == (origin or "*")


async def test_11_a_message_that_is_sent_again_is_the_same_event(world):
    answers = [await post(world, {"batch": [TRACK]}) for _ in range(3)]

    assert [outcomes(answer) for answer in answers] == [["accepted"], ["duplicate"], ["duplicate"]]
    assert {answer.json()["receipts"][0]["position"] for answer in answers} == {1}


@pytest.mark.parametrize("missing", [{}, {"messageId": None}, {"messageId": ""}])
async def test_12_a_missing_message_id_is_given_and_told(world, missing):
    item = {"type": "track", "event": "e", "userId": "u", **missing}

    answer = await post(world, {"batch": [item]})

    message_id = answer.json()["receipts"][0]["messageId"]
    assert list(world.events.recorded) == [message_id]
    assert len(message_id) == 36


async def test_13_of_what_is_too_large_only_the_event_itself_is_refused(world):
    large = TRACK | {"messageId": "m2", "properties": {"x": "x" * EVENT_BYTES_MAX}}

    answer = await post(world, {"batch": [TRACK, large, TRACK | {"messageId": "m3"}]})

    assert outcomes(answer) == ["accepted", "refused", "accepted"]
    assert answer.json()["receipts"][1]["reason"] == "EVENT_TOO_LARGE"


async def test_13_of_too_many_only_those_beyond_are_refused(world):
    items = [{"type": "track", "event": "e", "userId": "u"}] * (EVENTS_MAX + 1)

    answer = await post(world, {"batch": items})

    assert answer.status_code == 200
    assert outcomes(answer) == ["accepted"] * EVENTS_MAX + ["refused"]
    assert answer.json()["receipts"][-1]["reason"] == "BATCH_TOO_LONG"


async def test_14_who_sends_too_much_is_told_when_to_come_again(world):
    def refuse(_, __):
        raise ResourceExhausted("IN_FLIGHT_BYTES_MAX", 1)

    world.services["events"].says["RecordCustomerEvents"] = refuse

    answer = await post(world, {"batch": [TRACK]})

    assert (answer.status_code, answer.json()["code"]) == (429, "limit_reached")
    assert int(answer.headers["retry-after"]) >= 1
    assert int(answer.headers["x-ratelimit-reset"]) >= 1


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("2026-01-02T03:04:05.123456Z", "2026-01-02T03:04:05.123456Z"),
        ("2026-01-02T03:04:05.123Z", "2026-01-02T03:04:05.123Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02T03:04:05.123+00:00", "2026-01-02T03:04:05.123Z"),
        ("1970-01-01T00:00:00.000Z", "1970-01-01T00:00:00Z"),
        (0, "1970-01-01T00:00:00Z"),
    ],
)
async def test_17_a_time_is_read_however_a_client_writes_it(world, written, read_as):
    sent = await recorded(world, TRACK | {"timestamp": written})

    assert sent.original_time.ToJsonString() == read_as
