"""Deliveries to webhooks come in without a key, byte for byte, and are answered in statuses."""

from __future__ import annotations

import grpc
import pytest

from gateway.webhooks_edge import WEBHOOK_BODY_BYTES_MAX, WEBHOOK_HEADERS_MAX
from rapport.events.v1.service_pb2 import Receipt, ReceiptOutcome
from rapport.events.v1.webhook_deliveries_pb2 import DeliverWebhookResponse
from rapport.events.v1.webhooks_pb2 import WebhookOutcome
from services.kernel.errors import (
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from tests.contract.gateway_world import error_infos, key

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/v1/webhooks/wh_0123456789abcdef"
RECORDED = DeliverWebhookResponse(
    outcome=WebhookOutcome.WEBHOOK_OUTCOME_MAPPED,
    receipts=[
        Receipt(
            message_id="m-1",
            outcome=ReceiptOutcome.RECEIPT_OUTCOME_ACCEPTED,
            position=7,
        )
    ],
)


@pytest.fixture
def world(shared_world):
    says(shared_world, RECORDED)
    return shared_world


def says(world, answer):
    def deliver(_, __):
        if isinstance(answer, Exception):
            raise answer
        return answer

    world.services["events"].says["DeliverWebhook"] = deliver


def heard(world):
    return [call for call in world.services["events"].heard if call[0] == "DeliverWebhook"]


async def test_a_delivery_goes_on_byte_for_byte_in_the_platforms_own_name(world):
    body = b'{"a" :  "\xc3\xa4"}\r\n\xff'
    headers = [("X-Sig", "a"), ("x-sig", "b"), ("Cookie", "c=1"), ("content-type", "text/odd")]

    answer = await world.http.post(f"{PATH}?shop=s%201", content=body, headers=headers)

    [(_, request, _, caller)] = heard(world)
    assert answer.status_code == 200
    assert answer.json() == {
        "outcome": "mapped",
        "receipts": [{"messageId": "m-1", "outcome": "accepted", "position": "7"}],
    }
    assert (request.address_id, request.body) == ("wh_0123456789abcdef", body)
    assert (request.headers["x-sig"], request.headers["content-type"]) == ("a, b", "text/odd")
    assert "cookie" not in request.headers
    assert dict(request.query) == {"shop": "s 1"}
    assert (caller.workspace, caller.actor, set(caller.scopes)) == (
        "",
        "services/gateway",
        {"internal"},
    )


async def test_what_is_not_wanted_need_not_be_sent_again_but_what_does_not_fit_must(world):
    says(world, DeliverWebhookResponse(outcome=WebhookOutcome.WEBHOOK_OUTCOME_SKIPPED, detail="d"))
    skipped = await world.http.post(PATH, content=b"{}")
    says(world, DeliverWebhookResponse(outcome=WebhookOutcome.WEBHOOK_OUTCOME_UNMAPPED, detail="d"))
    unmapped = await world.http.post(PATH, content=b"{}")

    assert (200, "skipped") == (skipped.status_code, skipped.json()["outcome"])
    assert (422, "unmapped", "d") == (
        unmapped.status_code,
        unmapped.json()["code"],
        unmapped.json()["message"],
    )


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Unauthenticated("the signature is wrong"), 401, "credential_invalid"),
        (NotFound("webhooks/wh_x"), 404, "resource_not_found"),
        (FailedPrecondition("it is disabled", state="DISABLED"), 403, "state_forbids"),
        (ResourceExhausted("IN_FLIGHT_BYTES_MAX", 1), 429, "limit_reached"),
        (Unavailable("storage"), 503, "service_unavailable"),
    ],
)
async def test_each_refusal_has_its_status(world, error, status, code):
    says(world, error)

    answer = await world.http.post(PATH, content=b"{}")

    assert (status, code) == (answer.status_code, answer.json()["code"])
    assert answer.json()["message"]
    assert ("retry-after" in answer.headers) == (status in {429, 503})


@pytest.mark.parametrize(("size", "status"), [(0, 200), (1, 413)])
async def test_a_body_may_be_so_large_and_no_larger(world, size, status):
    answer = await world.http.post(PATH, content=b"x" * (WEBHOOK_BODY_BYTES_MAX + size))

    assert status == answer.status_code
    assert len(heard(world)) == (status == 200)


async def test_headers_may_be_so_many_and_no_more(world):
    many = {f"x-{number}": "a" for number in range(WEBHOOK_HEADERS_MAX + 1)}

    answer = await world.http.post(PATH, content=b"{}", headers=many)

    assert (400, 0) == (answer.status_code, len(heard(world)))


async def test_a_packed_body_is_refused_as_its_signature_could_not_be_checked(world):
    answer = await world.http.post(PATH, content=b"{}", headers={"content-encoding": "gzip"})

    assert (415, "encoding_unsupported") == (answer.status_code, answer.json()["code"])


async def test_the_rpcs_about_webhooks_keep_their_paths(world):
    headers = {"x-api-key": key("all")}

    got = await world.http.get("/v1/webhooks/forms", headers=headers)
    disabled = await world.http.post("/v1/webhooks/forms:disable", json={}, headers=headers)
    without_key = await world.http.post("/v1/webhooks/forms:disable", json={})

    assert (200, 200, 401) == (got.status_code, disabled.status_code, without_key.status_code)
    assert [] == heard(world)


async def test_nobody_outside_delivers_past_the_door(world):
    path = "/rapport.events.v1.WebhookDeliveriesService/DeliverWebhook"

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.call(path)

    assert ["METHOD_UNKNOWN"] == [it.reason for it in error_infos(caught.value)]
