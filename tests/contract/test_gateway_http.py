"""JSON over HTTP says what gRPC says: every bound RPC, the same door, errors by AIP-193."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from gateway.bindings import Router
from gateway.catalog import PUBLIC
from rapport.contacts.v1 import service_pb2 as contacts
from rapport.deals.v1 import service_pb2 as deals
from services.kernel import errors
from tests.contract.gateway_world import key

pytestmark = pytest.mark.asyncio(loop_scope="module")

BINDINGS = Router(PUBLIC).bindings
UNARY = [m for service in PUBLIC for m in service.methods if not m.server_streaming]
AUTH = {"authorization": f"Bearer {key('all')}"}
REQUEST_ID = "0192a1b2-0000-7000-8000-000000000001"


@pytest.fixture
def world(shared_world):
    return shared_world


def path_of(binding) -> str:
    path = binding.template.replace("{name=*/*}", "contacts/a").replace("/*}", "/a")
    return path.replace("{name=", "").replace("{profile=", "").replace("{parent=", "")


async def ask(world, verb, path, *, auth=AUTH, **options):
    return await world.http.request(
        verb, path, headers={**auth, **options.pop("headers", {})}, **options
    )


def error_of(response) -> tuple[int, str, list[str]]:
    error = response.json()["error"]
    reasons = [it["reason"] for it in error["details"] if it["@type"].endswith("rpc.ErrorInfo")]
    assert error["code"] == response.status_code
    assert error["message"]
    return response.status_code, error["status"], reasons


def violations(response) -> dict[str, str]:
    details = response.json()["error"]["details"]
    return {
        it.get("field", ""): it["description"]
        for detail in details
        if detail["@type"].endswith("BadRequest")
        for it in detail["fieldViolations"]
    }


async def test_every_unary_rpc_has_a_binding():
    assert {m.full_name for m in UNARY} == {it.method.full_name for it in BINDINGS}


@pytest.mark.parametrize("binding", BINDINGS, ids=lambda it: it.method.name)
async def test_every_bound_rpc_is_behind_the_same_door(world, binding):
    path = path_of(binding)

    nobody = await ask(world, binding.verb, path, auth={})
    weak = await ask(world, binding.verb, path, auth={"x-api-key": key("none")})

    assert error_of(nobody) == (401, "UNAUTHENTICATED", ["CREDENTIAL_INVALID"])
    assert error_of(weak) == (403, "PERMISSION_DENIED", ["SCOPE_MISSING"])
    assert not any(service.heard for service in world.services.values())


@pytest.mark.parametrize(
    "binding",
    [it for it in BINDINGS if it.method.containing_service.name != "GatewayService"],
    ids=lambda it: it.method.name,
)
async def test_every_bound_rpc_reaches_its_service(world, binding):
    answer = await ask(world, binding.verb, path_of(binding))

    heard = [call[0] for service in world.services.values() for call in service.heard]
    if answer.status_code == 400:
        # Its proto asks for more than a name; who judged it was the service.
        assert heard == []
        assert error_of(answer) == (400, "INVALID_ARGUMENT", ["FIELD_INVALID"])
    else:
        assert (answer.status_code, heard) == (200, [binding.method.name])


async def test_body_and_path_become_the_request_and_the_answer_becomes_json(world):
    world.services["deals"].says["WinDeal"] = lambda request, _: deals.WinDealResponse(
        deal=deals.Deal(name=request.name, amount={"amount_minor": 2**60, "currency": "EUR"}),
        write_token="t1",
    )

    answer = await ask(world, "POST", "/v1/deals/d%201:win", json={"etag": '"3"'})

    [(_, request, _, caller)] = world.services["deals"].heard
    assert (request.name, request.etag, caller.workspace) == ("deals/d 1", '"3"', "acme")
    told = answer.json()
    assert told["writeToken"] == "t1"
    assert told["deal"]["amount"] == {"amountMinor": str(2**60), "currency": "EUR"}
    assert told["deal"]["state"] == "DEAL_STATE_UNSPECIFIED"


async def test_query_parameters_become_the_request(world):
    await ask(world, "GET", "/v1/contacts?pageSize=5&show_archived=true&filter=a%3D%22b%22")

    [(_, request, *_)] = world.services["contacts"].heard
    assert (request.page_size, request.show_archived, request.filter) == (5, True, 'a="b"')


async def test_customer_360_answers_here_too(world):
    contact = contacts.Contact(name="contacts/a")
    world.services["contacts"].says["GetContact"] = lambda _, __: contacts.GetContactResponse(
        contact=contact
    )

    answer = await ask(world, "GET", "/v1/customers/contacts/a")

    assert answer.status_code == 200
    assert answer.json()["contact"]["name"] == "contacts/a"


async def test_the_gateways_own_rpc_is_judged_by_its_proto(world):
    answer = await ask(world, "GET", f"/v1/customers/contacts/{'a' * 500}")

    assert error_of(answer) == (400, "INVALID_ARGUMENT", ["FIELD_INVALID"])
    assert list(violations(answer)) == ["name"]


async def test_the_idempotency_key_is_the_request_id(world):
    path = "/v1/contacts/a:archive"

    await ask(world, "POST", path, headers={"Idempotency-Key": f'"{REQUEST_ID}"'})
    await ask(world, "POST", path, json={"requestId": REQUEST_ID})
    await ask(world, "POST", path)
    clash = await ask(
        world,
        "POST",
        path,
        headers={"Idempotency-Key": REQUEST_ID},
        json={"requestId": str(uuid.uuid4())},
    )

    ids = [request.request_id for _, request, *_ in world.services["contacts"].heard]
    assert ids == [REQUEST_ID, REQUEST_ID, ""]
    assert error_of(clash) == (400, "INVALID_ARGUMENT", ["FIELD_INVALID"])
    assert list(violations(clash)) == ["request_id"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"nickname": "x"}', "nickname"),
        (b'{"customFields": {"a": 5}}', "customFields"),
        (b'{"givenName": 5}', "givenName"),
        (b'{"givenName": ', ""),
        (b"[]", ""),
        (b"\xff", ""),
    ],
)
async def test_a_field_that_is_wrong_is_named(world, body, field):
    answer = await ask(world, "POST", "/v1/contacts", content=body)

    assert error_of(answer) == (400, "INVALID_ARGUMENT", ["FIELD_INVALID"])
    assert list(violations(answer)) == [field]
    assert "Available" not in answer.text


async def test_what_the_query_and_the_body_both_say_is_refused(world):
    for name in ("givenName", "given_name"):
        answer = await ask(world, "POST", "/v1/contacts?givenName=A", json={name: "B"})

        assert error_of(answer) == (400, "INVALID_ARGUMENT", ["FIELD_INVALID"])


@pytest.mark.parametrize("query", ["pageSize=x", "nonsense=1", "pageSize=1&pageSize=2", "a.b=1"])
async def test_a_query_parameter_that_is_wrong_is_named(world, query):
    answer = await ask(world, "GET", f"/v1/contacts?{query}")

    assert error_of(answer) == (400, "INVALID_ARGUMENT", ["FIELD_INVALID"])
    assert list(violations(answer)) == [query.partition("=")[0]]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.NotFound("contacts/a"), 404),
        (errors.AlreadyExists("contacts/a", "email"), 409),
        (errors.Aborted.etag("contacts/a", '"3"'), 409),
        (errors.FailedPrecondition("archived"), 400),
        (errors.ResourceExhausted("X_MAX", 5), 429),
        (errors.Unavailable("storage"), 503),
        (errors.DeadlineExceeded.view_behind("contacts"), 504),
        (errors.Bug("select * from secrets"), 500),
    ],
    ids=lambda it: type(it).__name__,
)
async def test_an_error_of_a_service_has_its_status_and_reason(world, error, status):
    def refuse(_, __):
        raise error

    world.services["contacts"].says["GetContact"] = refuse

    answer = await ask(world, "GET", "/v1/contacts/a")

    code, _, reasons = error_of(answer)
    assert (code, reasons) == (status, [error.reason])
    assert "secrets" not in answer.text
    assert ("retry-after" in answer.headers) == (status in {429, 503})


async def test_a_dead_service_is_named(own_world):
    await own_world.services["contacts"].stop()

    answer = await ask(own_world, "GET", "/v1/contacts/a")

    assert error_of(answer) == (503, "UNAVAILABLE", ["SERVICE_UNAVAILABLE"])
    assert answer.json()["error"]["details"][0]["metadata"] == {"service": "contacts"}


async def test_what_is_nowhere_is_not_found_and_a_wrong_verb_is_told_the_right_one(world):
    nowhere = await ask(world, "GET", "/v1/payrolls/1")
    wrong_verb = await ask(world, "DELETE", "/v1/contacts/a")

    assert error_of(nowhere) == (404, "UNIMPLEMENTED", ["METHOD_UNKNOWN"])
    assert error_of(wrong_verb) == (405, "UNIMPLEMENTED", ["METHOD_UNKNOWN"])
    assert wrong_verb.headers["allow"] == "GET"


async def test_the_correlation_id_is_kept_or_made_and_told(world):
    kept = await ask(world, "GET", "/v1/contacts/a", headers={"rapport-correlation-id": "abc-1"})
    made = await ask(world, "GET", "/v1/contacts/a", headers={"rapport-correlation-id": "a b"})
    refused = await ask(world, "GET", "/v1/contacts/a", auth={})

    ids = [it.headers["rapport-correlation-id"] for it in (kept, made, refused)]
    assert ids[0] == "abc-1"
    assert [len(it) for it in ids[1:]] == [36, 36]
    heard = [caller.correlation_id for *_, caller in world.services["contacts"].heard]
    assert heard == ids[:2]


async def test_the_service_knows_how_long_anybody_waits(world):
    remaining = []

    def tell(_, context):
        remaining.append(context.time_remaining())
        return contacts.GetContactResponse()

    world.services["contacts"].says["GetContact"] = tell
    await ask(world, "GET", "/v1/contacts/a")

    # gRPC rounds it up on its way.
    assert 5 < remaining[0] <= 10.2


async def test_the_door_has_a_page_and_a_pulse(world):
    page, health = await asyncio.gather(world.http.get("/"), world.http.get("/healthz"))

    assert health.text == "ok\n"
    assert "/v1/batch" in page.text
    assert all(binding.template in page.text for binding in BINDINGS)


async def test_calls_are_counted_by_method_and_code(own_world):
    await ask(own_world, "GET", "/v1/contacts/a")
    await ask(own_world, "GET", "/v1/contacts/a", auth={})

    method = "http/rapport.contacts.v1.ContactsService.GetContact"
    counted = [
        own_world.registry.get_sample_value(
            "rapport_rpc_handled_total", {"method": method, "code": code}
        )
        for code in ("OK", "UNAUTHENTICATED")
    ]
    assert counted == [1, 1]
