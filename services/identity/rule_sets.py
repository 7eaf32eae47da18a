"""Rule sets: rules as they are written down, and how profiles by some differ from others. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from rapport.identity.v1.events_pb2 import (
    IdentifierTypeRules,
    ProfileCreated,
    ProfileRemoved,
    ProfileShift,
    ProfilesMerged,
    ProfileSplit,
    ResolutionRules,
)
from rapport.identity.v1.rule_sets_pb2 import ProfileShiftExample, ProfileShiftKind
from services.identity.changes import Change
from services.identity.rules import DEFAULT, IdentifierType, Rules, check
from services.kernel.errors import FieldViolation, InvalidArgument

# Of each kind: enough to see what is going on, and few enough for one answer.
EXAMPLES_PER_KIND_MAX = 20


def rules_in(written: ResolutionRules) -> Rules:
    """Returns rules that were written down; without types they are those that are built in."""
    types = tuple(_type_in(each) for each in written.types) or DEFAULT.types
    nodes_max = written.nodes_max or DEFAULT.nodes_max
    return Rules(types, default_region=written.default_region, nodes_max=nodes_max)


def checked(written: ResolutionRules, path: str) -> ResolutionRules:
    """Returns rules whole, as they are kept; raises InvalidArgument with all that is wrong."""
    rules = rules_in(written)
    wrong: list[FieldViolation] = []
    try:
        check(rules)
    except InvalidArgument as refusal:
        wrong += refusal.violations
    if wrong:
        raise InvalidArgument(
            [FieldViolation(f"{path}.{each.field}", each.description) for each in wrong]
        )
    return written_as(rules)


def written_as(rules: Rules) -> ResolutionRules:
    """Returns rules as they are written down, the same for equal ones."""
    return ResolutionRules(
        types=[_written_type(known) for known in rules.types],
        default_region=rules.default_region,
        nodes_max=rules.nodes_max,
    )


def _type_in(written: IdentifierTypeRules) -> IdentifierType:
    return IdentifierType(
        written.name,
        rank=written.rank,
        limit=written.limit if written.HasField("limit") else None,
        window=written.window.ToTimedelta() if written.HasField("window") else None,
        hub_over=written.hub_over if written.HasField("hub_over") else None,
        blocked_values=frozenset(written.blocked_values),
        blocked_patterns=tuple(written.blocked_patterns),
        is_numeric=written.is_numeric,
    )


def _written_type(known: IdentifierType) -> IdentifierTypeRules:
    return IdentifierTypeRules(
        name=known.name,
        rank=known.rank,
        limit=known.limit,
        window=None if known.window is None else _duration(known.window),
        hub_over=known.hub_over,
        blocked_values=sorted(known.blocked_values),
        blocked_patterns=known.blocked_patterns,
        is_numeric=known.is_numeric,
    )


def _duration(span: timedelta) -> Duration:
    written = Duration()
    written.FromTimedelta(span)
    return written


@dataclass(slots=True)
class Shift:
    """How profiles by some rules differ from those by others, told change by change."""

    counts: ProfileShift = field(default_factory=ProfileShift)
    _split: str = ""
    _examples: dict[ProfileShiftKind.ValueType, list[ProfileShiftExample]] = field(
        default_factory=dict
    )

    def add(self, change: Change) -> None:
        """Counts what came to be or moved; what left one profile comes together."""
        counts, event = self.counts, change.event
        match event:
            case ProfileCreated():
                counts.created_count += 1
            case ProfilesMerged():
                counts.merged_count += 1
                counts.moved_count += len(event.atoms)
                kind = ProfileShiftKind.PROFILE_SHIFT_KIND_MERGED
                self._show(kind, event.absorbed, event.survivor)
            case ProfileSplit():
                counts.split_count += event.profile != self._split
                counts.moved_count += len(event.atoms)
                self._split = event.profile
                kind = ProfileShiftKind.PROFILE_SHIFT_KIND_SPLIT
                self._show(kind, event.profile, event.split_off)
            case ProfileRemoved():
                counts.removed_count += 1
                self._show(ProfileShiftKind.PROFILE_SHIFT_KIND_REMOVED, event.profile)

    def examples(self) -> Iterator[ProfileShiftExample]:
        """Yields some of each kind."""
        for kind in sorted(self._examples):
            yield from self._examples[kind]

    def _show(self, kind: ProfileShiftKind.ValueType, profile: str, other: str = "") -> None:
        shown = self._examples.setdefault(kind, [])
        if len(shown) < EXAMPLES_PER_KIND_MAX:
            shown.append(ProfileShiftExample(kind=kind, profile=profile, other=other))
