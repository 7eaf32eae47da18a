"""The view `profiles` from all facts at once: folded and resolved in memory, written by COPY.

The rows are those that folding the same events batch by batch leaves. Activities are written as
they are read, for they are nearly all there is; what is kept until the end are nodes, edges, atoms
and last words. What takes facts back, or erases them, waits until all is written, and so does what
is recorded behind it of a message that was taken back; it is then folded as ever.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rapport.events.v1.events_pb2 import CustomerEventRetracted, CustomerEventsErased
from services.identity.accounts import word_of as word_about_account
from services.identity.consents import word_of_event, word_of_fact
from services.identity.erasures import FACTS as ERASURES
from services.identity.facts import Deal, Fact, deal_of, key_of, read_fact, received_at
from services.identity.flags import Flag, flag_of, held_flags
from services.identity.graph import Cuts, Edge, Pair, cuts_of, hubs_of, together
from services.identity.identifiers import Identifier
from services.identity.projections import (
    accounts,
    consent_statuses,
    consents,
    deal_words,
    flags,
    profiles,
    timeline_rows,
    verdicts,
)
from services.identity.projections.atoms import Atom
from services.identity.projections.bulk_accounts import Groups
from services.identity.projections.step import profiles_of
from services.identity.retraction import Message, imported
from services.identity.rules import Rules
from services.identity.stakes import Stake, computed, stakes
from services.identity.traits import Said, later, merged
from services.identity.verdicts import JudgedPlace, Kind, Ruling, ruling_of
from services.identity.whole import resolve_all
from services.identity.words import Word, contact_at, word_of
from services.kernel.log.copying import copy_encoded_soon
from services.kernel.log.writing import copy_soon, written
from services.kernel.views.bulk import (
    BULK_STATEMENT_TIMEOUT_S,
    Indexes,
    TooMuchForBulkError,
    drop_indexes,
    make_indexes,
)

if TYPE_CHECKING:
    from services.identity.projections.view import ProfilesView
    from services.kernel.log.recorded import Recorded
    from services.kernel.log.sql import Tx

# What is taken back is folded one batch after the other: of more, all is folded so from the start.
POSTPONED_MAX = 100_000
BATCH_SIZE = 1_000

_ERASING = ERASURES | {CustomerEventsErased}

# Of the others, rows are as their tables are.
_COLUMNS = {
    "deal_words": deal_words.COLUMNS,
    "consent_words": consents.COLUMNS,
}

# They are filled while the log is read, and have their keys and indexes once it is.
_WRITTEN_AS_READ = ("timeline", "account_words", "consent_words")

Row = tuple[object, ...]


@dataclass(slots=True)
class Population:
    """What facts say of the people of one workspace, kept until it is resolved."""

    workspace: str
    rules: Rules
    nodes: dict[str, Identifier] = field(default_factory=dict)
    edges: dict[Pair, Edge] = field(default_factory=dict)
    atoms: dict[str, Atom] = field(default_factory=dict)
    traits: dict[str, dict[str, Said]] = field(default_factory=dict)
    slots: dict[tuple[str, str], tuple[bytes, Identifier | None]] = field(default_factory=dict)
    words: dict[str, list[Word]] = field(default_factory=lambda: defaultdict(list))
    rulings: dict[JudgedPlace, Ruling] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    groups: Groups = field(init=False)

    def __post_init__(self) -> None:
        self.groups = Groups(self.workspace)

    def add(self, fact: Fact) -> None:
        """Adds a fact."""
        for known in fact.identifiers:
            self.nodes.setdefault(known.node, known)
        for edge in fact.edges():
            pair = edge.pair
            self.edges[pair] = together(self.edges.get(pair), edge)
        atom = self.atoms.get(fact.atom)
        if atom is None:
            atom = self.atoms[fact.atom] = Atom()
        atom.add(fact)
        if fact.traits:
            known_traits = self.traits.setdefault(fact.atom, {})
            for name, value in fact.traits:
                said = Said(value, fact.occur_time, fact.key)
                known_traits[name] = later(known_traits.get(name), said)
        for slot, target in (fact.asserted or {}).items():
            place = fact.atom, slot
            if place not in self.slots or self.slots[place][0] < fact.key:
                self.slots[place] = fact.key, target

    def add_word(self, deal: str, event: Recorded) -> str:
        """Adds what a deal's fact says of it; returns the id of the contact it is about."""
        word = word_of(event)
        if word is not None:
            self.words[deal].append(word)
        key = key_of(event.record_time, event.event_id)
        return contact_at(self.words[deal], (event.version, key))

    def add_ruling(self, ruling: Ruling) -> None:
        """Adds a verdict; the last one on a pair holds."""
        known = self.rulings.get(ruling.place)
        if known is None or known.key < ruling.key:
            self.rulings[ruling.place] = ruling

    def add_flag(self, flag: Flag) -> None:
        """Adds a flag; the last one of an identifier holds."""
        known = self.flags.get(flag.node)
        if known is None or known.key < flag.key:
            self.flags[flag.node] = flag

    def rows(self) -> Iterator[tuple[str, list[Row]]]:
        """Resolves who is one person; yields the rows of each table but the timeline."""
        self._hold()
        links, cuts = self._judged()
        types = {node: known.type for node, known in self.nodes.items()}
        edges = list(self.edges.values())
        hubs = hubs_of(self.rules, types, edges, held_flags(self.flags.values()))
        first = self._first_keys() if self.rules.has_windows else {}
        found = resolve_all(
            self.rules, types, edges, cuts, links=list(links.values()), hubs=hubs, first=first
        )
        profile_of = profiles_of(found.clusters, self.atoms)
        yield "nodes", self._of_nodes(hubs, profile_of)
        yield "edges", self._of_edges(found.rejected | found.aside)
        yield "verdicts", self._of_verdicts(found.rejected & links.keys())
        yield "flags", [flags.row_of(flag) for flag in self.flags.values()]
        yield "assertions", self._of_slots()
        yield "atoms", self._of_atoms()
        yield "traits", self._of_traits()
        yield "deal_words", self._of_words()
        yield "profiles", self._of_profiles(profile_of)
        yield from self.groups.rows(profile_of)

    def _hold(self) -> None:
        """Adds the edges that records assert now."""
        for (record, _), (key, target) in self.slots.items():
            if target is not None:
                self.nodes.setdefault(target.node, target)
                self.edges[target.node, record] = Edge(target.node, record, key)

    def _judged(self) -> tuple[dict[Pair, Edge], Cuts]:
        """Returns the links and the cuts in force: facts tell of both identifiers."""
        links, apart = {}, []
        for ruling in self.rulings.values():
            if self.nodes.keys() >= set(ruling.pair):
                if ruling.kind is Kind.LINK:
                    links[ruling.pair] = Edge(*ruling.pair, ruling.key, is_link=True)
                elif ruling.kind is Kind.CUT:
                    apart.append(ruling.pair)
        return links, cuts_of(apart)

    def _first_keys(self) -> dict[str, bytes]:
        first = {node: atom.first_key for node, atom in self.atoms.items()}
        for edge in self.edges.values():
            first[edge.weak] = min(first.get(edge.weak, edge.key), edge.key)
        return first

    def _of_nodes(self, hubs: frozenset[str], profile_of: Mapping[str, str | None]) -> list[Row]:
        return [
            (self.workspace, node, known.type, known.value, node in hubs, profile_of[node])
            for node, known in self.nodes.items()
        ]

    def _of_edges(self, rejected: frozenset[Pair]) -> list[Row]:
        return [
            (self.workspace, *pair, edge.key, edge.is_link, pair in rejected)
            for pair, edge in self.edges.items()
        ]

    def _of_verdicts(self, rejected: Iterable[Pair]) -> list[Row]:
        unfollowed = set(rejected)
        return [
            (*verdicts.row_of(ruling), ruling.kind is Kind.LINK and ruling.pair in unfollowed)
            for ruling in self.rulings.values()
        ]

    def _of_slots(self) -> list[Row]:
        return [
            (self.workspace, record, slot, target.node if target else None, key)
            for (record, slot), (key, target) in self.slots.items()
        ]

    def _of_atoms(self) -> list[Row]:
        return [
            (self.workspace, node, atom.first_key, atom.activities, atom.last_activity_time)
            for node, atom in self.atoms.items()
        ]

    def _of_traits(self) -> list[Row]:
        return [
            (self.workspace, node, name, said.value, said.occur_time, said.key)
            for node, known in self.traits.items()
            for name, said in known.items()
        ]

    def _of_words(self) -> list[Row]:
        return [
            (self.workspace, deal, *deal_words.row_of(word))
            for deal, words in self.words.items()
            for word in words
        ]

    def _of_profiles(self, profile_of: Mapping[str, str | None]) -> list[Row]:
        members: dict[str, list[str]] = defaultdict(list)
        for node in self.atoms:
            members[str(profile_of[node])].append(node)
        owned: dict[str, list[Stake]] = defaultdict(list)
        for words in self.words.values():
            for node, stake in stakes(words).items():
                owned[str(profile_of[node])].append(stake)
        return [
            (self.workspace, profile, *self._whole(nodes, owned.get(profile, [])))
            for profile, nodes in members.items()
        ]

    def _whole(self, nodes: Sequence[str], owned: Sequence[Stake]) -> Row:
        atoms = [self.atoms[node] for node in nodes]
        said = merged([self.traits[node] for node in nodes if node in self.traits])
        return (
            received_at(min(atom.first_key for atom in atoms)),
            max(atom.last_activity_time for atom in atoms),
            sum(atom.activities for atom in atoms),
            profiles.traits_json(said | computed(owned)),
        )


