"""A service of boxes from which people are erased: a thing in a box is whose name it has."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from rapport.common.v1.subjects_pb2 import ERASURE_STAGE_BYTES
from services.kernel.clock import SystemClock
from services.kernel.erasing.compaction import Compactor
from services.kernel.erasing.erasing import Erasing
from services.kernel.erasing.holdings import Gone
from services.kernel.erasing.subjects import Erasure, FactKey, Subject, hash_key_of, hash_of
from services.kernel.erasing.tombstones import schemas_of
from services.kernel.feed.feed import Feed
from services.kernel.feed.relay import Relay, RelayMetrics
from services.kernel.log.log import envelope_of
from services.kernel.process.metrics import new_registry
from services.kernel.testing import eventually
from tests.box import EVENT_TYPES, ThingsView
from tests.box_world import BoxWorld, running_log
from tests.feed_world import connected
from tests.feed_world import running as relaying

SERVICE = "boxes"
LAST_ID = UUID(int=2**128 - 1)

_hours = itertools.count(1)

FIND = """
select * from kernel.events
where workspace = $1 and type = 'rapport.box.v1.ThingPut' and erasure is null
order by partition, position
"""


def derive_key(label):
    """A key that is no secret."""
    return label.encode()


def erasure_of(name, *things, workspace="acme", until=None, hashes=()):
    """An erasure of who has these e-mail addresses, from all that is recorded until then.

    Each is an hour after the one before, for nothing is recorded into a time that was erased.
    """
    until = until or SystemClock().now() + timedelta(hours=next(_hours))
    identifiers = [("email", thing) for thing in things]
    subject = Subject.of(workspace, hash_key_of(derive_key, workspace), identifiers, hashes)
    return Erasure(f"erasures/{name}", subject, FactKey(until, LAST_ID))


class BoxHoldings:
    """What boxes hold about people; `rest` is held beside log and views.

    Of boxes that are `told` the very name tells a person; `pieces` are to be looked at before.
    """

    def __init__(self):
        self.rest = {}
        self.told = set()
        self.pieces = 0

    async def seek(self, pool, erasure):  # noqa: ARG002, what every service is told
        """Looks at a piece."""
        self.pieces -= 1
        return self.pieces >= 0

    async def find(self, pool, erasure, limit):
        """The next things that are the person's."""
        rows = await pool.fetch(FIND, erasure.workspace)
        found = [envelope_of(row) for row in rows]
        return [e for e in found if self._is_theirs(erasure, EVENT_TYPES.decode(e))][:limit]

    async def forget(self, tx, erasure, events):  # noqa: ARG002, what every service is told
        """Take them out of the view, in all its generations."""
        keys = [(event.workspace, event.stream, event.version) for event in events]
        for schema in await schemas_of(tx, ThingsView()):
            await tx.executemany(
                f"delete from {schema}.things where (workspace, stream, version) = ($1, $2, $3)",
                keys,
            )
        return Gone(
            Counter(things=len(keys)),
            also={("box", event.stream) for event in events},
            renamed={
                event.stream: f"erased-{hash_of(b'', 'box', event.stream)}"
                for event in events
                if event.stream in self.told
            },
        )

    async def forget_rest(self, pool, erasure):  # noqa: ARG002, what every service is told
        """One at a time."""
        for form in erasure.subject.forms_of("email"):
            if self.rest.pop(form, None):
                return Gone(Counter(rest=1))
        return None

    def _is_theirs(self, erasure, event):
        is_early = erasure.covers(event.record_time, event.event_id)
        return is_early and erasure.subject.is_named([("email", event.event.thing)])


@dataclass
class ErasingWorld:
    """One process of the service, its feed, and what erases."""

    boxes: BoxWorld
    data: BoxHoldings
    erasing: Erasing
    compactor: Compactor
    relay: Relay
    feed: Feed

    async def erase(self, erasure):
        """Takes steps until only bytes are left, as soon as the feed has got so far."""

        async def got_there():
            progress = await self.erasing.take_steps(erasure, turn_s=30)
            assert progress.stage >= ERASURE_STAGE_BYTES
            return progress

        return await eventually(got_there)

    async def finish(self, erasure):
        """Removes the bytes, too."""
        await self.erase(erasure)
        await self.compactor.compact_if_wanted()
        return await self.erase(erasure)

    async def put(self, box, *things, **fields):
        """Puts things into a box, and tells the relay."""
        answer = await self.boxes.put(box, *things, **fields)
        self.relay.wake()
        return answer


@contextlib.asynccontextmanager
async def erasing_world(database_url, nats_url):
    """Runs it with an empty log."""
    async with (
        running_log(database_url) as boxes,
        connected(nats_url) as connection,
    ):
        relay = Relay(
            boxes.pool,
            connection,
            service=SERVICE,
            partition=0,
            metrics=RelayMetrics(new_registry()),
            recent=boxes.log.recent,
            safety_poll_s=0.05,
        )
        data, compactor = BoxHoldings(), Compactor(boxes.pool, database_url)
        feed = Feed(connection, service=SERVICE, partition=0)
        erasing = Erasing(
            boxes.pool,
            boxes.log,
            data,
            event_types=EVENT_TYPES,
            views=(ThingsView(),),
            all_views=(ThingsView(),),
            feeds={0: feed},
            wake_compactor=compactor.wake,
        )
        async with relaying(relay):
            yield ErasingWorld(boxes, data, erasing, compactor, relay, feed)
