"""What reports answer: each is asked in one snapshot, as of a moment that was sealed."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from asyncpg import QueryCanceledError

from rapport.deals.v1 import reports_pb2 as pb
from rapport.deals.v1.reports_pb2_grpc import ReportsServiceServicer
from services.deals.projections.deals import FIELDS, DealsView
from services.deals.projections.exchange_rates import get_base_currency
from services.deals.projections.pipelines import load_pipelines
from services.deals.projections.report_sales import get_sales_report
from services.deals.projections.report_slippage import get_slippage
from services.deals.projections.report_source import Question
from services.deals.projections.report_stages import get_stage_conversion, get_time_in_stage
from services.deals.projections.report_waterfall import get_pipeline_waterfall
from services.kernel.errors import DeadlineExceeded, InvalidArgument, NotFound, Reason
from services.kernel.iso4217 import EXPONENTS
from services.kernel.log.database import one_moment
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import moment_in, read_moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from services.kernel.log.sql import Tx
    from services.kernel.process.runtime import Kernel

# A report reads very many rows once each: it sorts and joins them in memory, and remembering what
# was asked about the row before (no two are alike) or compiling costs more than it saves.
_FOR_MANY_ROWS: Final = """
select set_config('work_mem', '32MB', true), set_config('enable_memoize', 'off', true),
    set_config('jit', 'off', true), set_config('statement_timeout', $1, true)
"""
# The clock of another replica may be ahead of ours.
_LATEST: Final = "select greatest($1, max(record_time)) from kernel.heads"
_INSTANT: Final = timedelta(microseconds=1)
_TOO_LONG: Final = "the report takes too long; ask for less at once"


STATEMENT_S_MAX: Final = 20.0
"""How long a statement of a report may take; it ends with the call that asked, if that is sooner.

A connection that is given up tells the database nothing until there is an answer to send."""


class ReportsService(ReportsServiceServicer):
    """Reports on the deals of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def GetPipelineWaterfall(
        self, request: pb.GetPipelineWaterfallRequest, _: Any
    ) -> pb.GetPipelineWaterfallResponse:
        async with self._asked(request) as (snapshot, question):
            return await get_pipeline_waterfall(snapshot, question)

    async def GetSalesReport(
        self, request: pb.GetSalesReportRequest, _: Any
    ) -> pb.GetSalesReportResponse:
        async with self._asked(request) as (snapshot, question):
            return await get_sales_report(snapshot, question, request)

    async def GetStageConversion(
        self, request: pb.GetStageConversionRequest, _: Any
    ) -> pb.GetStageConversionResponse:
        skips_left_out = request.skips_left_out
        async with self._asked(request) as (snapshot, question):
            return await get_stage_conversion(snapshot, question, skips_left_out=skips_left_out)

    async def GetTimeInStage(
        self, request: pb.GetTimeInStageRequest, _: Any
    ) -> pb.GetTimeInStageResponse:
        async with self._asked(request) as (snapshot, question):
            return await get_time_in_stage(snapshot, question)

    async def GetSlippage(self, request: pb.GetSlippageRequest, _: Any) -> pb.GetSlippageResponse:
        async with self._asked(request) as (snapshot, question):
            return await get_slippage(snapshot, question)

    @asynccontextmanager
    async def _asked(self, request: Any) -> AsyncIterator[tuple[Tx, Question]]:
        """A snapshot of all views, and what is asked of it."""
        await self._kernel.freshness.wait(DealsView.name, request.read_token)
        moment = await read_moment(self._kernel.pool, self._kernel.clock, request)
        question = await self._question(request.scope, moment)
        async with one_moment(self._kernel.pool) as snapshot:
            await snapshot.execute(_FOR_MANY_ROWS, _time_left_ms())
            try:
                yield snapshot, question
            except QueryCanceledError as error:
                raise DeadlineExceeded(Reason.DEADLINE_EXCEEDED, _TOO_LONG) from error

    async def _question(self, scope: pb.ReportScope, moment: datetime | None) -> Question:
        """Understands what is asked, or refuses it."""
        workspace, pool = current_caller().workspace, self._kernel.pool
        latest = moment or await pool.fetchval(_LATEST, self._kernel.clock.now())
        start = moment_in(scope.start_time, "scope.start_time")
        end = latest + _INSTANT
        if scope.HasField("end_time"):
            end = moment_in(scope.end_time, "scope.end_time")
        if end > latest + _INSTANT:
            raise InvalidArgument.of("scope.end_time", "lies after the moment of reading")
        if start >= end:
            raise InvalidArgument.of("scope.start_time", "does not lie before the window's end")
        pipelines = await load_pipelines(pool, workspace, moment)
        if scope.pipeline and scope.pipeline.removeprefix("pipelines/") not in pipelines:
            raise NotFound(scope.pipeline)
        return Question(
            workspace=workspace,
            start=start,
            end=end,
            latest=latest,
            moment=moment,
            is_recorded=scope.time_basis == pb.TIME_BASIS_RECORDED,
            pipeline=scope.pipeline,
            pipelines=pipelines,
            wanted=FIELDS.filter(scope.filter),
            currency=await self._currency(scope.currency, workspace, moment),
        )

    async def _currency(self, asked: str, workspace: str, moment: datetime | None) -> str:
        """The currency to tell sums in: the one asked for, else the base currency, else none."""
        if asked:
            if asked not in EXPONENTS:
                raise InvalidArgument.of("scope.currency", f"{asked} is no currency of ISO 4217")
            return asked
        try:
            return (await get_base_currency(self._kernel.pool, workspace, moment)).currency
        except NotFound:
            return ""


def _time_left_ms() -> str:
    """How long a statement may take, in milliseconds; at least one, as none at all is no limit."""
    left_s = current_caller().remaining_s
    within_s = STATEMENT_S_MAX if left_s is None else min(left_s, STATEMENT_S_MAX)
    return str(max(1, int(within_s * 1000)))
