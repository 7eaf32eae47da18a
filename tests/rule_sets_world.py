"""Rule sets on a real database: logs of other services in memory, and a live view that follows."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from rapport.identity.v1 import rule_sets_pb2 as pb
from rapport.identity.v1.service_pb2 import Identifier
from rapport.identity.v1.verdicts_pb2 import CutIdentifiersRequest
from services.identity.__main__ import FACTS, SERVICE
from services.identity.rule_sets import written_as
from services.identity.service.rule_sets import RuleSetsService
from services.identity.service.verdicts import VerdictsService
from services.identity.upkeep.rule_switching import RuleSetUpkeep
from services.kernel.clock import SystemClock
from services.kernel.feed.source import Source, own_source
from services.kernel.log.database import transaction
from services.kernel.log.log import (
    Append,
    NewEvent,
    Origin,
    read_all,
    read_heads,
    read_partition,
)
from services.kernel.log.recorded import envelopes_of
from services.kernel.process.runtime import make_kernel, open_pool
from services.kernel.rpc.caller import acting_as, own_caller
from services.kernel.views.checkpoint import Place, create_checkpoint, read_positions
from services.kernel.views.projection import fold
from services.kernel.views.view import append_with_views

OWN = SERVICE.name
_SOURCES = {"contact": "contacts", "deal": "deals", "message": "events", "gone": "events"}
_ADVANCE = """
update kernel.checkpoints set position = $2
where consumer = 'profiles' and generation = 0 and source = $1
"""


@dataclass
class RuleWorld:
    """Identity's kernel, its view, and the logs that it reads."""

    kernel: Any = None
    logs: dict = field(default_factory=lambda: {name: [] for name in SERVICE.peers})

    @classmethod
    @asynccontextmanager
    async def open(cls, database_url):
        """On the prepared database of the service; it commits, but nothing runs by itself."""
        clock, world = SystemClock(), cls()
        async with open_pool(database_url) as pool:
            kernel = make_kernel(pool, SERVICE, 1, clock, secret=b"")
            sources = {name: Source(world._reader(name), None) for name in SERVICE.peers}
            world.kernel = replace(kernel, sources={**sources, "identity": own_source(pool)})
            for name in world.kernel.sources:
                await create_checkpoint(pool, Place("profiles", name, 0))
            committing = asyncio.create_task(world.kernel.group_commit.run())
            try:
                yield world
            finally:
                world.kernel.group_commit.close()
                await committing

    async def record(self, *events):
        """Records events in their logs, and lets the live view follow; the own log dates them."""
        by_source = defaultdict(list)
        for event in events:
            by_source[_SOURCES.get(event.stream.partition("-")[0], OWN)].append(event)
        await self._record_own(by_source.pop(OWN, ()))
        consumer = SERVICE.consumers[0]
        for source, some in by_source.items():
            log = self.logs[source]
            placed = [each._replace(position=len(log) + n) for n, each in enumerate(some, 1)]
            log += placed
            async with transaction(self.kernel.pool) as tx:
                await tx.execute(_ADVANCE, source, len(log))
                await fold(tx, self.kernel.log, consumer, placed, self.kernel.views)

    async def _record_own(self, events):
        appends = [
            Append(Origin(event.workspace, "tests", "", ""), event.stream, [NewEvent(event.event)])
            for event in events
        ]
        async with transaction(self.kernel.pool) as tx:
            await append_with_views(tx, self.kernel.log, self.kernel.views, appends)
        await self.follow()

    async def facts(self):
        """What all logs say."""
        return [*(event for log in self.logs.values() for event in log), *await self.told()]

    async def follow(self):
        """Lets the live view follow the own log."""
        pool = self.kernel.pool
        after = (await read_positions(pool, "profiles"))["identity", 0]
        batch = await read_partition(pool, 0, after=after)
        if batch:
            consumer = SERVICE.consumers[0]
            events = [consumer.event_types.decode(envelope) for envelope in batch]
            async with transaction(pool) as tx:
                await tx.execute(_ADVANCE, "identity", batch[-1].position)
                await fold(tx, self.kernel.log, consumer, events, self.kernel.views)

    async def cut(self, one, other):
        """Somebody decides that two user ids are two persons'."""
        judged = [Identifier(type="user_id", value=value) for value in (one, other)]
        with acting_as(_caller("acme")):
            request = CutIdentifiersRequest(one=judged[0], other=judged[1], reason="brothers")
            await VerdictsService(self.kernel).CutIdentifiers(request, None)
        await self.follow()

    async def ask(self, method, workspace="acme", **fields):
        """What the service answers to a call; of a rule set, that."""
        request = getattr(pb, f"{method}Request")(**fields)
        with acting_as(_caller(workspace)):
            answer = await getattr(RuleSetsService(self.kernel), method)(request, None)
        return answer.rule_set if hasattr(answer, "rule_set") else answer

    async def draft(self, rule_set_id, rules, workspace="acme"):
        """Writes rules down; returns the rule set."""
        return await self.ask(
            "DraftRuleSet",
            workspace,
            rule_set_id=rule_set_id,
            display_name="New rules",
            rules=written_as(rules),
        )

    async def work(self, owner="a worker"):
        """The worker does all that there is to do."""
        while await RuleSetUpkeep(self.kernel, FACTS).step(owner):
            pass

    async def preview(self, name, workspace="acme"):
        """Previews a rule set; returns what is shown."""
        await self.ask("PreviewRuleSet", workspace, name=name)
        await self.work()
        return await self.ask("GetRuleSet", workspace, name=name)

    async def publish(self, name, workspace="acme"):
        """Previews a rule set and puts it into force; returns it."""
        await self.preview(name, workspace)
        await self.ask("PublishRuleSet", workspace, name=name)
        await self.work()
        return await self.ask("GetRuleSet", workspace, name=name)

    async def told(self):
        """What identity has told, in order."""
        head = (await read_heads(self.kernel.pool))[0]
        found = []
        async for batch in read_all(self.kernel.pool, 0, after=0, until=head):
            found += [self.kernel.event_types.decode(envelope) for envelope in batch]
        return found

    def _reader(self, source):
        async def read(_partition, after_position, limit):
            return envelopes_of(self.logs[source][after_position : after_position + limit])

        return read


def _caller(workspace):
    return own_caller(
        "api_keys/tests", clock=SystemClock(), scopes=frozenset({"*"}), workspace=workspace
    )
