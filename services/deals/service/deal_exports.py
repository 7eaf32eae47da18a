"""What exports of deals answer: pages of whole deals, as CSV, of one moment."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from rapport.deals.v1 import exports_pb2 as pb
from rapport.deals.v1.exports_pb2_grpc import DealExportsServiceServicer
from services.deals.deal_cells import (
    CHANGE_COLUMNS,
    DEAL_COLUMNS,
    change_cells,
    deal_cells,
    history_of,
)
from services.deals.deciders.deal import DECIDER
from services.deals.projections.deal_rows import DEAL_ROWS, close_time_of
from services.deals.projections.deals import DEALS, DealsView
from services.kernel.errors import InvalidArgument, ResourceExhausted
from services.kernel.log.log import READ_BATCH_SIZE, read_stream
from services.kernel.log.recorded import timestamp_of
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import present, read_moment, sealed

if TYPE_CHECKING:
    from datetime import datetime

    from google.protobuf.message import Message

    from services.deals.projections.deal_rows import Row
    from services.kernel.process.runtime import Kernel

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 500
# A page of so many characters is full, and one deal more is the most that stands in it.
PAGE_CHARS_MAX: Final = 1024 * 1024
# Some ten thousands of facts, which are written in fewer bytes than an answer may have.
HISTORY_BYTES_MAX: Final = 2 * 1024 * 1024


class DealExportsService(DealExportsServiceServicer):
    """Exports of the caller's deals."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def ExportDeals(self, request: pb.ExportDealsRequest, _: Any) -> pb.ExportDealsResponse:
        await self._kernel.freshness.wait(DealsView.name, request.read_token)
        moment = await self._moment(request)
        query = DEALS.query(
            workspace=current_caller().workspace,
            filter=request.filter,
            page_size=min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX),
            page_token=request.page_token,
            where={"is_deleted": False},
            moment=moment,
        )
        records = await self._kernel.pool.fetch(query.sql, *query.args)
        rows = [DEAL_ROWS.row(record) for record in query.page(records).rows]
        is_of_changes = request.layout == pb.DEAL_EXPORT_LAYOUT_CHANGES
        text = io.StringIO()
        writer = csv.writer(text)
        if not request.page_token:
            writer.writerow(CHANGE_COLUMNS if is_of_changes else DEAL_COLUMNS)
        written = 0
        for row in rows:
            writer.writerows(await self._changes(row) if is_of_changes else [_deal(row)])
            written += 1
            if text.tell() >= PAGE_CHARS_MAX:
                break
        page = replace(query, page_size=written).page(records[: written + 1])
        return pb.ExportDealsResponse(
            csv=text.getvalue(),
            deal_count=written,
            next_page_token=page.next_page_token,
            read_time=timestamp_of(moment),
        )

    async def _moment(self, request: pb.ExportDealsRequest) -> datetime:
        """The moment that all pages are of: the first one's, if it asks about none."""
        if request.page_token and not request.HasField("read_time"):
            raise InvalidArgument.of("read_time", "must be what the first page answered")
        pool, clock = self._kernel.pool, self._kernel.clock
        asked = await read_moment(pool, clock, request)
        if asked is not None:
            return asked
        return await sealed(pool, clock, timestamp_of(await present(pool, clock)), "read_time")

    async def _changes(self, row: Row) -> list[list[str]]:
        """All that happened to a deal until it was what this row is."""
        told: list[tuple[datetime, Message]] = []
        size_bytes = 0
        for after in range(0, row.version, READ_BATCH_SIZE):
            for envelope in await read_stream(
                self._kernel.pool,
                row.workspace,
                DECIDER.stream(row.aggregate_id),
                after_version=after,
                limit=min(READ_BATCH_SIZE, row.version - after),
            ):
                fact = self._kernel.event_types.decode(envelope)
                told.append((fact.occur_time, fact.event))
                size_bytes += len(envelope.data)
            if size_bytes > HISTORY_BYTES_MAX:
                raise ResourceExhausted(
                    "HISTORY_BYTES_MAX",
                    HISTORY_BYTES_MAX,
                    message=f"deals/{row.aggregate_id} has more history than an export can hold",
                )
        return list(change_cells(row.aggregate_id, history_of(told)))


def _deal(row: Row) -> list[str]:
    return deal_cells(row.aggregate_id, row.state, close_time_of(row))
