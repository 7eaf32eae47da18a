"""As many random crowds as one has time for: `pytest … test_fuzz.py --crowds 200`.

Each is dense, and all that can happen happens in it: customer events, contacts and deals tell of
people, who join accounts, consent to purposes, are linked, cut, flagged, taken back and erased, and
meanwhile workspaces change their rules. It arrives in another order, in batches of another size,
with repetitions. After each part of it the tables, and what was told, are compared with the
reference, and in the end with those of one batch that nobody disturbed, and with those built at
once, byte for byte.
"""

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from services.identity.projections import ProfilesView, bulk, differences
from services.identity.projections.differences import Difference
from services.identity.projections.rule_builds import switch_rows
from services.kernel.log.log import Origin
from services.kernel.views.view import digest
from tests.accounts_world import AccountHistory
from tests.consents_world import have_purposes, purposes_of
from tests.identity_histories import another_order
from tests.identity_reference import still_true
from tests.identity_whole import Reader, assert_tables, assert_told, follows
from tests.identity_world import apply, batches, connected, create, view_of
from tests.integration.identity.test_bulk import build
from tests.integration.identity.test_order import CROWDS, KINDS
from tests.random_rules import some_rules

LARGEST = (3, 11, 60, 300)
PARTS = 3
CHANGING = 0.3


@dataclass
class Life:
    """Profiles to which facts come in batches, and other rules; everybody reads what is told."""

    connection: Any
    rng: random.Random
    rules: dict  # by workspace
    largest: int
    arrived: list = field(default_factory=list)
    reader: Reader = field(default_factory=Reader)
    view: ProfilesView = field(init=False)

    def __post_init__(self):
        self.view = view_of(self.rules)

    async def meet(self, events):
        """Facts come."""
        for batch in batches(self.rng, events, self.largest):
            self.arrived += batch
            async with self.connection.transaction():
                self.reader.read(await self.view.apply(self.connection, "lived", batch))

    async def change(self, rules):
        """Other rules for some workspaces: profiles are built by them, some at once, and more
        behind that; what lies between is told, and the rows are switched.
        """
        own = [event for event in _once(self.arrived) if event.workspace in rules]
        at_once = self.rng.randint(0, len(own))
        await build(self.connection, own[:at_once], "beside", self.rng, rules)
        for batch in batches(self.rng, own[at_once:], self.largest):
            await apply(self.connection, batch, "beside", rules)
        async with self.connection.transaction():
            for workspace in sorted(rules):
                between = "lived", "beside", _nobody, workspace
                async for part in Difference(self.connection, *between).parts():
                    self.reader.read(part)
                await switch_rows(self.connection, workspace, "beside", "lived")
        await self.connection.execute("drop schema beside cascade")
        self.rules |= rules

    async def assert_as_the_reference_says(self):
        """The tables, and what was told, are what follows from the facts and the rules so far."""
        wanted = follows(self.arrived, self.rules)

        await assert_tables(self.connection, "lived", wanted)
        assert_told(self.reader, wanted)

    async def assert_as_if_nobody_had_disturbed_it(self):
        """The rows are those of all facts in one batch, and built at once: nothing lies between."""
        async with self.connection.transaction():
            await create(self.connection, "whole")
            await apply(self.connection, still_true(self.arrived), "whole", self.rules)
        await build(self.connection, _once(self.arrived), "bulk", self.rng, self.rules)
        lived = await digest(self.connection, "lived")

        assert lived == await digest(self.connection, "whole")
        assert lived == await digest(self.connection, "bulk")
        async with self.connection.transaction():
            between = ProfilesView().changes_between(self.connection, "lived", "bulk")
            assert [] == [part async for part in between]


def _once(events):
    """Events as a log has them, from which all is built at once: without those that came again."""
    return list({event.event_id: event for event in events}.values())


def _nobody(workspace):
    return Origin(workspace, "", "", "")


@pytest.fixture
def in_small_parts(monkeypatch):
    """What is read, written and told in parts is so in a crowd."""
    monkeypatch.setattr(bulk, "BATCH_SIZE", 20)
    monkeypatch.setattr(differences, "ROWS_PER_FETCH", 50)
    monkeypatch.setattr(differences, "CHANGES_PER_PART_MAX", 50)
    monkeypatch.setattr(differences, "PROFILES_PER_FETCH", 20)


@pytest.mark.usefixtures("in_small_parts")
async def test_random_crowds_are_what_the_reference_says(database, request):
    crowds = request.config.getoption("--crowds", default=1)
    first = request.config.getoption("--first-crowd", default=1_000)
    histories, facts = 0, 0
    async with connected(database) as connection:
        for seed in range(first, first + crowds):
            try:
                life = await _live(connection, seed)
            except Exception as error:
                error.add_note(f"to see it again: --first-crowd {seed}")
                raise
            histories += len(life.rules)
            facts += len(life.arrived)
            await connection.execute("drop schema whole, bulk, lived, purposes cascade")
    told = f"{histories} histories of {facts} facts agreed"
    request.node.add_report_section("call", "crowds", told)


async def _live(connection, seed):
    """A crowd arrives in some order, while workspaces change their rules; it ends as it must."""
    rng = random.Random(seed)
    kinds = {name: rng.choice([0, 3, 9]) for name in KINDS}
    crowd = replace(rng.choice(CROWDS), seed=seed, history=AccountHistory, **kinds)
    _, events = crowd.facts()
    await have_purposes(connection, purposes_of(events))
    await create(connection, "lived")
    workspaces = sorted({event.workspace for event in events})
    life = Life(connection, rng, dict.fromkeys(workspaces, crowd.rules), rng.choice(LARGEST))
    ordered = another_order(rng, events)
    places = sorted(rng.randrange(len(ordered)) for _ in range(PARTS - 1))
    for start, end in zip([0, *places], [*places, len(ordered)], strict=True):
        await life.meet(ordered[start:end])
        await life.assert_as_the_reference_says()
        # What is read ahead is so by rules that may have changed when it is applied.
        life.view.read_ahead(ordered[end:])
        changing = [each for each in workspaces if rng.random() < CHANGING]
        await life.change({workspace: some_rules(rng) for workspace in changing})
    await life.assert_as_the_reference_says()
    await life.assert_as_if_nobody_had_disturbed_it()
    return life
