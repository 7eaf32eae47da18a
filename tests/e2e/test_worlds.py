"""Worlds: facts given through the gateway, questions asked of it, and the answers expected.

`worlds/*.yaml` holds one each. `{run}` in a text becomes the run's own word, so that worlds never
meet. An answer is expected in part: what is not named may be anything, and of a list each expected
element is somewhere; what `lacks` names is nowhere. Answers come from views that follow, so a
question is asked until it holds.
"""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from gateway.catalog import PUBLIC
from rapport.identity.v1.service_pb2 import GetProfileRequest
from services.kernel.errors import NotFound
from services.kernel.testing import eventually

WORLDS = sorted((Path(__file__).parent / "worlds").glob("*.yaml"))
WITHIN_S = 20.0
REQUESTS = {
    method.full_name: GetMessageClass(method.input_type)
    for service in PUBLIC
    for method in service.methods
}


@pytest.fixture(params=WORLDS, ids=lambda path: path.stem)
def world(request):
    """One world, with a word of its own in place of `{run}`."""
    text = request.param.read_text(encoding="utf-8").replace("{run}", uuid4().hex[:8])
    return yaml.safe_load(text)


async def test_a_world_answers_as_expected(door, world):
    for fact in world["given"]:
        await give(door, fact)

    for question in world["ask"]:
        await eventually(lambda asked=question: hold(door, asked), within_s=WITHIN_S)


async def give(door, fact):
    """Makes one fact known: customer events over HTTP, everything else as a command."""
    if "customer_events" in fact:
        answer = await door.track(fact["customer_events"])
        outcomes = [receipt["outcome"] for receipt in answer["receipts"]]
        expected = fact.get("outcomes", ["accepted"] * len(outcomes))
        assert expected == outcomes
    else:
        await call(door, fact["call"], fact["request"])


async def hold(door, question):
    """Asserts one question's answer."""
    if "same_profile" in question:
        names = [await profile_of(door, name) for name in question["same_profile"]]
        assert 1 == len(set(names)), dict(zip(question["same_profile"], names, strict=True))
    elif "different_profiles" in question:
        names = [await profile_of(door, name) for name in question["different_profiles"]]
        assert len(names) == len(set(names)), names
    else:
        request = dict(question["request"])
        for field, name in question.get("with_profile", {}).items():
            request[field] = await profile_of(door, name)
        try:
            answer = await call(door, question["call"], request)
        except NotFound as error:
            raise AssertionError(f"{error} yet") from error
        expect(await resolved(door, question["expect"]), answer)
        for field, others in (await resolved(door, question.get("lacks", {}))).items():
            assert not any(has(other, one) for other in others for one in answer.get(field, []))
        for field, count in question.get("counts", {}).items():
            assert count == len(answer.get(field, [])), answer


async def call(door, method, request) -> Any:
    """Calls `contacts.CreateContact` and the like with JSON, and returns JSON."""
    service, name = method.split(".")
    stub = getattr(door, service)
    full_name = f"rapport.{service}.v1.{service.capitalize()}Service.{name}"
    message = ParseDict(request, REQUESTS[full_name]())
    answer = await door.ask(getattr(stub, name), message)
    return MessageToDict(answer, preserving_proto_field_name=True)


async def profile_of(door, identifier):
    """The name of the profile that `email:ada@example.com` or the like leads to."""
    request = GetProfileRequest(name=f"profiles/{identifier}")
    try:
        return (await door.ask(door.identity.GetProfile, request)).profile.name
    except NotFound as error:
        raise AssertionError(f"nobody has {identifier} yet") from error


async def resolved(door, expected):
    """Puts the names of profiles in place of `{profile: identifier}`."""
    match expected:
        case {"profile_of": identifier}:
            return await profile_of(door, identifier)
        case dict():
            return {key: await resolved(door, value) for key, value in expected.items()}
        case list():
            return [await resolved(door, value) for value in expected]
    return expected


def expect(expected, actual, path="answer"):
    """Asserts that what is expected is in the answer."""
    if isinstance(expected, dict):
        assert isinstance(actual, dict), f"{path} is {actual!r}"
        for key, value in expected.items():
            assert key in actual, f"{path} has no {key}: {actual}"
            expect(value, actual[key], f"{path}.{key}")
    elif isinstance(expected, list):
        for value in expected:
            assert any(has(value, element) for element in actual), f"{path} lacks {value}: {actual}"
    else:
        assert expected == actual, path


def has(expected, actual):
    """Whether what is expected is in one element."""
    try:
        expect(expected, actual)
    except AssertionError:
        return False
    return True
