"""Match runs on a bare database: profiles, the worker that a test steps, and who decides."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry

from rapport.identity.v1 import match_runs_pb2 as runs_pb
from rapport.identity.v1 import match_suggestions_pb2 as pb
from services.identity.__main__ import SERVICE
from services.identity.matching import FoundEvidence, FoundPair, Told
from services.identity.projections.profiles import find_profile_id
from services.identity.service.match_runs import MatchRunsService
from services.identity.service.match_suggestions import MatchSuggestionsService
from services.identity.service.verdicts import VerdictsService
from services.identity.upkeep import match_running
from services.identity.upkeep.match_comparing import Found
from services.identity.upkeep.match_running import MatchRunMetrics, MatchUpkeep
from services.kernel.clock import SystemClock
from services.kernel.log.log import read_partition
from services.kernel.process.runtime import make_kernel, open_pool
from tests.identity_world import Facts, apply
from tests.import_workers import Asked

ACME = "acme"
NAMES = {
    "ada": ("Ada", "Lovelace", "1815-12-10"),
    "adah": ("Adah", "Lovelace", "1815-12-10"),
    "grace": ("Grace", "Hopper", "1906-12-09"),
    "alan": ("Alan", "Turing", "1912-06-23"),
}


class Killed(BaseException):
    """When a worker's process ends at once: nothing after this line happens."""


class Matching:
    """Profiles of a workspace, and what is made of them."""

    def __init__(self, pool, kernel, workspace=ACME):
        self.pool, self.kernel, self.workspace = pool, kernel, workspace
        self.facts = Facts(workspace)
        self.runs = Asked(MatchRunsService(kernel), workspace)
        self.suggestions = Asked(MatchSuggestionsService(kernel), workspace)
        self.verdicts = Asked(VerdictsService(kernel), workspace)
        self._position = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, database):
        """A world on a database that has the service's tables; it tells nobody."""
        async with open_pool(database) as pool:
            kernel = make_kernel(pool, SERVICE, 1, SystemClock(), secret=b"")
            committing = asyncio.create_task(kernel.group_commit.run())
            try:
                yield cls(pool, kernel)
            finally:
                kernel.group_commit.close()
                await committing

    async def happens(self, *events):
        """Facts lead to the profiles they lead to."""
        async with self.pool.acquire() as connection:
            await apply(connection, list(events))

    async def contact(self, name, **fields):
        """A contact comes to be; answers its profile."""
        given, family, born = NAMES.get(name, (name, name, ""))
        known = {"given_name": given, "family_name": family}
        born = {"birth_date": born} if born else {}
        await self.happens(self.facts.contact_created(name, **known, custom_fields=born, **fields))
        return await self.profile(f"contact_id:{name}")

    async def profile(self, name):
        found = await find_profile_id(self.pool, self.workspace, f"profiles/{name}")
        return f"profiles/{found}"

    async def follow(self):
        """What people decided reaches the profiles."""
        found = await read_partition(self.pool, 0, after=self._position, limit=10_000)
        events = [self.kernel.event_types.decode(envelope) for envelope in found]
        if events:
            self._position = events[-1].position
            await self.happens(*events)

    async def told(self):
        """The names of all facts in the log."""
        found = await read_partition(self.pool, 0, after=0, limit=10_000)
        return [envelope.type.rpartition(".")[2] for envelope in found]

    async def start(self, run_id="r1", **fields):
        request = runs_pb.StartMatchRunRequest(match_run_id=run_id, **fields)
        return (await self.runs.StartMatchRun(request)).match_run

    async def step(self, owner="a worker"):
        """A worker does what it finds; tells whether there was anything."""
        return await MatchUpkeep(self.kernel, MatchRunMetrics(CollectorRegistry())).step(owner)

    async def run(self, run_id="r1", **fields):
        """The run, done."""
        await self.start(run_id, **fields)
        assert await self.step()
        return await self.get_run(run_id)

    async def get_run(self, run_id="r1"):
        request = runs_pb.GetMatchRunRequest(name=f"matchRuns/{run_id}")
        return (await self.runs.GetMatchRun(request)).match_run

    async def listed(self, **fields):
        request = pb.ListMatchSuggestionsRequest(**fields)
        return list((await self.suggestions.ListMatchSuggestions(request)).match_suggestions)

    async def accept(self, suggestion, **fields):
        request = pb.AcceptMatchSuggestionRequest(name=suggestion.name, **fields)
        return await self.suggestions.AcceptMatchSuggestion(request)

    async def reject(self, suggestion, **fields):
        request = pb.RejectMatchSuggestionRequest(name=suggestion.name, **fields)
        return await self.suggestions.RejectMatchSuggestion(request)

    async def lapse(self):
        """Time passes, until what dead workers had is free."""
        await self.pool.execute("update matching.progress set lease_until = '-infinity'")


def finding(monkeypatch, *pairs, profiles=(), found=None, before_it_ends=None):
    """From now on runs find these pairs of profiles, each with a weight in hundredths."""

    async def compared(claimed):
        made = Found(profiles={name.removeprefix("profiles/") for name in profiles})
        for one, other, weight in pairs:
            made.pairs.append(pair(one, other, weight))
            made.profiles |= {made.pairs[-1].one, made.pairs[-1].other}
        made.pairs.sort(key=lambda each: -each.weight_hundredths)
        count = len(pairs) if found is None else found
        made.told = Told(compared=count, found=count, model_version="1-tests")
        claimed.progress.counts.profiles = len(made.profiles)
        if before_it_ends is not None:
            await before_it_ends()
        return made

    monkeypatch.setattr(match_running, "compared", compared)


def pair(one, other, weight):
    """A pair that a run found."""
    one, other = sorted(name.removeprefix("profiles/") for name in (one, other))
    return FoundPair(one, other, weight, (FoundEvidence(2, 1, weight),))
