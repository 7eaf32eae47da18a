"""Accounts and what is said of them: a row per account, the last word per trait, and every word.

A last word cannot be undone by itself, so an account that lost a word is folded once more from the
words that it still has, read in one pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.identity.accounts import Account, Word, account_traits_changes
from services.identity.changes import Change
from services.identity.facts import resource_of
from services.identity.projections.profiles import traits_json
from services.identity.retraction import Lost, Message
from services.identity.traits import Said, Traits, later
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx, columns

# A word's atom is null where nobody joined or left.
TABLES = """
create table {schema}.account_words (
    workspace text not null,
    key bytea not null,
    account text collate "C" not null,
    kind smallint not null,
    node text collate "C",
    occur_time timestamptz not null,
    is_imported boolean not null,
    source text not null,
    resource text not null,
    said bytea,
    primary key (workspace, key)
);
create index account_words_by_account on {schema}.account_words (workspace, account);
create index account_words_by_node on {schema}.account_words (workspace, node)
    where node is not null;
create index account_words_imported on {schema}.account_words (workspace, resource)
    where is_imported;
create table {schema}.accounts (
    workspace text not null,
    account text collate "C" not null,
    group_id text not null,
    create_time timestamptz not null,
    words bigint not null,
    traits jsonb not null,
    primary key (workspace, account)
) with (fillfactor = 70);
create table {schema}.account_traits (
    workspace text not null,
    account text collate "C" not null,
    trait text collate "C" not null,
    value text,
    occur_time timestamptz not null,
    key bytea not null,
    primary key (workspace, account, trait)
) with (fillfactor = 80);
"""

WORDS_PER_FETCH = 5_000

_ADD = """
insert into {schema}.account_words
    (workspace, key, account, kind, node, occur_time, is_imported, source, resource, said)
select * from unnest($1::text[], $2::bytea[], $3::text[], $4::smallint[], $5::text[],
                     $6::timestamptz[], $7::boolean[], $8::text[], $9::text[], $10::bytea[])
on conflict do nothing
returning workspace, key
"""

_REMOVE = """
delete from {schema}.account_words w
using unnest($1::text[], $2::text[]) gone (workspace, resource)
where w.workspace = gone.workspace and w.resource = gone.resource and w.is_imported
returning w.workspace, w.resource, w.account, w.node
"""

_FORGET = """
delete from {schema}.account_words w
using unnest($1::text[], $2::bytea[]) gone (workspace, key)
where w.workspace = gone.workspace and w.key = gone.key
returning w.workspace, w.key, w.account, w.node
"""

# No index leads there, as to activities by their ids: a key ends with that of its event.
_FORGET_SAID_BY = """
delete from {schema}.account_words
where workspace = $1 and substr(key, 9) = any($2::bytea[])
returning workspace, key, account, node
"""

_OF_ACCOUNTS = """
select workspace, account, key, occur_time, said
from unnest($1::text[], $2::text[]) asked (workspace, account)
join {schema}.account_words using (workspace, account)
"""

_GROW = """
insert into {schema}.accounts as known
    (workspace, account, group_id, create_time, words, traits)
select *, '{{}}'::jsonb
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[])
on conflict (workspace, account) do update set
    create_time = least(known.create_time, excluded.create_time),
    words = known.words + excluded.words
"""

_SHRINK = """
update {schema}.accounts a set create_time = left_over.create_time, words = left_over.words
from unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[])
    left_over (workspace, account, create_time, words)
where a.workspace = left_over.workspace and a.account = left_over.account
"""

_DROP = """
delete from {schema}.accounts a using unnest($1::text[], $2::text[]) gone (workspace, account)
where a.workspace = gone.workspace and a.account = gone.account
"""

_FIND_TRAITS = """
select workspace, account, trait, value, occur_time, key
from unnest($1::text[], $2::text[]) asked (workspace, account)
join {schema}.account_traits using (workspace, account)
"""

_SAVE_TRAITS = """
insert into {schema}.account_traits (workspace, account, trait, value, occur_time, key)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::bytea[])
on conflict (workspace, account, trait) do update set
    value = excluded.value, occur_time = excluded.occur_time, key = excluded.key
