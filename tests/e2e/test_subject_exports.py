"""What a person wants to know: a word that came in by every way is told by every service."""

import json
from uuid import uuid4

import grpc
import pytest

from rapport.events.v1.sources_pb2 import CreateSourceResponse
from rapport.identity.v1.subject_exports_pb2 import ExportSubjectDataRequest
from rapport.identity.v1.subject_exports_pb2_grpc import SubjectExportsServiceStub
from services.kernel.testing import eventually
from tests.e2e.test_every_rpc import Caller

WITHIN_S = 60.0
TIMEOUT_S = 30.0

# Where the word is told: service, system, and what it is.
TOLD = {
    ("contacts", "contacts", "Contact"),
    ("contacts", "log", "ContactCreated"),
    ("contacts", "log", "ContactRenamed"),
    ("deals", "log", "DealOpened"),
    ("events", "log", "CustomerEventQuarantined"),
    ("events", "log", "CustomerEventRecorded"),
    ("identity", "consents", "ConsentWord"),
    ("identity", "log", "ConsentGranted"),
    ("identity", "log", "IdentifiersCut"),
    ("identity", "log", "ProfileTraitsChanged"),
    ("identity", "profiles", "Profile"),
    ("identity", "profiles", "Trait"),
    ("identity", "timeline", "Activity"),
    ("identity", "verdicts", "Verdict"),
    ("segments", "facts", "Trait"),
}


@pytest.fixture
async def caller(platform):
    async with grpc.aio.insecure_channel(platform["grpc"]) as channel:
        yield Caller(channel, platform["api_key"])


async def say_everything(caller, door, marker):
    """Says the word of one person by every way there is."""
    ada, email = f"ada-{marker}", f"{marker}@example.org"
    named = {"one": {"type": "email", "value": email}, "other": {"type": "phone", "value": "55555"}}
    for path, fields in (
        ("contacts.v1.ContactsService/CreateContact", {"contact_id": ada, "email": email}),
        (
            "contacts.v1.ContactsService/RenameContact",
            {"name": f"contacts/{ada}", "given_name": marker},
        ),
        (
            "deals.v1.DealsService/OpenDeal",
            {"deal_id": ada, "display_name": marker, "contact": f"contacts/{ada}"},
        ),
        (
            "identity.v1.ConsentsService/CreatePurpose",
            {"purpose_id": ada, "display_name": "x", "lawful_basis": "LAWFUL_BASIS_CONSENT"},
        ),
        (
            "identity.v1.ConsentsService/GrantConsent",
            {"name": f"profiles/email:{email}", "purpose": f"purposes/{ada}", "source": marker},
        ),
        ("identity.v1.VerdictsService/CutIdentifiers", {**named, "reason": marker}),
    ):
        await caller.call(f"/rapport.{path}", fields)
    await door.track(
        [
            {"type": "identify", "userId": ada, "traits": {"email": email, "nickname": marker}},
            {"type": "track", "userId": ada, "event": "Seen", "properties": {"said": marker}},
            {"type": "group", "userId": ada, "groupId": marker, "traits": {"said": marker}},
        ]
    )
    write_key = await quarantining(caller, ada)
    odd = {"type": "track", "userId": ada, "event": "Odd", "properties": {"said": marker}}
    answer = await door.track([odd], write_key=write_key)
    assert ["quarantined"] == [receipt["outcome"] for receipt in answer["receipts"]]
    return email


async def quarantining(caller, name):
    """The write key of a source all of whose track calls wait in quarantine."""
    plan = {"name": f"trackingPlans/{name}"}
    for path, fields in (
        (
            "CreateTrackingPlan",
            {
                "tracking_plan_id": name,
                "display_name": "Nothing",
                "content": {"unplanned_policy": "VIOLATION_POLICY_QUARANTINE"},
            },
        ),
        ("PublishTrackingPlan", plan),
    ):
        await caller.call(f"/rapport.events.v1.TrackingPlansService/{path}", fields)
    source = {
        "source_id": name,
        "display_name": "Odd",
        "settings": {"tracking_plan": plan["name"]},
    }
    created = await caller.call("/rapport.events.v1.SourcesService/CreateSource", source)
    return CreateSourceResponse.FromString(created).write_key


async def exported(platform, door, email):
    """The lines of a person's document."""
    async with grpc.aio.insecure_channel(platform["grpc"]) as channel:
        answers = SubjectExportsServiceStub(channel).ExportSubjectData(
            ExportSubjectDataRequest(name=f"profiles/email:{email}"),
            metadata=door.metadata,
            timeout=TIMEOUT_S,
        )
        text = "".join([answer.json_lines async for answer in answers])
    return [json.loads(line) for line in text.splitlines()]


async def test_a_word_that_came_in_by_every_way_is_told_by_every_service(platform, caller, door):
    marker = f"marker-{uuid4().hex[:8]}"
    email = await say_everything(caller, door, marker)

    async def told():
        *lines, last = await exported(platform, door, email)
        marked = {
            (line["service"], line["system"], line["kind"])
            for line in lines[1:]
            if marker in json.dumps(line["content"])
        }
        assert set() == TOLD - marked
        assert "end" == last["type"]
        # Each customer event, and each once.
        recorded = [line for line in lines[1:] if line["kind"] == "CustomerEventRecorded"]
        assert 3 == len(recorded) == len({line["resource"] for line in recorded})

    await eventually(told, within_s=WITHIN_S)


async def test_of_somebody_else_nothing_is_told(platform, caller, door):
    marker = f"marker-{uuid4().hex[:8]}"
    await say_everything(caller, door, marker)

    lines = await exported(platform, door, f"nobody-{uuid4().hex[:8]}@example.org")

    assert marker not in json.dumps(lines)
    assert ["subject", "end"] == [line["type"] for line in lines]
