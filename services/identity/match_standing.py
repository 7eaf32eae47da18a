"""What a run makes of pairs it found, given how their profiles stand by now. Pure.

A run takes its time, and facts come meanwhile: a pair is about the profiles of now. Of each profile
its strongest identifier stands for it, so that what somebody decides stays with whom it was about.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from rapport.identity.v1.events_pb2 import (
    JudgedIdentifier,
    MatchSuggested,
    MatchSuggestionClosed,
)
from rapport.identity.v1.match_pb2 import MatchAgreement, MatchClosure, MatchEvidence, MatchField
from services.identity.identifiers import Identifier
from services.identity.matching import FoundPair
from services.identity.rules import Rules
from services.identity.verdicts import in_order, pair_id

ProfilePair: TypeAlias = tuple[str, str]
Judged: TypeAlias = tuple[str, str]
"""An identifier without its value: type and node."""


class Standing(NamedTuple):
    """An open suggestion, and the profiles that its identifiers lead to now; None is none."""

    suggestion_id: str
    one: Judged
    other: Judged
    one_profile: str | None
    other_profile: str | None
    is_cut: bool

    @property
    def pair(self) -> ProfilePair:
        """The two profiles."""
        return pair_of(self.one_profile or "", self.other_profile or "")


class Anchored(NamedTuple):
    """The profile that a name leads to now, and the identifier that stands for it."""

    profile: str
    anchor: Identifier


@dataclass(slots=True)
class Plan:
    """What a run is to record, by suggestion; of `decided` pairs nothing.

    `found` are first those that are open, then the others, in the order of their weights.
    """

    closed: dict[str, MatchSuggestionClosed] = field(default_factory=dict)
    found: dict[str, MatchSuggested] = field(default_factory=dict)
    decided: int = 0


def plan(
    run: str,
    model_version: str,
    found: Sequence[FoundPair],
    standings: Iterable[Standing],
    *,
    compared: Collection[str],
    anchored: Mapping[str, Anchored],
    cuts: Collection[ProfilePair],
) -> Plan:
    """Returns what is to be recorded of a run.

    `compared` are all profiles of it, `anchored` what those of the found pairs lead to now, `cuts`
    those of whom somebody said that they are two persons.
    """
    planned = Plan()
    by_pair: dict[ProfilePair, FoundPair] = {}
    for pair in found:
        one, other = anchored.get(pair.one), anchored.get(pair.other)
        # The first found is the likeliest.
        if one is not None and other is not None and one.profile != other.profile:
            by_pair.setdefault(pair_of(one.profile, other.profile), pair)
    for standing in standings:
        again = by_pair.get(standing.pair)
        closure = closure_of(standing, compared, is_found=again is not None)
        if closure:
            fact = MatchSuggestionClosed(closure=closure, run=run)
            planned.closed[standing.suggestion_id] = fact
        elif again is not None:
            suggested = suggested_of(standing.one, standing.other, run, again, model_version)
            planned.found[standing.suggestion_id] = suggested
            del by_pair[standing.pair]
    for profiles, pair in by_pair.items():
        if profiles in cuts:
            planned.decided += 1
            continue
        one_anchor, other_anchor = in_order(anchored[pair.one].anchor, anchored[pair.other].anchor)
        suggested = suggested_of(
            (one_anchor.type, one_anchor.node),
            (other_anchor.type, other_anchor.node),
            run,
            pair,
            model_version,
        )
        planned.found[pair_id(one_anchor, other_anchor)] = suggested
    return planned


def closure_of(
    standing: Standing, compared: Collection[str], *, is_found: bool
) -> MatchClosure.ValueType:
    """Returns why there is nothing to decide any more, or that there is."""
    one, other = standing.one_profile, standing.other_profile
    if one is None or other is None:
        return MatchClosure.MATCH_CLOSURE_GONE
    if one == other:
        return MatchClosure.MATCH_CLOSURE_ONE_PROFILE
    if standing.is_cut:
        return MatchClosure.MATCH_CLOSURE_CUT
    if not is_found and one in compared and other in compared:
        return MatchClosure.MATCH_CLOSURE_UNLIKELY
    return MatchClosure.MATCH_CLOSURE_UNSPECIFIED


def anchor_of(rules: Rules, identifiers: Iterable[Judged]) -> Identifier:
    """Returns the strongest of some identifiers."""
    return min(identifier_of(rules, judged) for judged in identifiers)


def identifier_of(rules: Rules, judged: Judged) -> Identifier:
    """Returns an identifier as strong as the rules have it, without its value."""
    type_name, node = judged
    return Identifier(rules.rank_if_known(type_name), node, type_name, "")


def pair_of(one: str, other: str) -> ProfilePair:
    """Returns two profiles in the one order of them."""
    return (one, other) if one < other else (other, one)


def suggested_of(
    one: Judged, other: Judged, run: str, pair: FoundPair, model_version: str
) -> MatchSuggested:
    """Returns the fact that two identifiers, the stronger first, may be one person's."""
    return MatchSuggested(
        one=JudgedIdentifier(type=one[0], node=one[1]),
        other=JudgedIdentifier(type=other[0], node=other[1]),
        run=run,
        weight_hundredths=pair.weight_hundredths,
        evidence=[
            MatchEvidence(
                field=MatchField.ValueType(said.field),
                agreement=MatchAgreement.ValueType(said.agreement),
                weight_hundredths=said.weight_hundredths,
            )
            for said in pair.evidence
        ],
        model_version=model_version,
    )