class _Read(NamedTuple):
    """Rows of events that were read: activities as they are copied, and words."""

    activities: Sequence[bytes]
    account_words: Sequence[Row]
    consent_words: Sequence[Row]


class ProfilesBulk:
    """All of the view in the making, in one transaction and the empty tables of a schema."""

    def __init__(self, view: ProfilesView, tx: Tx, schema: str) -> None:
        self._view = view
        self._tx = tx
        self._schema = schema
        self._indexes: Indexes | None = None
        self._people: dict[str, Population] = {}
        self._taken_back: set[Message] = set()
        self._postponed: list[Recorded] = []
        self._events = 0

    @property
    def heeds(self) -> frozenset[str]:
        return self._view.heeds

    async def add(self, events: Sequence[Recorded]) -> None:
        # Those that are no facts take memory, too: words on deals, verdicts, what waits.
        self._events += len(events)
        if self._events > self._view.events_in_bulk_max:
            raise TooMuchForBulkError(f"more than {self._view.events_in_bulk_max} events")
        if self._indexes is None:
            self._indexes = await drop_indexes(self._tx, self._schema)
        still_true = list(self._not_postponed(events))
        await self._meet({event.workspace for event in still_true})
        read = await asyncio.to_thread(self._take, still_true)
        await written(self._tx)
        copy_encoded_soon(
            self._tx,
            self._schema,
            "timeline",
            timeline_rows.COLUMNS,
            read.activities,
            BULK_STATEMENT_TIMEOUT_S,
        )
        self._copy("account_words", read.account_words)
        self._copy("consent_words", read.consent_words)

    async def finish(self) -> None:
        indexes = self._indexes or {}
        make_indexes(self._tx, indexes, _WRITTEN_AS_READ)
        for workspace in sorted(self._people):
            rows = self._people.pop(workspace).rows()
            # It takes long, and whoever else runs in this process has other things to do.
            while (of_table := await asyncio.to_thread(next, rows, None)) is not None:
                await written(self._tx)
                self._copy(*of_table)
        make_indexes(self._tx, indexes, sorted(indexes.keys() - set(_WRITTEN_AS_READ)))
        await consents.find_last_words(self._tx, self._schema)
        await consent_statuses.save_all_statuses(self._tx, self._schema)
        for start in range(0, len(self._postponed), BATCH_SIZE):
            batch = self._postponed[start : start + BATCH_SIZE]
            await self._view.apply(self._tx, self._schema, batch)

    def _take(self, events: Iterable[Recorded]) -> _Read:
        """Reads events into memory; returns the rows that need not wait until all are read."""
        facts, said, consented = [], [], []
        for event in events:
            fact = self._read(event)
            word = word_about_account(event, fact)
            if word is not None:
                self._people[event.workspace].groups.add(word)
                said.append(accounts.row_of(word))
            spoken = word_of_event(event) if fact is None else word_of_fact(fact)
            if fact is not None:
                self._people[fact.workspace].add(fact)
                facts.append(fact)
            if spoken is not None:
                consented.append(consents.row_of(event, spoken))
        return _Read(list(timeline_rows.encoded(facts)), said, consented)

    def _not_postponed(self, events: Iterable[Recorded]) -> Iterator[Recorded]:
        """Yields what neither takes a fact back nor is recorded anew behind that."""
        for event in events:
            if isinstance(event.event, CustomerEventRetracted):
                self._taken_back.add((event.workspace, event.event.message_id))
                self._postponed.append(event)
            elif type(event.event) in _ERASING or (
                self._taken_back and imported(event) in self._taken_back
            ):
                self._postponed.append(event)
            else:
                yield event
        if len(self._postponed) > POSTPONED_MAX:
            raise TooMuchForBulkError(f"more than {POSTPONED_MAX} events are taken back")

    async def _meet(self, workspaces: set[str]) -> None:
        new = workspaces - self._people.keys()
        if new:
            rules = await self._view.rules(self._tx, self._schema, new)
            self._people |= {name: Population(name, rules[name]) for name in sorted(new)}

    def _read(self, event: Recorded) -> Fact | None:
        """Reads an event's fact; verdicts, flags and words of deals are kept at once."""
        people = self._people[event.workspace]
        ruling = ruling_of(event)
        if ruling is not None:
            people.add_ruling(ruling)
            return None
        flag = flag_of(event)
        if flag is not None:
            people.add_flag(flag)
            return None
        deal: Deal | None = deal_of(event)
        told = {} if deal is None else {event.event_id: people.add_word(deal[1], event)}
        return read_fact(people.rules, event, told)

    def _copy(self, table: str, rows: Sequence[Row]) -> None:
        if rows:
            columns = _COLUMNS.get(table)
            copy_soon(self._tx, self._schema, table, rows, columns, BULK_STATEMENT_TIMEOUT_S)
