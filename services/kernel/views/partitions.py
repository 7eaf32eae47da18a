"""Which partitions of a source a consumer follows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from services.kernel.errors import RapportError
from services.kernel.log.database import is_passing, transaction
from services.kernel.views.checkpoint import Place, create_checkpoint, read_positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Pool

    from services.kernel.feed.source import Source
    from services.kernel.views.projection import Consumer

PARTITIONS_RETRY_S = 0.5


async def partitions_of(
    pool: Pool, consumer: Consumer[Any], source: str, sources: Mapping[str, Source]
) -> Sequence[int]:
    """The partitions of a source: known from earlier, else asked until its owner answers."""
    while True:
        try:
            known = [p for (name, p) in await read_positions(pool, consumer.name) if name == source]
            if not known:
                known = list(await sources[source].heads())
                # All or none, else a crash in between would leave the others unknown for ever.
                async with transaction(pool) as tx:
                    for partition in sorted(known):
                        await create_checkpoint(tx, Place(consumer.name, source, partition))
            return known
        except Exception as error:
            if not (isinstance(error, RapportError) or is_passing(error)):
                raise
            await asyncio.sleep(PARTITIONS_RETRY_S)
