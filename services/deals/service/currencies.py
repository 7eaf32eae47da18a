"""What the deals service answers about currencies and what they are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rapport.deals.v1 import currencies_pb2 as pb
from rapport.deals.v1.currencies_pb2_grpc import CurrenciesServiceServicer
from services.deals.deciders import base_currency, exchange_rate
from services.deals.exchange import day_of, known_pair, read_day
from services.deals.projections.currencies import CurrenciesView
from services.deals.projections.exchange_rates import (
    base_currency_of,
    count_exchange_rates,
    exchange_rate_of,
    get_base_currency,
    get_exchange_rate,
    list_exchange_rates,
)
from services.kernel.errors import InvalidArgument
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from google.protobuf.message import Message

    from services.kernel.command.decider import Decided, Decider
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)
    Reading = pb.GetBaseCurrencyRequest | pb.GetExchangeRateRequest | pb.ListExchangeRatesRequest


class CurrenciesService(CurrenciesServiceServicer):
    """The base currency of the caller's workspace, and its exchange rates."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def SetBaseCurrency(
        self, request: pb.SetBaseCurrencyRequest, _: Any
    ) -> pb.SetBaseCurrencyResponse:
        def respond(decided: Decided[base_currency.State]) -> pb.SetBaseCurrencyResponse:
            return pb.SetBaseCurrencyResponse(
                base_currency=base_currency_of(decided), write_token=decided.write_token
            )

        return await self._kernel.commands.execute(
            base_currency.DECIDER, base_currency.BASE, request, respond
        )

    async def GetBaseCurrency(
        self, request: pb.GetBaseCurrencyRequest, _: Any
    ) -> pb.GetBaseCurrencyResponse:
        moment = await self._moment(request)
        workspace = current_caller().workspace
        found = await get_base_currency(self._kernel.pool, workspace, moment)
        return pb.GetBaseCurrencyResponse(base_currency=found)

    async def SetExchangeRate(
        self, request: pb.SetExchangeRateRequest, _: Any
    ) -> pb.SetExchangeRateResponse:
        count = await count_exchange_rates(self._kernel.pool, current_caller().workspace)
        decider = exchange_rate.decider_with(count)
        rate_id = exchange_rate.id_of(request)
        return await self._execute(decider, rate_id, request, pb.SetExchangeRateResponse)

    async def RemoveExchangeRate(
        self, request: pb.RemoveExchangeRateRequest, _: Any
    ) -> pb.RemoveExchangeRateResponse:
        decider = exchange_rate.DECIDER
        rate_id = decider.aggregate_id(request.name)
        return await self._execute(decider, rate_id, request, pb.RemoveExchangeRateResponse)

    async def GetExchangeRate(
        self, request: pb.GetExchangeRateRequest, _: Any
    ) -> pb.GetExchangeRateResponse:
        pair = known_pair(request.from_currency, request.to_currency)
        moment = await self._moment(request)
        today = day_of(moment or self._kernel.clock.now())
        day = read_day(request.date) if request.date else today
        if day is None:
            raise InvalidArgument.of("date", "is no day of the calendar")
        workspace = current_caller().workspace
        found = await get_exchange_rate(self._kernel.pool, workspace, *pair, day, moment)
        return pb.GetExchangeRateResponse(exchange_rate=found)

    async def ListExchangeRates(
        self, request: pb.ListExchangeRatesRequest, _: Any
    ) -> pb.ListExchangeRatesResponse:
        moment = await self._moment(request)
        workspace = current_caller().workspace
        return await list_exchange_rates(self._kernel.pool, workspace, request, moment)

    async def _moment(self, request: Reading) -> datetime | None:
        """The moment as of which a question is asked, None for now; waits for its token."""
        await self._kernel.freshness.wait(CurrenciesView.name, request.read_token)
        return await read_moment(self._kernel.pool, self._kernel.clock, request)

    async def _execute(
        self,
        decider: Decider[exchange_rate.Command, exchange_rate.State],
        rate_id: str,
        command: exchange_rate.Command,
        response: Callable[..., M],
    ) -> M:
        """Executes a command on an exchange rate and answers with what became of it."""

        def respond(decided: Decided[exchange_rate.State]) -> M:
            found = exchange_rate_of(rate_id, decided)
            return response(exchange_rate=found, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, rate_id, command, respond)
