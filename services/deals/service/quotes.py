"""What the deals service answers about quotes."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rapport.deals.v1 import quotes_pb2 as pb
from rapport.deals.v1.quotes_pb2_grpc import QuotesServiceServicer
from services.deals.deciders import deal, quote, quote_numbers, quoting
from services.deals.projections.quote_rows import QuotesView
from services.deals.projections.quotes import existing_quote, is_primary, list_quotes, quote_of
from services.deals.quote_pdf import file_name, rendered
from services.kernel.command.decider import Decided, Part
from services.kernel.rpc.caller import current_caller
from services.kernel.views.as_of import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from google.protobuf.message import Message

    from services.deals.projections.quote_rows import Row
    from services.kernel.process.runtime import Kernel

    M = TypeVar("M", bound=Message)

_NUMBERS = Part(quote_numbers.DECIDER, quote_numbers.NUMBERS_ID)


class QuotesService(QuotesServiceServicer):
    """Quotes of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        # What prints is no good at threads; a document takes seconds at the most.
        self._printer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="printer")

    async def CreateQuote(self, request: pb.CreateQuoteRequest, _: Any) -> pb.CreateQuoteResponse:
        quote_id = request.quote_id or str(self._kernel.new_id())
        name, now = quote.DECIDER.name(quote_id), self._kernel.clock.now()
        parts = [Part(quote.DECIDER, quote_id), _deal(request.deal, "deal"), _NUMBERS]
        return await self._decide(
            parts,
            request,
            lambda states: quoting.create(now, request, name, *states),
            pb.CreateQuoteResponse,
        )

    async def UpdateQuote(self, request: pb.UpdateQuoteRequest, _: Any) -> pb.UpdateQuoteResponse:
        return await self._change(request, pb.UpdateQuoteResponse)

    async def SubmitQuote(self, request: pb.SubmitQuoteRequest, _: Any) -> pb.SubmitQuoteResponse:
        return await self._change(request, pb.SubmitQuoteResponse)

    async def ApproveQuote(
        self, request: pb.ApproveQuoteRequest, _: Any
    ) -> pb.ApproveQuoteResponse:
        return await self._change(request, pb.ApproveQuoteResponse)

    async def RejectQuote(self, request: pb.RejectQuoteRequest, _: Any) -> pb.RejectQuoteResponse:
        return await self._change(request, pb.RejectQuoteResponse)

    async def DeclineQuote(
        self, request: pb.DeclineQuoteRequest, _: Any
    ) -> pb.DeclineQuoteResponse:
        return await self._change(request, pb.DeclineQuoteResponse)

    async def SendQuote(self, request: pb.SendQuoteRequest, _: Any) -> pb.SendQuoteResponse:
        return await self._conclude(request, pb.SendQuoteResponse)

    async def AcceptQuote(self, request: pb.AcceptQuoteRequest, _: Any) -> pb.AcceptQuoteResponse:
        return await self._conclude(request, pb.AcceptQuoteResponse)

    async def ReviseQuote(self, request: pb.ReviseQuoteRequest, _: Any) -> pb.ReviseQuoteResponse:
        row = await self._row(request.name)
        new_id = request.quote_id or str(self._kernel.new_id())
        decide = partial(quoting.revise, request.name, quote.DECIDER.name(new_id))
        parts = [*_parts(row), Part(quote.DECIDER, new_id)]
        return await self._decide(
            parts, request, lambda states: decide(*states), pb.ReviseQuoteResponse, shown=2
        )

    async def MakeQuotePrimary(
        self, request: pb.MakeQuotePrimaryRequest, _: Any
    ) -> pb.MakeQuotePrimaryResponse:
        row, now = await self._row(request.name), self._kernel.clock.now()
        decide = partial(quoting.make_primary, now, request)
        return await self._decide(
            _parts(row), request, lambda states: decide(*states), pb.MakeQuotePrimaryResponse
        )

    async def GetQuote(self, request: pb.GetQuoteRequest, _: Any) -> pb.GetQuoteResponse:
        row, moment = await self._asked(request)
        day = (moment or self._kernel.clock.now()).date()
        workspace = current_caller().workspace
        primary = await is_primary(self._kernel.pool, workspace, row.aggregate_id, moment)
        return pb.GetQuoteResponse(quote=quote_of(row.aggregate_id, row, day, primary=primary))

    async def ListQuotes(self, request: pb.ListQuotesRequest, _: Any) -> pb.ListQuotesResponse:
        pool, clock = self._kernel.pool, self._kernel.clock
        await self._kernel.freshness.wait(QuotesView.name, request.read_token)
        moment = await read_moment(pool, clock, request)
        day = (moment or clock.now()).date()
        return await list_quotes(pool, current_caller().workspace, request, day, moment)

    async def RenderQuote(self, request: pb.RenderQuoteRequest, _: Any) -> pb.RenderQuoteResponse:
        row, _moment = await self._asked(request)
        loop = asyncio.get_running_loop()
        content = await loop.run_in_executor(self._printer, rendered, row.state)
        return pb.RenderQuoteResponse(
            content=content, content_type="application/pdf", file_name=file_name(row.state)
        )

    async def _row(self, name: str) -> Row:
        """The quote that a command names: its deal and its earlier revisions never change."""
        return await existing_quote(self._kernel.pool, current_caller().workspace, name)

    async def _asked(
        self, request: pb.GetQuoteRequest | pb.RenderQuoteRequest
    ) -> tuple[Row, datetime | None]:
        """The quote that is asked for, as of when."""
        pool = self._kernel.pool
        await self._kernel.freshness.wait(QuotesView.name, request.read_token)
        moment = await read_moment(pool, self._kernel.clock, request)
        workspace = current_caller().workspace
        return await existing_quote(pool, workspace, request.name, moment), moment

    async def _change(self, command: Any, response: Callable[..., M]) -> M:
        """Executes a command that concerns a quote, and its deal if that is worth another sum."""
        row, now = await self._row(command.name), self._kernel.clock.now()
        decide = partial(quoting.change, now, current_caller().actor, command.name, command)
        return await self._decide(_parts(row), command, lambda states: decide(*states), response)

    async def _conclude(self, command: Any, response: Callable[..., M]) -> M:
        """Executes a command that concerns the earlier revisions of a quote, too."""
        row, now = await self._row(command.name), self._kernel.clock.now()
        earlier = row.state.earlier_revisions
        parts = _parts(row)
        parts += [Part(quote.DECIDER, quote.DECIDER.aggregate_id(name)) for name in earlier]

        def decide(states: Sequence[Any]) -> quoting.Facts:
            own, of, *others = states
            named = dict(zip(earlier, others, strict=True))
            return quoting.conclude(now, command.name, command, own, of, named)

        return await self._decide(parts, command, decide, response)

    async def _decide(
        self,
        parts: Sequence[Part],
        command: Message,
        decide: Callable[[Sequence[Any]], quoting.Facts],
        response: Callable[..., M],
        shown: int = 0,
    ) -> M:
        """Decides on a quote, its deal and whoever else takes part, and answers with a quote.

        The deal is the second part; the quote that is shown is the first unless told otherwise.
        """
        quote_id, day = parts[shown].aggregate_id, self._kernel.clock.now().date()

        def respond(decided: Sequence[Decided[Any]]) -> M:
            primary = decided[1].state.primary_quote == quote.DECIDER.name(quote_id)
            answer = quote_of(quote_id, decided[shown], day, primary=primary)
            return response(quote=answer, write_token=decided[shown].write_token)

        return await self._kernel.commands.execute_jointly(parts, command, decide, respond)


def _deal(name: str, field: str) -> Part:
    return Part(deal.DECIDER, deal.DECIDER.aggregate_id(name, field))


def _parts(row: Row) -> list[Part]:
    """A quote and its deal."""
    return [Part(quote.DECIDER, row.aggregate_id), _deal(row.state.deal, "name")]
