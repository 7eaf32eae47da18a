"""A sample aggregate for the kernel's tests: a box things are put into, made without a proto file.

Its label is unique in a workspace. Commands can be told to be refused, to meet a bug, and to put
what the view cannot store.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from services.kernel.command.decider import Decider
from services.kernel.command.work import Claim
from services.kernel.errors import FailedPrecondition, NotFound
from services.kernel.log.recorded import EventTypes

PACKAGE = "rapport.box.v1"
STRING, INT, MESSAGE = 9, 3, 11  # numbers of FieldDescriptorProto.Type


def make_file(name: str, messages: dict[str, dict[str, str]], package: str = PACKAGE):
    """Describes messages: fields by name, of type `string`, `int`, or `strings`."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.{name}.proto", package=package, syntax="proto3"
    )
    for message_name, fields in messages.items():
        message = file.message_type.add(name=message_name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            message.field.add(
                name=field,
                number=number,
                type=INT if kind == "int" else STRING,
                label=3 if kind == "strings" else 1,
            )
    return descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


def classes_of(file):
    """The message classes of a file, as a generated module has them."""
    found = {
        name: message_factory.GetMessageClass(descriptor)
        for name, descriptor in file.message_types_by_name.items()
    }
    return SimpleNamespace(DESCRIPTOR=file, **found)


service_pb2 = classes_of(
    make_file(
        "service",
        {
            "PutRequest": {
                "name": "string",
                "things": "strings",
                "label": "string",
                "fail": "string",
                "etag": "string",
                "request_id": "string",
            },
            "TakeOutRequest": {"name": "string", "etag": "string", "request_id": "string"},
            "Box": {
                "name": "string",
                "things": "strings",
                "label": "string",
                "etag": "string",
                "write_token": "string",
                "create_time": "string",
                "update_time": "string",
                "positions": "string",
            },
        },
    )
)
events_pb2 = classes_of(
    make_file(
        "events",
        {
            "ThingPut": {"thing": "string"},
            "BoxLabelled": {"label": "string"},
            "BoxEmptied": {},
        },
    )
)
EVENT_TYPES = EventTypes(events_pb2)
PutRequest, TakeOutRequest, Box = (
    service_pb2.PutRequest,
    service_pb2.TakeOutRequest,
    service_pb2.Box,
)
ThingPut, BoxLabelled, BoxEmptied = (
    events_pb2.ThingPut,
    events_pb2.BoxLabelled,
    events_pb2.BoxEmptied,
)


@dataclass(frozen=True, slots=True)
class BoxState:
    """What a box holds."""

    things: tuple[str, ...] = ()
    label: str = ""
    exists: bool = False


def decide(command, state):
    """Put things, label, empty; or fail as told."""
    if isinstance(command, TakeOutRequest):
        if not state.exists:
            raise NotFound(command.name)
        return [BoxEmptied()] if state.things else []
    if command.fail == "refused":
        raise FailedPrecondition("refused as told", resource=command.name)
    if command.fail == "bug":
        raise ZeroDivisionError("a bug as told")
    put = [ThingPut(thing=thing) for thing in command.things]
    relabelled = command.label and command.label != state.label
    return [*put, BoxLabelled(label=command.label)] if relabelled else put


def evolve(state, event):
    """What a box holds after an event."""
    match event.DESCRIPTOR.name:
        case "ThingPut":
            return replace(state, exists=True, things=(*state.things, event.thing))
        case "BoxLabelled":
            return replace(state, exists=True, label=event.label)
        case _:
            return replace(state, things=(), label="")


def claims(state):
    """The label, if there is one."""
    return frozenset({Claim("label", state.label)} if state.label else ())


BOX = Decider(
    category="box",
    collection="boxes",
    initial=BoxState(),
    decide=decide,
    evolve=evolve,
    claims=claims,
)


class ThingsView:
    """Which things lie in which box; refuses what its table refuses."""

    name = "things"
    shape = 1

    def tables(self, schema):
        return f"""
            create table {schema}.things (
                workspace text, stream text, version bigint,
                thing text check (thing <> 'forbidden'),
                primary key (workspace, stream, version)
            )"""

    async def apply(self, tx, schema, events):
        put = [e for e in events if e.event.DESCRIPTOR.name == "ThingPut"]
        await tx.executemany(
            f"insert into {schema}.things values ($1, $2, $3, $4)",
            [(e.workspace, e.stream, e.version, e.event.thing) for e in put],
        )