"""

_DROP_TRAITS = """
delete from {schema}.account_traits t
using unnest($1::text[], $2::text[], $3::text[]) gone (workspace, account, trait)
where t.workspace = gone.workspace and t.account = gone.account and t.trait = gone.trait
"""

_LIST_TRAITS = """
update {schema}.accounts a set traits = said.traits
from unnest($1::text[], $2::text[], $3::jsonb[]) said (workspace, account, traits)
where a.workspace = said.workspace and a.account = said.account
"""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Traits)

AccountPlace = tuple[str, str]  # workspace, account
TraitsOfAccounts = Mapping[AccountPlace, Mapping[str, Said]]


@dataclass(frozen=True, slots=True)
class LostWord:
    """A word that is no more: whose it was, and the event that took it back."""

    event: Recorded
    account: str
    atom: str | None

    @property
    def place(self) -> AccountPlace:
        """The account it was about."""
        return self.event.workspace, self.account


async def add_words(tx: Tx, schema: str, words: Sequence[Word]) -> list[Word]:
    """Keeps words, and returns those that were not known."""
    rows = {(word.event.workspace, word.key): row_of(word) for word in words}
    if not rows:
        return []
    added = await tx.fetch(
        _ADD.format(schema=schema), *columns([rows[key] for key in sorted(rows)])
    )
    fresh = {(row["workspace"], row["key"]) for row in added}
    found = {(word.event.workspace, word.key): word for word in words}
    return [word for place, word in found.items() if place in fresh]


async def remove_words(
    tx: Tx, schema: str, retractions: Mapping[Message, Recorded]
) -> list[LostWord]:
    """Removes the words of messages that are retracted, and returns them."""
    asked = {
        (workspace, resource_of(message)): event
        for (workspace, message), event in retractions.items()
    }
    if not asked:
        return []
    rows = await tx.fetch(_REMOVE.format(schema=schema), *columns(sorted(asked)))
    lost = [
        LostWord(asked[row["workspace"], row["resource"]], row["account"], row["node"])
        for row in rows
    ]
    return sorted(lost, key=lambda word: (word.place, str(word.event.event_id)))


async def forget_words(
    tx: Tx, schema: str, lost: Sequence[Lost], activities: Mapping[tuple[str, UUID], Recorded]
) -> list[LostWord]:
    """Removes what facts that are no more said of accounts, and returns it.

    Of the `activities` that their own log erased, some were nobody's: they are not among the facts.
    """
    said_by = {(place, event_id.bytes): event for (place, event_id), event in activities.items()}
    events = said_by | {(each.event.workspace, each.activity_id.bytes): each.event for each in lost}
    rows: list[Any] = []
    if lost:
        keys = sorted((each.event.workspace, each.fact.key) for each in lost)
        rows += await tx.fetch(_FORGET.format(schema=schema), *columns(keys))
    spoken: dict[str, list[bytes]] = defaultdict(list)
    for workspace, event_id in sorted(said_by):
        spoken[workspace].append(event_id)
    for place in spoken.items():
        rows += await tx.fetch(_FORGET_SAID_BY.format(schema=schema), *place)
    return [
        LostWord(events[row["workspace"], row["key"][8:]], row["account"], row["node"])
        for row in sorted(rows, key=lambda row: (row["workspace"], row["account"], row["key"]))
    ]


async def hear_words(tx: Tx, schema: str, words: Sequence[Word]) -> list[Change]:
    """Lets new words be heard, and tells what accounts are like from now on."""
    if not words:
        return []
    causes = {(word.event.workspace, word.account): word.event for word in words}
    groups = {(word.event.workspace, word.account): word.group_id for word in words}
    received: dict[AccountPlace, list[datetime]] = defaultdict(list)
    before = await _load_traits(tx, schema, causes)
    after = {place: dict(before.get(place, {})) for place in causes}
    for word in words:
        place = word.event.workspace, word.account
        received[place].append(word.receive_time)
        known = after[place]
        for name, value in word.traits:
            said = Said(value, word.occur_time, word.key)
            known[name] = later(known.get(name), said)
    rows = [
        (*place, groups[place], min(times), len(times)) for place, times in sorted(received.items())
    ]
    await tx.execute(_GROW.format(schema=schema), *columns(rows))
    return await _turn(tx, schema, before, after, causes)


async def lose_words(tx: Tx, schema: str, lost: Sequence[LostWord]) -> list[Change]:
    """Lets accounts be as if the words had never been said, and tells what they are like."""
    if not lost:
        return []
    causes = {word.place: word.event for word in lost}
    before = await _load_traits(tx, schema, causes)
    left: dict[AccountPlace, Account] = {place: Account() for place in causes}
    statement = _OF_ACCOUNTS.format(schema=schema)
    async for row in tx.cursor(statement, *columns(sorted(causes)), prefetch=WORDS_PER_FETCH):
        traits = _DECODER.decode(row["said"]) if row["said"] else ()
        left[row["workspace"], row["account"]].add(row["key"], row["occur_time"], traits)
    gone = sorted(place for place, found in left.items() if not found.words)
    kept = [
        (*place, found.create_time, found.words)
        for place, found in sorted(left.items())
        if found.words
    ]
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(gone))
    if kept:
        await tx.execute(_SHRINK.format(schema=schema), *columns(kept))
    after = {place: found.traits for place, found in left.items()}
    return await _turn(tx, schema, before, after, causes)


async def _load_traits(
    tx: Tx, schema: str, places: Iterable[AccountPlace]
) -> dict[AccountPlace, dict[str, Said]]:
    traits: dict[AccountPlace, dict[str, Said]] = defaultdict(dict)
    found = await tx.fetch(_FIND_TRAITS.format(schema=schema), *columns(sorted(places)))
    for workspace, account, name, *said in found:
        traits[workspace, account][name] = Said(*said)
    return traits


async def _turn(
    tx: Tx,
    schema: str,
    before: TraitsOfAccounts,
    after: TraitsOfAccounts,
    causes: Mapping[AccountPlace, Recorded],
) -> list[Change]:
    """Saves the traits that are others than before, and tells them."""
    rows, gone, listed = [], [], []
    told: list[Change] = []
    for place, now in sorted(after.items()):
        old = before.get(place, {})
        if now == old:
            continue
        rows += [
            (*place, name, said.value, said.occur_time, said.key)
            for name, said in sorted(now.items())
            if said != old.get(name)
        ]
        gone += [(*place, name) for name in sorted(old.keys() - now.keys())]
        listed.append((*place, traits_json(now)))
        told += account_traits_changes(place[1], old, now, causes[place])
    for statement, changed in ((_SAVE_TRAITS, rows), (_DROP_TRAITS, gone), (_LIST_TRAITS, listed)):
        if changed:
            await tx.execute(statement.format(schema=schema), *columns(changed))
    return told


def row_of(word: Word) -> tuple[object, ...]:
    """Returns the row of a word, in the order of the table's columns."""
    return (
        word.event.workspace,
        word.key,
        word.account,
        word.kind,
        word.atom,
        word.occur_time,
        word.is_imported,
        word.source,
        word.resource,
        _ENCODER.encode(word.traits) if word.traits else None,
    )
