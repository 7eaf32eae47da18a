"""Why profiles are as they are, from nodes, edges and verdicts as they lie.

Whether an edge is rejected is kept; why is found by resolving its island once more, as a batch that
touches it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from asyncpg import Pool

from rapport.identity.v1 import explanations_pb2 as pb
from rapport.identity.v1.flags_pb2 import IdentifierFlag
from rapport.identity.v1.service_pb2 import Identifier as Named
from rapport.identity.v1.verdicts_pb2 import Verdict, VerdictKind
from services.identity.changes import name_of
from services.identity.explaining import Way, shortest
from services.identity.facts import received_at
from services.identity.graph import Pair, Refusal, Rule, place_of, resolve
from services.identity.identifiers import Identifier
from services.identity.projections.flags import flags_of
from services.identity.projections.profiles import node_named
from services.identity.projections.rules_in_force import rules_of
from services.identity.projections.survey import Survey, survey
from services.identity.rules import Rules
from services.kernel.errors import NotFound
from services.kernel.log.database import one_moment
from services.kernel.log.recorded import timestamp_of
from services.kernel.log.sql import Tx

CONNECTIONS_MAX = 500
REFUSALS_MAX = 100
VERDICTS_MAX = 200
REFUSED_VALUES_MAX = 20
# An atom with more activities is not searched for the one that supports an edge.
ACTIVITIES_SEARCHED_MAX = 1_000

_VALUES = "select node, type, value from profiles.nodes where workspace = $1 and node = any($2)"

_VERDICTS = """
select weak, strong, weak_type, strong_type, kind, key, actor, reason from profiles.verdicts
where workspace = $1 and kind <> 0 and (weak = any($2) or strong = any($2))
order by key
"""

_ACTIVITIES = """
select t.activity_id, t.activity, t.resource
from unnest($2::text[], $3::uuid[]) asked (node, activity_id)
join profiles.atoms a on a.workspace = $1 and a.node = asked.node and a.activities <= $4
join profiles.timeline t on t.workspace = $1 and t.node = asked.node
    and t.activity_id = asked.activity_id
"""

_RULES = {
    Rule.HUB: pb.RefusalRule.REFUSAL_RULE_HUB,
    Rule.CUT: pb.RefusalRule.REFUSAL_RULE_CUT,
    Rule.SIZE: pb.RefusalRule.REFUSAL_RULE_SIZE,
    Rule.LIMIT: pb.RefusalRule.REFUSAL_RULE_LIMIT,
    Rule.WINDOW: pb.RefusalRule.REFUSAL_RULE_WINDOW,
}


@dataclass(frozen=True, slots=True)
class _Told:
    """What an answer names: of nodes values, profiles and flags; verdicts, activities, refusals."""

    rules: Rules
    values: Mapping[str, Named]
    profiles: Mapping[str, str | None]
    verdicts: Mapping[Pair, Verdict]
    flags: Mapping[str, IdentifierFlag]
    activities: Mapping[UUID, tuple[str, str]]
    refusals: Mapping[Pair, Refusal]

    def connection(self, way: Way) -> pb.Connection:
        """Tells of what connects two nodes."""
        edge = way.edge
        event_id = UUID(bytes=edge.key[8:])
        activity, resource = self.activities.get(event_id, ("", ""))
        return pb.Connection(
            one=self.values[edge.strong],
            other=self.values[edge.weak],
            fact=pb.SupportingFact(
                activity_id=str(event_id),
                receive_time=timestamp_of(received_at(edge.key)),
                activity=activity,
                resource=resource,
            ),
            is_link=edge.is_link,
            verdict=self.verdicts.get(edge.pair) if way.is_verdict else None,
            refusal=self.refusal(way) if way.is_rejected else None,
            one_profile=_named(self.profiles.get(edge.strong)),
            other_profile=_named(self.profiles.get(edge.weak)),
        )

    def refusal(self, way: Way) -> pb.Refusal:
        """Tells why it was not followed."""
        refusal = self.refusals[way.edge.pair]
        is_blocked = not self.flags.keys().isdisjoint(refusal.nodes)
        told = pb.Refusal(
            rule=_RULES[refusal.rule],
            identifier_type=refusal.type_name,
            identifiers=[self.values[node] for node in refusal.nodes[:REFUSED_VALUES_MAX]],
            violation=violation_of(refusal, is_blocked=is_blocked),
        )
        match refusal.rule:
            case Rule.HUB:
                self._tell_shared(told, refusal, way)
            case Rule.CUT:
                one, other = refusal.nodes
                told.verdict.CopyFrom(self.verdicts.get((one, other)) or self.verdicts[other, one])
                clear = pb.RemedyKind.REMEDY_KIND_CLEAR
                told.remedies.add(kind=clear, one=told.verdict.one, other=told.verdict.other)
            case Rule.SIZE:
                told.limit = self.rules.nodes_max
            case Rule.LIMIT | Rule.WINDOW:
                told.limit = self.rules.limit(refusal.type_name) or 0
                # The two may be one person; or what was refused is this one's, not the other's.
                self._tell_links(told, *refusal.bridges[:REFUSED_VALUES_MAX], way.edge.pair)
        return told

    def _tell_shared(self, told: pb.Refusal, refusal: Refusal, way: Way) -> None:
        """Tells of a shared identifier, or a blocked one: it may be one person's after all."""
        for node in refusal.nodes:
            flag = self.flags.get(node)
            kind = pb.RemedyKind.REMEDY_KIND_ALLOW
            if flag is not None:
                told.flag.CopyFrom(flag)
                kind = pb.RemedyKind.REMEDY_KIND_CLEAR_FLAG
            else:
                told.identifier_type = self.values[node].type
                told.limit = self.rules.type_of(told.identifier_type).hub_over or 0
            told.remedies.add(kind=kind, one=self.values[node])
        self._tell_links(told, way.edge.pair)

    def _tell_links(self, told: pb.Refusal, *pairs: Pair) -> None:
        for one, other in dict.fromkeys(pairs):
            link = pb.RemedyKind.REMEDY_KIND_LINK
            told.remedies.add(kind=link, one=self.values[one], other=self.values[other])


