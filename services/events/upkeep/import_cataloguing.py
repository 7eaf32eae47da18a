"""Checks and records the rows of an import of products.

A batch and the progress are one transaction: whoever takes over meets all of it or nothing, and a
row counts once.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from services.events.deciders.product import DECIDER, State, serialised
from services.events.import_outcomes import ACCEPTED, DUPLICATE
from services.events.import_products import ProductMapper
from services.events.projections.imported import entries_in
from services.events.projections.importing import count_errors
from services.events.upkeep.import_checking import (
    CHECKED_IDS_MAX,
    PREVIEW_TIMEOUT_S,
    check_rows,
    mark_of,
)
from services.events.upkeep.import_recording import ending, go_on
from services.kernel.log.log import NO_STREAM, Append, NewEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Pool
    from google.protobuf.message import Message

    from rapport.events.v1.products_pb2 import ProductEntry
    from services.events.import_outcomes import Outcome
    from services.events.upkeep.import_checking import Found
    from services.events.upkeep.import_reading import Reading, Rows
    from services.events.upkeep.import_work import Claimed
    from services.kernel.log.sql import Tx


async def check_products(claimed: Claimed) -> None:
    """Finds out of which products the catalogue would say something else."""
    await check_rows(claimed, ProductMapper.of(claimed.mapping), _Comparison(claimed).judge)


async def record_products(claimed: Claimed) -> None:
    """Goes on where the progress stands until all rows are recorded or the import cannot go on."""
    kept = await count_errors(claimed.kernel.pool, claimed.job)

    async def run(found: Reading[ProductEntry]) -> None:
        nonlocal kept
        while not claimed.progress.is_over:
            rows = await found.next()
            kept += len(rows.errors)
            await _record(claimed, rows, kept)

    await go_on(claimed, ProductMapper.of(claimed.mapping), run)


async def _record(claimed: Claimed, rows: Rows[ProductEntry], kept: int) -> None:
    """Records a batch and saves the progress, unless something has happened to the import."""
    before = replace(claimed.progress)

    async def decide(tx: Tx) -> Sequence[Append]:
        outcomes, changes = await _decided(claimed, tx, [entry for _, entry in rows.mapped])
        claimed.advance(outcomes, rows)
        fact = ending(claimed, rows, kept)
        claimed.progress.is_over = fact is not None
        fence, facts = claimed.fence, [] if fact is None else [NewEvent(fact)]
        # Without a fact it only makes sure of the version.
        return [*changes, Append(claimed.origin, fence.stream, facts, fence.version)]

    try:
        await claimed.save_deciding(decide, rows.errors)
    except Exception:
        claimed.progress = before
        raise


async def _decided(
    claimed: Claimed, tx: Tx, entries: Sequence[ProductEntry]
) -> tuple[list[Outcome], list[Append]]:
    """What becomes of entries, each after those before it, and what is appended for it."""
    known = await _known(claimed, tx, entries)
    states = {product_id: state for product_id, (_, state) in known.items()}
    outcomes: list[Outcome] = []
    facts: defaultdict[str, list[Message]] = defaultdict(list)
    for each in entries:
        state = states.get(each.product_id, DECIDER.initial)
        events = DECIDER.decide(each, state)
        states[each.product_id] = DECIDER.fold(events, state)
        outcomes.append(ACCEPTED if events else DUPLICATE)
        if events:
            facts[each.product_id] += events
    appends = [
        Append(
            claimed.origin,
            DECIDER.stream(product_id),
            [NewEvent(event) for event in events],
            known[product_id][0] if product_id in known else NO_STREAM,
        )
        for product_id, events in facts.items()
    ]
    return outcomes, appends


async def _known(
    claimed: Claimed, connection: Tx | Pool, entries: Sequence[ProductEntry]
) -> dict[str, tuple[int, State]]:
    product_ids = dict.fromkeys(each.product_id for each in entries)
    return await entries_in(
        connection, claimed.kernel.event_types, claimed.job.workspace, product_ids
    )


class _Comparison:
    """What the catalogue would say in the course of one check."""

    def __init__(self, claimed: Claimed) -> None:
        self._claimed = claimed
        # By the mark of the product id, the mark of the entry that the rows until now leave.
        self._left: dict[int, int] = {}

    async def judge(self, rows: Rows[ProductEntry]) -> Found:
        """Whether each says something else than the rows before it, or else the catalogue."""
        entries = [entry for _, entry in rows.mapped]
        async with asyncio.timeout(PREVIEW_TIMEOUT_S):
            known = await _known(self._claimed, self._claimed.kernel.pool, entries)
        return [self._outcome(each, known) for each in entries], ()

    def _outcome(self, each: ProductEntry, known: dict[str, tuple[int, State]]) -> Outcome:
        product, entry = mark_of(each.product_id.encode()), mark_of(serialised(each.entry))
        before = self._left.get(product)
        if before is None and each.product_id in known:
            before = mark_of(known[each.product_id][1].entry or b"")
        if product in self._left or len(self._left) < CHECKED_IDS_MAX:
            self._left[product] = entry
        return DUPLICATE if before == entry else ACCEPTED
