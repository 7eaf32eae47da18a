"""What identity answers about match suggestions, and what follows when somebody decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from rapport.identity.v1 import match_suggestions_pb2 as pb
from rapport.identity.v1.match_suggestions_pb2_grpc import MatchSuggestionsServiceServicer
from services.identity import decider as verdict
from services.identity.deciders.match_suggestion import (
    DECIDER,
    About,
    Decision,
    State,
    decider_about,
    settle,
)
from services.identity.match_standing import identifier_of
from services.identity.projections import ProfilesView
from services.identity.projections.match_suggestions import (
    SUGGESTION_ROWS,
    count_open,
    get_suggestion,
    list_suggestions,
    load_known,
    suggestion_of,
)
from services.identity.projections.rules_in_force import rules_of
from services.identity.projections.verdicts import count_others
from services.identity.rules import DEFAULT
from services.identity.service.verdicts import pair_named
from services.identity.verdicts import pair_id
from services.kernel.command.decider import Decided, Part
from services.kernel.process.runtime import Kernel
from services.kernel.rpc.caller import current_caller

M = TypeVar("M", bound=Message)


class MatchSuggestionsService(MatchSuggestionsServiceServicer):
    """Match suggestions of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def SuggestMatch(
        self, request: pb.SuggestMatchRequest, _: Any
    ) -> pb.SuggestMatchResponse:
        workspace = current_caller().workspace
        rules = await rules_of(self._kernel.pool, workspace)
        one, other = pair_named(rules, workspace, request.one, request.other)
        suggestion_id = pair_id(one, other)
        known = await load_known(self._kernel.pool, workspace, (one.node, other.node))

        def respond(decided: Decided[State]) -> pb.SuggestMatchResponse:
            shown = suggestion_of(suggestion_id, decided, known)
            return pb.SuggestMatchResponse(match_suggestion=shown, write_token=decided.write_token)

        open_count = await count_open(self._kernel.pool, workspace)
        decider = decider_about(About((one.type, one.node), (other.type, other.node), open_count))
        return await self._kernel.commands.execute(decider, suggestion_id, request, respond)

    async def AcceptMatchSuggestion(
        self, request: pb.AcceptMatchSuggestionRequest, _: Any
    ) -> pb.AcceptMatchSuggestionResponse:
        return await self._decide(request, pb.AcceptMatchSuggestionResponse)

    async def RejectMatchSuggestion(
        self, request: pb.RejectMatchSuggestionRequest, _: Any
    ) -> pb.RejectMatchSuggestionResponse:
        return await self._decide(request, pb.RejectMatchSuggestionResponse)

    async def GetMatchSuggestion(
        self, request: pb.GetMatchSuggestionRequest, _: Any
    ) -> pb.GetMatchSuggestionResponse:
        # Which profiles it is about is what the other view says.
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        workspace = current_caller().workspace
        return pb.GetMatchSuggestionResponse(
            match_suggestion=await get_suggestion(self._kernel.pool, workspace, request.name)
        )

    async def ListMatchSuggestions(
        self, request: pb.ListMatchSuggestionsRequest, _: Any
    ) -> pb.ListMatchSuggestionsResponse:
        await self._kernel.freshness.wait(ProfilesView.name, request.read_token)
        return await list_suggestions(self._kernel.pool, current_caller().workspace, request)

    async def _decide(self, decision: Decision, response: Callable[..., M]) -> M:
        """Decides about a suggestion and gives the verdict that this is, both or neither."""
        workspace, pool = current_caller().workspace, self._kernel.pool
        row = await SUGGESTION_ROWS.existing(pool, workspace, decision.name)
        one, other = (identifier_of(DEFAULT, of) for of in (row.state.one, row.state.other))
        others = await count_others(pool, workspace, (other.node, one.node))
        known = await load_known(pool, workspace, (one.node, other.node))
        about = verdict.Judged(one, other, others)

        def decide(states: Sequence[Any]) -> Sequence[Sequence[Message]]:
            suggestion, judged = states
            return settle(decision.name, decision, about, (suggestion, judged))

        def respond(decided: Sequence[Decided[Any]]) -> M:
            shown = suggestion_of(row.aggregate_id, decided[0], known)
            return response(match_suggestion=shown, write_token=decided[0].write_token)

        parts = [Part(DECIDER, row.aggregate_id), Part(verdict.DECIDER, row.aggregate_id)]
        return await self._kernel.commands.execute_jointly(parts, decision, decide, respond)
