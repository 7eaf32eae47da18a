"""Rows that are folded once more, when the facts they were made of say less than before.

Every view of deals makes the rows of one deal, quote or contract of that one's own facts, so what
is left of these makes what a rebuild would make.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from services.deals.deciders import contract, deal, quote
from services.deals.projections.contracts import CONTRACTS_TABLE, ContractsView
from services.deals.projections.deal_rows import DEALS_TABLE
from services.deals.projections.deals import DealsView
from services.deals.projections.quote_rows import QUOTES_TABLE, QuotesView
from services.kernel.erasing.tombstones import schemas_of
from services.kernel.log.sql import columns
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.kernel.command.decider import Decider
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx
    from services.kernel.views.aggregate_table import AggregateTable
    from services.kernel.views.view import View

SERVICE: Final = "deals"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one kind of aggregate: by which view, in which tables beside its rows."""

    decider: Decider[Any, Any]
    view: View[Any]
    table: AggregateTable
    beside: tuple[str, ...]


KINDS: Final = (
    Kept(deal.DECIDER, DealsView(), DEALS_TABLE, ("deals_versions", "deal_periods")),
    Kept(quote.DECIDER, QuotesView(), QUOTES_TABLE, ("quotes_versions",)),
    Kept(contract.DECIDER, ContractsView(), CONTRACTS_TABLE, ("contracts_versions",)),
)

_DROP: Final = """
delete from {schema}.{table} t using unnest($1::text[], $2::text[]) gone (workspace, id)
where t.workspace = gone.workspace and t.{key} = gone.id
"""


async def fold_anew(tx: Tx, histories: Sequence[Sequence[Recorded]]) -> None:
    """Makes the rows of some streams of all their facts, in every generation as far as it is."""
    for kind in KINDS:
        prefix = kind.decider.stream("")
        own = [event for history in histories for event in history]
        own = [event for event in own if event.stream.startswith(prefix)]
        if own:
            own.sort(key=lambda event: (event.partition, event.position))
            for schema in await schemas_of(tx, kind.view):
                await _fold(tx, schema, kind, own)


async def _fold(tx: Tx, schema: str, kind: Kept, events: Sequence[Recorded]) -> None:
    keys = sorted({(event.workspace, kind.decider.id_of(event.stream)) for event in events})
    for table in (kind.table.name, *kind.beside):
        drop = _DROP.format(schema=schema, table=table, key=kind.table.key)
        await tx.execute(drop, *columns(keys))
    if schema != kind.view.name:
        generation = int(schema.rpartition("_g")[2])
        reached = await read_positions(tx, kind.view.name, generation)
        events = [e for e in events if e.position <= reached.get((SERVICE, e.partition), 0)]
    if events:
        await kind.view.apply(tx, schema, events)
