"""What the deals service answers about quotas, what people submit, and what deals come to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.deals.v1 import forecasts_pb2 as pb
from rapport.deals.v1.forecasts_pb2_grpc import ForecastsServiceServicer
from services.deals.deciders import forecast_submission, quota
from services.deals.exchange import known_currency
from services.deals.forecast_periods import consecutive, known_period, weekly
from services.deals.forecast_subject import Subject, known_subject
from services.deals.projections.deals import DealsView
from services.deals.projections.exchange_rates import get_base_currency
from services.deals.projections.forecast_answers import get_accuracy, get_forecast
from services.deals.projections.forecast_deals import list_forecast_deals
from services.deals.projections.forecast_settings import existing_pipeline
from services.deals.projections.forecast_submissions import (
    ForecastSubmissionsView,
    list_forecast_submissions,
    submission_of,
)
from services.deals.projections.forecasts import Asked
from services.deals.projections.pipelines import load_pipelines
from services.deals.projections.quotas import QuotasView, list_quotas, quota_of
from services.kernel.errors import InvalidArgument, NotFound
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import moment_in, present, read_moment, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from services.deals.forecast_periods import Period
    from services.kernel.command.decider import Decided
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)
    DatedRead = (
        pb.ListQuotasRequest
        | pb.ListForecastSubmissionsRequest
        | pb.GetForecastRequest
        | pb.ListForecastDealsRequest
        | pb.GetForecastAccuracyRequest
    )


class ForecastsService(ForecastsServiceServicer):
    """Forecasts of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def SetQuota(self, request: pb.SetQuotaRequest, _: Any) -> pb.SetQuotaResponse:
        quota_id = (await self._subject(request)).id
        return await self._quota(quota_id, request, pb.SetQuotaResponse)

    async def RemoveQuota(self, request: pb.RemoveQuotaRequest, _: Any) -> pb.RemoveQuotaResponse:
        quota_id = quota.DECIDER.aggregate_id(request.name)
        return await self._quota(quota_id, request, pb.RemoveQuotaResponse)

    async def ListQuotas(self, request: pb.ListQuotasRequest, _: Any) -> pb.ListQuotasResponse:
        moment = await self._moment(request, QuotasView.name)
        return await list_quotas(self._kernel.pool, current_caller().workspace, request, moment)

    async def SubmitForecast(
        self, request: pb.SubmitForecastRequest, _: Any
    ) -> pb.SubmitForecastResponse:
        decider, actor = forecast_submission.DECIDER, current_caller().actor
        key = (await self._subject(request)).id

        def respond(decided: Decided[forecast_submission.State]) -> pb.SubmitForecastResponse:
            submission_id = f"{key}@{decided.version}"
            return pb.SubmitForecastResponse(
                submission=submission_of(submission_id, decided.state, actor, decided.update_time),
                write_token=decided.write_token,
            )

        return await self._kernel.commands.execute(decider, key, request, respond)

    async def ListForecastSubmissions(
        self, request: pb.ListForecastSubmissionsRequest, _: Any
    ) -> pb.ListForecastSubmissionsResponse:
        moment = await self._moment(request, ForecastSubmissionsView.name)
        workspace = current_caller().workspace
        return await list_forecast_submissions(self._kernel.pool, workspace, request, moment)

    async def GetForecast(self, request: pb.GetForecastRequest, _: Any) -> pb.GetForecastResponse:
        periods = consecutive(known_period(request.period), request.period_count or 1)
        moment = await self._moment(request)
        asked = await self._asked(request, periods, moment, request.group_by)
        now = await present(self._kernel.pool, self._kernel.clock)
        async with one_moment(self._kernel.pool) as snapshot:
            return await get_forecast(snapshot, asked, moment, now, request.time_basis)

    async def ListForecastDeals(
        self, request: pb.ListForecastDealsRequest, _: Any
    ) -> pb.ListForecastDealsResponse:
        if request.period:
            known_period(request.period)
        if request.group and request.group_by <= pb.ForecastGroupBy.FORECAST_GROUP_BY_NONE:
            raise InvalidArgument.of("group", "is an owner or a team: say which by group_by")
        moment = await self._moment(request)
        workspace = current_caller().workspace
        return await list_forecast_deals(self._kernel.pool, workspace, request, moment)

    async def GetForecastAccuracy(
        self, request: pb.GetForecastAccuracyRequest, _: Any
    ) -> pb.GetForecastAccuracyResponse:
        period = known_period(request.period)
        moment = await self._moment(request)
        now = await present(self._kernel.pool, self._kernel.clock)
        made_at = await self._made_at(request, period, moment or now)
        asked = await self._asked(request, [period], moment)
        async with one_moment(self._kernel.pool) as snapshot:
            return await get_accuracy(snapshot, asked, made_at, moment, now)

    async def _made_at(
        self, request: pb.GetForecastAccuracyRequest, period: Period, until: datetime
    ) -> Sequence[datetime]:
        """The moments at which forecasts were made: those asked for, else every week.

        The last of them is sealed, and so are all before it.
        """
        told = sorted(moment_in(moment, "made_at") for moment in request.made_at)
        made_at = told or weekly(period, until)
        for last in made_at[-1:]:
            await sealed(self._kernel.pool, self._kernel.clock, timestamp_of(last), "made_at")
            if last > until:
                raise InvalidArgument.of("made_at", "lies after the moment of the reading")
        return made_at

    async def _moment(self, request: DatedRead, view: str = DealsView.name) -> datetime | None:
        """The moment that a question is about, None for now; waits for its token."""
        await self._kernel.freshness.wait(view, request.read_token)
        return await read_moment(self._kernel.pool, self._kernel.clock, request)

    async def _asked(
        self,
        request: pb.GetForecastRequest | pb.GetForecastAccuracyRequest,
        periods: Sequence[Period],
        moment: datetime | None,
        group_by: pb.ForecastGroupBy.ValueType = pb.ForecastGroupBy.FORECAST_GROUP_BY_NONE,
    ) -> Asked:
        """Which deals are counted, and in which currency."""
        workspace = current_caller().workspace
        return Asked(
            workspace=workspace,
            periods=periods,
            currency=await self._currency(workspace, request.currency, moment),
            pipeline=request.pipeline,
            owner=request.owner,
            team=request.team,
            group_by=group_by,
        )

    async def _currency(self, workspace: str, said: str, moment: datetime | None) -> str:
        """The currency that was said, else the workspace's base."""
        if said:
            return known_currency(said, "currency")
        try:
            return (await get_base_currency(self._kernel.pool, workspace, moment)).currency
        except NotFound as error:
            message = "is needed, since the workspace has no base currency"
            raise InvalidArgument.of("currency", message) from error

    async def _subject(self, said: pb.SetQuotaRequest | pb.SubmitForecastRequest) -> Subject:
        """What something is said about: all of it is known, and there is such a pipeline."""
        subject = known_subject(said)
        if subject.pipeline:
            pipelines = await load_pipelines(self._kernel.pool, current_caller().workspace)
            existing_pipeline(subject.pipeline, pipelines)
        return subject

    async def _quota(self, quota_id: str, command: quota.Command, response: Callable[..., M]) -> M:
        """Executes a command on a quota and answers with what became of it."""

        def respond(decided: Decided[quota.State]) -> M:
            return response(quota=quota_of(quota_id, decided), write_token=decided.write_token)

        return await self._kernel.commands.execute(quota.DECIDER, quota_id, command, respond)
