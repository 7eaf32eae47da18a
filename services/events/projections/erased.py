"""Taking what is erased out of every view, in all its generations, and knowing who was erased.

Views fold nothing when somebody is erased: whoever folds the log passes by what is overwritten, so
here the rows go that were made of it before. What a generation has not folded yet it never will.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rapport.events.v1.events_pb2 import CustomerEventQuarantined, CustomerEventRecorded
from services.events.projections import quarantine
from services.events.projections.commerce import CommerceView
from services.events.projections.customer_events import SOURCE, VIEW
from services.events.receipts import message_id_of
from services.kernel.erasing.register import erased_keys
from services.kernel.erasing.tombstones import schemas_of
from services.kernel.views.checkpoint import read_positions

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from datetime import datetime

    from asyncpg import Pool

    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

# Names of those in quarantine stand in the responses to those who asked about them.
_FORGET_RESPONSES = """
update kernel.requests r set response = '', fingerprint = ''
where r.workspace = $1 and r.method like '%QuarantinedEventsRequest' and r.response <> ''
and exists (
    select from unnest($2::bytea[]) gone (name) where position(gone.name in r.response) > 0
)
"""


async def forget(tx: Tx, workspace: str, events: Sequence[Recorded]) -> None:
    """Takes all that was made of some messages out of views and responses."""
    message_ids = sorted({message_id_of(event.stream) for event in events})
    messages = [(workspace, message_id) for message_id in message_ids]
    said = [
        event
        for event in events
        if isinstance(event.event, CustomerEventRecorded | CustomerEventQuarantined)
    ]
    for schema in await schemas_of(tx, VIEW):
        await VIEW.forget(tx, schema, said, await _reached(tx, VIEW.name, schema))
    commerce = CommerceView()
    for schema in await schemas_of(tx, commerce):
        await commerce.forget(tx, schema, messages)
    for schema in await schemas_of(tx, quarantine.QuarantineView()):
        await quarantine.forget(tx, schema, messages)
    names = [f"quarantinedEvents/{message_id}".encode() for message_id in message_ids]
    await tx.execute(_FORGET_RESPONSES, workspace, names)


async def erased_until(
    pool: Pool, workspace: str, traces: Collection[str]
) -> Mapping[str, datetime]:
    """Until when what happened to whoever has one of these hashes is gone, by hash."""
    if not traces:
        return {}
    found = await erased_keys(pool, workspace, traces)
    return {trace: key.receive_time for trace, key in found.items()}


async def _reached(tx: Tx, view: str, schema: str) -> Mapping[int, int]:
    """How far a generation of a view is, by partition: the live one has the view's name."""
    generation = int(schema.removeprefix(f"{view}_g")) if schema != view else 0
    positions = await read_positions(tx, view, generation)
    return {partition: at for (source, partition), at in positions.items() if source == SOURCE}
