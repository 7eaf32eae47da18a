"""A small domain for tests of views and projections: streams of texts, and how many each has.

`Tallies` counts and adds up; the text `poison` cannot be applied. `Echo` is a policy that answers
every text with one of its own, so that tests see whether anything is said twice.
"""

from dataclasses import dataclass, field

from google.protobuf import struct_pb2, wrappers_pb2
from google.protobuf.wrappers_pb2 import StringValue

from services.kernel.clock import FixedClock, new_ids
from services.kernel.log.log import Append, Log, NewEvent, Origin
from services.kernel.log.recorded import EventTypes
from services.kernel.process.runtime import Service

TEXTS = EventTypes(wrappers_pb2, struct_pb2)

UPSERT = """
insert into {schema}.tallies (workspace, stream, events, letters, last_text)
values ($1, $2, 1, length($3), $3)
on conflict (workspace, stream) do update
set events = tallies.events + 1, letters = tallies.letters + excluded.letters,
    last_text = excluded.last_text
"""


@dataclass
class Tallies:
    """How many texts each stream has, and how many letters."""

    name: str = "tallies"
    shape: int = 1
    poisons: set[str] = field(default_factory=lambda: {"poison"})

    def tables(self, schema):
        """One table."""
        return f"""
        create table {schema}.tallies (
            workspace text not null, stream text not null, events int not null,
            letters int not null, last_text text not null, primary key (workspace, stream)
        );
        """

    async def apply(self, tx, schema, events):
        """Count."""
        for event in events:
            if event.event.value in self.poisons:
                raise ValueError("this text is poison")
            await tx.execute(
                UPSERT.format(schema=schema), event.workspace, event.stream, event.event.value
            )
        return len(events)


class Echo:
    """Whenever a text is recorded then say it again in our own log."""

    async def react(self, tx, events, applied):  # noqa: ARG002, what every policy is told
        """One event per event that is no echo itself."""
        return [
            Append(
                Origin(event.workspace, "policies/echo", "", str(event.event_id)),
                f"echo-{event.stream}",
                [NewEvent(StringValue(value=f"echo of {event.event.value}"))],
            )
            for event in events
            if not event.stream.startswith("echo-")
        ]


def text_log(service="things", partitions=1):
    """A log of texts."""
    return Log(service=service, partitions=partitions, clock=FixedClock(), new_ids=new_ids)


def texts(stream, *values, workspace="acme"):
    """An append of texts to one stream."""
    return Append(
        Origin(workspace, "tests", "correlation", ""),
        stream,
        [NewEvent(StringValue(value=value)) for value in values],
    )


def no_rpcs(_kernel):
    """For services that only read and write."""
    return ()


THINGS = Service(name="things", event_types=TEXTS, servicers=no_rpcs)
