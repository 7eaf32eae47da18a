"""As many random crowds as one has time for: `pytest … test_fuzz.py --crowds 200`.

Each is dense, of one of all kinds of rules, and arrives in another order, in batches of another
size, with repetitions; half-way, and in the end, the tables are compared with the reference, and in
the end with those of one batch that nobody disturbed, byte for byte.
"""

import random
from dataclasses import replace

from services.kernel.views.view import digest
from tests.identity_histories import another_order
from tests.identity_reference import expected, still_true
from tests.identity_world import apply, batches, connected, create
from tests.integration.identity.test_order import CROWDS, Reader, assert_tables, assert_told

LARGEST = (3, 11, 60, 300)


async def test_random_crowds_are_what_the_reference_says(database, request):
    crowds = request.config.getoption("--crowds", default=1)
    histories, facts = 0, 0
    async with connected(database) as connection:
        for seed in range(1_000, 1_000 + crowds):
            rng = random.Random(seed)
            kinds = {name: rng.choice([0, 3, 9]) for name in ("retracting", "judging", "flagging")}
            crowd = replace(rng.choice(CROWDS), seed=seed, **kinds)
            _, events = crowd.facts()
            await create(connection, "whole")
            await apply(connection, still_true(events), "whole", crowd.rules)
            arrived = await _arrives(connection, rng, events, crowd.rules)
            same = await digest(connection, "fuzzed") == await digest(connection, "whole")
            assert same, (seed, crowd.name)
            await connection.execute("drop schema whole cascade; drop schema fuzzed cascade")
            histories += len({event.workspace for event in events})
            facts += arrived
    told = f"{histories} histories of {facts} facts agreed"
    request.node.add_report_section("call", "crowds", told)


async def _arrives(connection, rng, events, rules):
    """Lets facts arrive in some order; returns how many did."""
    ordered, reader, largest = another_order(rng, events), Reader(), rng.choice(LARGEST)
    await create(connection, "fuzzed")
    half = len(ordered) // 2
    for part, so_far in ((ordered[:half], ordered[:half]), (ordered[half:], ordered)):
        for batch in batches(rng, part, largest):
            reader.read(await apply(connection, batch, "fuzzed", rules))
        wanted = expected(so_far, rules)
        await assert_tables(connection, "fuzzed", wanted)
        assert_told(reader, wanted)
    return len(ordered)