def violation_of(refusal: Refusal, *, is_blocked: bool) -> str:
    """Returns what other platforms call a refusal; nothing where they have no name for it."""
    match refusal.rule:
        case Rule.LIMIT:
            return "Identifier value limit exceeded"
        case Rule.WINDOW:
            return "Identifier time limit exceeded"
        case Rule.SIZE if refusal.is_merge:
            return "Profile merge limit exceeded"
        case Rule.SIZE:
            return "Identifier mapping limit exceeded"
        case Rule.HUB if is_blocked:
            return "ID value blocked"
    return ""


async def explain_profile(pool: Pool, workspace: str, name: str) -> pb.ExplainProfileResponse:
    """Returns what a profile is made of; raises InvalidArgument, NotFound, ResourceExhausted."""
    async with one_moment(pool) as tx:
        rules = await rules_of(tx, workspace)
        node = node_named(rules, workspace, name)
        found = await survey(tx, rules, workspace, [node])
        profile = found.profiles.get(node)
        if profile is None:
            raise NotFound(name)
        nodes = {each for each, known in found.profiles.items() if known == profile}
        ways = [way for way in _ways(rules, found) if not nodes.isdisjoint(way.edge.pair)]
        followed = [way for way in ways if not way.is_rejected]
        refused = [way for way in ways if way.is_rejected]
        shown = [*followed[:CONNECTIONS_MAX], *refused[:REFUSALS_MAX]]
        told = await _told(tx, rules, workspace, found, shown, nodes)
    judged = [verdict for pair, verdict in told.verdicts.items() if not nodes.isdisjoint(pair)]
    ranked = sorted(nodes, key=lambda each: (rules.rank(found.types[each]), each))
    return pb.ExplainProfileResponse(
        profile=name_of(profile),
        identifiers=[
            pb.KnownIdentifier(
                identifier=told.values[each],
                first_time=timestamp_of(received_at(found.first_keys[each])),
                is_shared=each in found.hubs,
            )
            for each in ranked
        ],
        connections=[told.connection(way) for way in followed[:CONNECTIONS_MAX]],
        refused=[told.connection(way) for way in refused[:REFUSALS_MAX]],
        verdicts=judged[:VERDICTS_MAX],
        left_out_count=len(ways) - len(shown) + max(0, len(judged) - VERDICTS_MAX),
    )


