"""Other systems deliver to webhooks of the running platform, signed in their own ways."""

import base64
import hashlib
import hmac
import json
import uuid

import httpx
import pytest

from services.kernel.clock import SystemClock

GIVEN = "a secret that the sender made up"
WITHIN_S = 20.0


@pytest.fixture
async def http(platform):
    """Asks the platform as somebody with an API key."""
    async with httpx.AsyncClient(
        base_url=platform["http"],
        headers={"x-api-key": platform["api_key"]},
        timeout=WITHIN_S,
        trust_env=False,
    ) as client:
        yield client


@pytest.fixture
async def sender(platform):
    """Asks the platform as somebody without."""
    async with httpx.AsyncClient(
        base_url=platform["http"], timeout=WITHIN_S, trust_env=False
    ) as client:
        yield client


@pytest.fixture
def create(http):
    """Creates a webhook, and answers its path and the secret to sign with."""

    async def create(preset, mapping, *, secret=""):
        answer = await http.post(
            "/v1/webhooks",
            json={
                "displayName": preset,
                "source": "sources/elsewhere",
                "signature": {"preset": f"WEBHOOK_PRESET_{preset}"},
                "mapping": mapping,
                "secret": secret,
                "requestId": str(uuid.uuid4()),
            },
        )
        created = answer.json()
        return f"/v1/webhooks/{created['webhook']['addressId']}", created["secret"] or secret

    return create


def digest(secret, content):
    key = secret if isinstance(secret, bytes) else secret.encode()
    return hmac.new(key, content, hashlib.sha256).digest()


def stripe(secret, body):
    now = int(SystemClock().now().timestamp())
    signed = digest(secret, f"{now}.".encode() + body).hex()
    return {"stripe-signature": f"t={now},v1={'0' * 64},v1={signed}"}


def github(secret, body):
    return {
        "x-github-event": "push",
        "x-github-delivery": str(uuid.uuid4()),
        "x-hub-signature-256": f"sha256={digest(secret, body).hex()}",
    }


def standard(secret, body):
    now, delivery_id = int(SystemClock().now().timestamp()), f"msg_{uuid.uuid4().hex}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = digest(key, f"{delivery_id}.{now}.".encode() + body)
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(now),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


STORIES = {
    "STRIPE": (
        stripe,
        GIVEN,
        {
            "when": "body.type == 'charge.succeeded'",
            "type": "'track'",
            "name": "'Order Completed'",
            "user_id": "body.data.object.customer",
            "message_id": "body.id",
            "original_time": "body.created",
            "properties": "{'total': double(body.data.object.amount) / 100.0}",
        },
        {
            "type": "charge.succeeded",
            "created": 1_700_000_000,
            "data": {"object": {"customer": "cus_1", "amount": 1999}},
        },
        ["Order Completed"],
    ),
    "GITHUB": (
        github,
        GIVEN,
        {
            "for_each": "body.commits",
            "type": "'track'",
            "name": "'Commit Pushed'",
            "user_id": "item.author.username",
            "properties": "{'ref': body.ref, 'event': headers['x-github-event']}",
        },
        {
            "ref": "refs/heads/main",
            "commits": [{"author": {"username": "ada"}}, {"author": {"username": "grace"}}],
        },
        ["Commit Pushed", "Commit Pushed"],
    ),
    "STANDARD_WEBHOOKS": (
        standard,
        "",
        {"type": "'identify'", "user_id": "string(body.id)", "traits": "{'email': body.email}"},
        {"id": 7, "email": "ada@example.com"},
        [""],
    ),
}


@pytest.mark.parametrize("preset", STORIES)
async def test_a_delivery_becomes_customer_events_once(create, http, sender, preset):
    sign, given, mapping, story, names = STORIES[preset]
    path, secret = await create(preset, mapping, secret=given)
    body = json.dumps({"id": f"evt_{uuid.uuid4().hex}"} | story).encode()
    headers = sign(secret, body)

    first = await sender.post(path, content=body, headers=headers)
    again = await sender.post(path, content=body, headers=headers)
    forged = await sender.post(path, content=body.replace(b"a", b"b"), headers=headers)
    found = [
        (await http.get(f"/v1/customerEvents/{it['messageId']}")).json()["customerEvent"]
        for it in first.json()["receipts"]
    ]

    assert ["accepted"] * len(names) == [it["outcome"] for it in first.json()["receipts"]]
    assert ["duplicate"] * len(names) == [it["outcome"] for it in again.json()["receipts"]]
    assert 401 == forged.status_code
    assert names == [it["name"] for it in found]
    assert {"sources/elsewhere"} == {it["source"] for it in found}


async def test_nobody_is_at_an_address_that_nobody_made(sender):
    answer = await sender.post(f"/v1/webhooks/wh_{uuid.uuid4().hex}", content=b"{}")

    assert (404, "resource_not_found") == (answer.status_code, answer.json()["code"])
