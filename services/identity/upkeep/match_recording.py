"""Records what a match run found, some suggestions at a time; a crash in between loses nothing.

Whoever takes the run over finds the same pairs, and what is recorded already is no news.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rapport.identity.v1.events_pb2 import (
    MatchRunFinished,
    MatchSuggested,
    MatchSuggestionClosed,
)
from rapport.identity.v1.match_pb2 import MatchRunCounts
from rapport.identity.v1.match_runs_pb2 import MatchRunStage
from services.identity.deciders.match_suggestion import DECIDER, OPEN_SUGGESTIONS_MAX, tell
from services.identity.match_standing import Plan, plan
from services.identity.projections.match_input import load_anchored, load_cuts, load_open
from services.identity.projections.match_suggestions import count_open, load_rows
from services.identity.projections.rules_in_force import rules_of
from services.kernel.log.log import NO_STREAM, Append, NewEvent

if TYPE_CHECKING:
    from services.identity.upkeep.match_comparing import Found
    from services.identity.upkeep.match_work import Claimed
    from services.kernel.log.sql import Tx

# Suggestions that are recorded in one transaction, which keeps others from recording.
CHANGES_PER_SAVE_MAX = 200


async def record(claimed: Claimed, found: Found) -> None:
    """Suggests what was found, closes what there is nothing to decide about, and ends the run."""
    planned = await _plan(claimed, found)
    counts = claimed.progress.counts
    counts.pairs, counts.found = found.told.compared, found.told.found
    counts.decided, counts.left_out = planned.decided, found.told.found - len(found.pairs)
    claimed.progress.stage = MatchRunStage.MATCH_RUN_STAGE_RECORDING
    await _tell(claimed, planned.closed)
    await _tell(claimed, planned.found)
    version = found.told.model_version
    await claimed.end(MatchRunFinished(counts=claimed.progress.counts, model_version=version))


async def _plan(claimed: Claimed, found: Found) -> Plan:
    pool, workspace = claimed.kernel.pool, claimed.job.workspace
    names = {name for pair in found.pairs for name in (pair.one, pair.other)}
    rules, cuts = await rules_of(pool, workspace), await load_cuts(pool, workspace)
    return plan(
        claimed.name,
        found.told.model_version,
        found.pairs,
        await load_open(pool, workspace, cuts),
        # Of a pair that is not among the likeliest it is not known that it is unlikely.
        compared=found.profiles if found.told.found == len(found.pairs) else (),
        anchored=await load_anchored(pool, rules, workspace, names),
        cuts=cuts,
    )


async def _tell(
    claimed: Claimed, facts: Mapping[str, MatchSuggested | MatchSuggestionClosed]
) -> None:
    """Records facts by suggestion, as far as they still are news when it comes to it."""
    suggestion_ids = list(facts)
    for start in range(0, len(suggestion_ids), CHANGES_PER_SAVE_MAX):
        part = suggestion_ids[start : start + CHANGES_PER_SAVE_MAX]
        before = claimed.progress.counts

        async def decide(tx: Tx) -> Sequence[Append]:
            claimed.progress.counts = MatchRunCounts()
            claimed.progress.counts.CopyFrom(before)  # noqa: B023, it is called at once
            return await _decided(claimed, tx, {each: facts[each] for each in part})  # noqa: B023

        try:
            await claimed.save_deciding(decide)
        except BaseException:
            claimed.progress.counts = before
            raise


async def _decided(
    claimed: Claimed, tx: Tx, facts: Mapping[str, MatchSuggested | MatchSuggestionClosed]
) -> Sequence[Append]:
    counts, workspace = claimed.progress.counts, claimed.job.workspace
    rows = await load_rows(tx, workspace, list(facts))
    full = counts.suggested + OPEN_SUGGESTIONS_MAX - await count_open(tx, workspace)
    appends = []
    for suggestion_id, fact in facts.items():
        row = rows.get(suggestion_id)
        state = DECIDER.initial if row is None else row.state
        events = tell(fact, state, counts, room=full - counts.suggested)
        if events:
            news = [NewEvent(event) for event in events]
            version = NO_STREAM if row is None else row.version
            stream = DECIDER.stream(suggestion_id)
            appends.append(Append(claimed.origin, stream, news, version))
    return appends
