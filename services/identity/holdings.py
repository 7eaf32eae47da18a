"""What identity holds about people, and how it goes.

Profiles lose an erased person by themselves, for an erasure is a fact that they follow from. What
was told of them is in identity's own log: there the streams of all profiles that ever shared an
atom go as a whole, and what is left of these profiles is told anew. What people said about
somebody, verdicts, consents, suggestions, goes event by event.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from asyncpg import Pool

from rapport.common.v1.envelope_pb2 import Envelope
from rapport.common.v1.subjects_pb2 import SubjectRecord
from rapport.identity.v1.events_pb2 import (
    AccountErased,
    MatchSuggested,
    ProfileErased,
    TellingErased,
)
from services.identity.changes import ACTOR, Change, name_of
from services.identity.deciders.match_suggestion import DECIDER as SUGGESTION
from services.identity.erasures import nodes_in
from services.identity.facts import key_of
from services.identity.identifiers import account_name, identifier
from services.identity.policies import append_of
from services.identity.projections import ProfilesView, erased_nodes
from services.identity.projections.afresh import account_afresh, alive, profile_afresh
from services.identity.projections.history import HistoryView, forget_verdicts
from services.identity.projections.match_suggestions import (
    MatchSuggestionsView,
    forget_suggestions,
)
from services.identity.projections.rule_builds import forget_build
from services.identity.projections.rules_in_force import rules_of
from services.identity.projections.telling import (
    ACCOUNT,
    PROFILE,
    Telling,
    streams_naming,
    telling_of,
    whole_stream,
)
from services.identity.verdicts import ruling_of
from services.kernel.erasing.exports import told
from services.kernel.erasing.holdings import Gone
from services.kernel.erasing.subjects import Erasure, Subject
from services.kernel.erasing.tombstones import schemas_of
from services.kernel.errors import Unavailable
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin, read_heads, read_partition
from services.kernel.log.recorded import EventTypes, Recorded
from services.kernel.log.sql import Tx
from services.kernel.log.tokens import encode_write_token
from services.kernel.process.runtime import Kernel
from services.kernel.views.view import append_with_views

OWN, LOG, PROFILES = "identity", "log", "profiles"

# What people said about identifiers, which goes event by event, and what goes with its stream.
_SAID = ("verdict-", "consent-", "flag-")
_SUGGESTIONS = SUGGESTION.stream("")


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found in the log up to some positions."""

    heads: dict[int, int]
    telling: Telling