async def explain_pair(
    pool: Pool, workspace: str, one: Identifier, other: Identifier
) -> pb.ExplainPairResponse:
    """Returns why two identifiers are one person's, or are not; raises ResourceExhausted."""
    pair = other.node, one.node
    async with one_moment(pool) as tx:
        rules = await rules_of(tx, workspace)
        found = await survey(tx, rules, workspace, pair)
        path = shortest(_ways(rules, found), one.node, other.node)
        told = await _told(tx, rules, workspace, found, path or (), pair)
    profiles = [found.profiles.get(known.node) for known in (one, other)]
    if not found.types.keys() >= set(pair):
        relation = pb.PairRelation.PAIR_RELATION_UNKNOWN
    elif path is None:
        relation = pb.PairRelation.PAIR_RELATION_UNCONNECTED
    elif any(way.is_rejected for way in path):
        relation = pb.PairRelation.PAIR_RELATION_REFUSED
    else:
        relation = pb.PairRelation.PAIR_RELATION_ONE_PERSON
    return pb.ExplainPairResponse(
        relation=relation,
        one_profile=_named(profiles[0]),
        other_profile=_named(profiles[1]),
        path=[told.connection(way) for way in path or ()],
        verdict=told.verdicts.get(pair),
    )


def _named(profile: str | None) -> str:
    return name_of(profile) if profile else ""


def _ways(rules: Rules, found: Survey) -> list[Way]:
    """Returns what connects nodes, in the order in which it is looked at."""
    ways = [Way(edge, is_rejected) for edge, is_rejected in found.edges.values()]
    ways += [Way(edge, is_rejected, is_verdict=True) for edge, is_rejected in found.links.values()]
    return sorted(ways, key=lambda way: (place_of(rules, way.edge, found.types), way.is_verdict))


async def _told(
    tx: Tx,
    rules: Rules,
    workspace: str,
    found: Survey,
    shown: Sequence[Way],
    nodes: Iterable[str],
) -> _Told:
    """Loads what an answer names that shows some ways, and the verdicts on some nodes."""
    asked = {way.edge.pair for way in shown if way.is_rejected}
    refusals: Mapping[Pair, Refusal] = {}
    if asked:
        refusals = resolve(
            rules,
            found.types,
            [edge for edge, _ in found.edges.values()],
            found.cuts,
            asked,
            links=[edge for edge, _ in found.links.values()],
            hubs=found.hubs,
            first=found.first_keys,
        ).refusals
    named = {node for way in shown for node in way.edge.pair} | set(nodes)
    named |= {node for refusal in refusals.values() for node in refusal.nodes}
    verdict_rows = await tx.fetch(_VERDICTS, workspace, sorted(named))
    named |= {node for row in verdict_rows for node in (row["weak"], row["strong"])}
    values = {
        row["node"]: Named(type=row["type"], value=row["value"])
        for row in await tx.fetch(_VALUES, workspace, sorted(named))
    }
    verdicts = {
        (row["weak"], row["strong"]): Verdict(
            one=values.get(row["strong"], Named(type=row["strong_type"])),
            other=values.get(row["weak"], Named(type=row["weak_type"])),
            kind=VerdictKind.ValueType(row["kind"]),
            reason=row["reason"],
            actor=row["actor"],
            decide_time=timestamp_of(received_at(row["key"])),
        )
        for row in verdict_rows
    }
    flags = await flags_of(tx, workspace, {node for r in refusals.values() for node in r.nodes})
    keys = [(way.edge.strong, UUID(bytes=way.edge.key[8:])) for way in shown if not way.is_verdict]
    rows = (
        await tx.fetch(
            _ACTIVITIES, workspace, *map(list, zip(*keys, strict=True)), ACTIVITIES_SEARCHED_MAX
        )
        if keys
        else []
    )
    activities = {row["activity_id"]: (row["activity"], row["resource"]) for row in rows}
    return _Told(rules, values, found.profiles, verdicts, flags, activities, refusals)
