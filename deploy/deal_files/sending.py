"""Sends the deals of a file in batches, and tells what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from deploy.deal_files.reading import BadRow
from deploy.deal_files.stages import Stages
from rapport.deals.v1 import imports_pb2 as pb
from rapport.deals.v1.pipelines_pb2 import ListPipelinesRequest

BATCH_DEALS_MAX: Final = 500
# A third of what the platform takes: others write meanwhile, too.
BATCH_FACTS_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 1024 * 1024

Ask = Callable[[Any, Any], Awaitable[Any]]

_OUTCOME: Final = "DEAL_IMPORT_OUTCOME_"


async def send(
    stub: Any,
    ask: Ask,
    deals: Sequence[pb.ImportedDeal],
    told: Callable[[pb.ImportDealResult], None],
    *,
    check_only: bool = False,
) -> str:
    """Imports deals a batch after the other; returns the token of the last write.

    A batch that was not answered is repeated under its request id. Whoever is stopped in between
    begins anew: what is there already stays as it is.
    """
    token = ""
    for batch in batches_of(deals):
        request = pb.ImportDealsRequest(
            deals=batch, validate_only=check_only, request_id=str(uuid.uuid4())
        )
        response: pb.ImportDealsResponse = await ask(stub.ImportDeals, request)
        for result in response.results:
            told(result)
        token = response.write_token or token
    return token


async def load_stages(stub: Any, ask: Ask) -> Stages:
    """The stages that the workspace has now."""
    pipelines: list[Any] = []
    request = ListPipelinesRequest()
    while True:
        page = await ask(stub.ListPipelines, request)
        pipelines += page.pipelines
        if not page.next_page_token:
            return Stages(pipelines)
        request.page_token = page.next_page_token


def batches_of(deals: Iterable[pb.ImportedDeal]) -> Iterator[list[pb.ImportedDeal]]:
    """Batches bounded in deals, in facts and in bytes; a deal too large for them goes alone."""
    batch: list[pb.ImportedDeal] = []
    facts, size_bytes = 0, 0
    for deal in deals:
        more, bytes_more = facts_max_of(deal), deal.ByteSize()
        is_full = (
            len(batch) == BATCH_DEALS_MAX
            or facts + more > BATCH_FACTS_MAX
            or size_bytes + bytes_more > BATCH_BYTES_MAX
        )
        if batch and is_full:
            yield batch
            batch, facts, size_bytes = [], 0, 0
        batch.append(deal)
        facts += more
        size_bytes += bytes_more
    if batch:
        yield batch


def facts_max_of(deal: pb.ImportedDeal) -> int:
    """How many facts a deal may lead to: one for each field, and two where it ends anew."""
    return 1 + sum(
        len(change.update_mask.paths) + 2 * bool(change.stage) for change in deal.changes
    )


def outcome_of(result: pb.ImportDealResult) -> str:
    """`IMPORTED`, `UNCHANGED`, `CONFLICT`, `REFUSED`."""
    return pb.DealImportOutcome.Name(result.outcome).removeprefix(_OUTCOME)


def bad_rows_of(result: pb.ImportDealResult) -> Iterator[BadRow]:
    """What was wrong with a deal, by the row it was opened in."""
    deal_id = result.name.partition("/")[2]
    for error in result.errors:
        yield BadRow(result.row, deal_id, error.field, error.reason, error.detail)