class IdentityHoldings:
    """What was told of people, and said about them, found by their nodes."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._looked: dict[tuple[str, str], Looked] = {}

    @property
    def _event_types(self) -> EventTypes:
        return self._kernel.event_types

    async def find(self, pool: Pool, erasure: Erasure, _limit: int) -> Sequence[Envelope]:
        """All at once, whatever the limit: what is left is told anew by the same step."""
        nodes = await self._nodes(pool, erasure)
        if not nodes:
            return []
        await _have_heard(pool, erasure, nodes)
        heads = await read_heads(pool)
        args = pool, self._event_types, erasure.workspace, nodes
        telling = await telling_of(*args, erasure.name)
        self._looked[erasure.workspace, erasure.name] = Looked(heads, telling)
        found = [envelope for events in telling.events.values() for envelope in events]
        async for envelopes in self._said(pool, erasure.workspace, nodes, erasure):
            found += envelopes
        return found

    async def forget(self, tx: Tx, erasure: Erasure, events: Sequence[Recorded]) -> Gone:
        looked = self._looked.pop((erasure.workspace, erasure.name), None)
        if looked is None or await _has_moved_on(tx, looked):
            raise Unavailable(OWN, message="the profiles changed meanwhile; ask again")
        gone = Gone()
        judged = [str(event.event_id) for event in events if ruling_of(event) is not None]
        for schema in await schemas_of(tx, HistoryView()):
            await forget_verdicts(tx, schema, erasure.workspace, judged)
        streams = {event.stream for event in events}
        suggested = sorted(each for each in streams if each.startswith(_SUGGESTIONS))
        for schema in await schemas_of(tx, MatchSuggestionsView()):
            ids = [SUGGESTION.id_of(stream) for stream in suggested]
            await forget_suggestions(tx, schema, erasure.workspace, ids)
        gone.ended.update(suggested)
        nodes = await self._nodes(self._kernel.pool, erasure)
        gone.appends = await _told_anew(tx, erasure, looked.telling, len(nodes))
        gone.counts[PROFILES] = sum(s.startswith(PROFILE) for s in looked.telling.events)
        return gone

    async def forget_rest(self, pool: Pool, erasure: Erasure) -> Gone | None:
        """Says that all is told, to those who wait for it; and drops what is built beside."""
        nodes = await self._nodes(pool, erasure)
        stream = f"erasing-{erasure.name.partition('/')[2]}"
        envelopes = await whole_stream(pool, erasure.workspace, stream)
        for event in self._event_types.decode_all(envelopes):
            assert isinstance(event.event, TellingErased)
            if event.event.identifier_count >= len(nodes):
                # What was erased is in the past of profiles until this is.
                token = encode_write_token(OWN, {event.partition: event.position})
                await self._kernel.freshness.wait(HistoryView.name, token)
                return None
        fact = TellingErased(erasure=erasure.name, identifier_count=len(nodes))
        append = Append(_origin(erasure), stream, [NewEvent(fact)])
        async with transaction(pool) as tx:
            await forget_build(tx, erasure.workspace)
            await append_with_views(tx, self._kernel.log, self._kernel.views, [append])
        return Gone()

    async def preview(self, pool: Pool, subject: Subject) -> Gone:
        nodes = await self._nodes_of(pool, subject)
        gone = Gone()
        if nodes:
            telling = await telling_of(pool, self._event_types, subject.workspace, nodes)
            gone.counts[PROFILES] = sum(s.startswith(PROFILE) for s in telling.events)
            gone.counts[LOG] = sum(map(len, telling.events.values()))
            async for envelopes in self._said(pool, subject.workspace, nodes):
                gone.counts[LOG] += len(envelopes)
        return gone

    async def export(self, pool: Pool, subject: Subject) -> AsyncIterator[Sequence[SubjectRecord]]:
        """What the log says; all else identity tells by itself, to whoever asks for a document."""
        nodes = await self._nodes_of(pool, subject)
        if not nodes:
            return
        telling = await telling_of(pool, self._event_types, subject.workspace, nodes)
        for stream, envelopes in telling.events.items():
            if stream.startswith(PROFILE):
                name = name_of(stream.removeprefix(PROFILE))
                yield [told(event, name) for event in self._event_types.decode_all(envelopes)]
        async for envelopes in self._said(pool, subject.workspace, nodes):
            yield [told(event, event.stream) for event in self._event_types.decode_all(envelopes)]

    async def _said(
        self, pool: Pool, workspace: str, nodes: Collection[str], erasure: Erasure | None = None
    ) -> AsyncIterator[list[Envelope]]:
        """What people said about nodes, early enough to go with an erasure."""
        for category in (*_SAID, _SUGGESTIONS):
            for stream in await streams_naming(pool, workspace, category, nodes):
                envelopes = await whole_stream(pool, workspace, stream)
                events = self._event_types.decode_all(envelopes)
                going = [_goes(event, nodes, erasure) for event in events]
                if category == _SUGGESTIONS:
                    # A suggestion without its beginning would be none.
                    going = [any(going)] * len(going)
                yield [each for each, goes in zip(envelopes, going, strict=True) if goes]

    async def _nodes(self, pool: Pool, erasure: Erasure) -> set[str]:
        return {*erasure.nodes, *await self._nodes_of(pool, erasure.subject)}

    async def _nodes_of(self, pool: Pool, subject: Subject) -> set[str]:
        rules = await rules_of(pool, subject.workspace)
        found = [
            identifier(rules, subject.workspace, name, form)
            for name, form in subject.forms
            if rules.named(name) is not None
        ]
        return {known.node for known in found if known is not None}


async def _have_heard(pool: Pool, erasure: Erasure, nodes: Collection[str]) -> None:
    """Raises Unavailable until the profiles are those without the person."""
    key = key_of(erasure.key.receive_time, erasure.key.event_id)
    places = {(erasure.workspace, node) for node in nodes}
    async with transaction(pool) as tx:
        for schema in await schemas_of(tx, ProfilesView()):
            known = await erased_nodes.keys_of(tx, schema, places)
            if any(known.get(place, b"") < key for place in places):
                raise Unavailable(OWN, message="the profiles have not heard of it yet")


async def _has_moved_on(tx: Tx, looked: Looked) -> bool:
    """Tells whether more was told of the same profiles since the log was looked through."""
    for partition, position in looked.heads.items():
        after = position
        while batch := await read_partition(tx, partition, after=after):
            if any(looked.telling.concerns(envelope) for envelope in batch):
                return True
            after = batch[-1].position
    return False


async def _told_anew(
    tx: Tx, erasure: Erasure, telling: Telling, identifier_count: int
) -> list[Append]:
    """Tells that what was told is void, and what is left."""
    origin = _origin(erasure)
    void: list[Change] = []
    anew: list[Change] = []
    for stream in telling.events:
        if stream.startswith(PROFILE):
            profile = stream.removeprefix(PROFILE)
            void.append(_profile_erased(profile, origin, identifier_count))
        else:
            account = stream.removeprefix(ACCOUNT)
            fact = AccountErased(account=account_name(account))
            fact.erasure, fact.identifier_count = erasure.name, identifier_count
            void.append(Change("", fact, origin, account=account))
            anew += await account_afresh(tx, ProfilesView.name, account, origin)
    told_of = {stream.removeprefix(PROFILE) for stream in telling.events}
    for profile in await alive(tx, ProfilesView.name, erasure.workspace, telling.atoms | told_of):
        if profile not in told_of:
            void.append(_profile_erased(profile, origin, identifier_count))
        anew += await profile_afresh(tx, ProfilesView.name, profile, origin)
    return [append_of(change) for change in (*void, *anew)]


def _profile_erased(profile: str, origin: Origin, identifier_count: int) -> Change:
    fact = ProfileErased(
        profile=name_of(profile), erasure=origin.correlation_id, identifier_count=identifier_count
    )
    return Change(profile, fact, origin)


def _goes(event: Recorded, nodes: Collection[str], erasure: Erasure | None) -> bool:
    """Tells whether what somebody said names nodes, early enough to go with an erasure."""
    if erasure is not None and not erasure.covers(event.record_time, event.event_id):
        return False
    fact = event.event
    named = (
        [fact.one.node, fact.other.node] if isinstance(fact, MatchSuggested) else nodes_in(event)
    )
    return not set(nodes).isdisjoint(named)


def _origin(erasure: Erasure) -> Origin:
    return Origin(erasure.workspace, ACTOR, correlation_id=erasure.name, causation_id="")
