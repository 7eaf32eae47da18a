"""What deals say of how they stand and whom they are made with, word by word.

Facts of one deal are one stream, which every consumer reads in order, so whose a fact is was told
before it. What deals are to their contacts is folded from all of their words whenever it is asked.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from services.identity.erasures import ErasedKeys, Place, covers
from services.identity.facts import ERASED, Deal, deal_of, key_of
from services.identity.projections import erased_nodes
from services.identity.stakes import Stake, stakes
from services.identity.words import Kind, Word, contact_at, word_of
from services.kernel.log.recorded import Recorded
from services.kernel.log.sql import Tx, columns

TABLES = """
create table {schema}.deal_words (
    workspace text not null,
    deal text collate "C" not null,
    key bytea not null,
    version bigint not null,
    occur_time timestamptz not null,
    kind smallint not null,
    contact text not null,
    node text collate "C" not null,
    stage text not null,
    amount_minor bigint not null,
    currency text not null,
    products text,
    primary key (workspace, deal, key)
);
create index deal_words_by_node on {schema}.deal_words (workspace, node) where node <> '';
"""

WORD = "version, key, occur_time, kind, contact, node, stage, amount_minor, currency, products"

COLUMNS = ("workspace", "deal", *WORD.split(", "))

_ADD = f"""
insert into {{schema}}.deal_words (workspace, deal, {WORD})
select * from unnest($1::text[], $2::text[], $3::bigint[], $4::bytea[], $5::timestamptz[],
                     $6::smallint[], $7::text[], $8::text[], $9::text[], $10::bigint[],
                     $11::text[], $12::text[])
on conflict do nothing
returning workspace, deal, key
"""

_OF_DEALS = f"""
select workspace, deal, {WORD}
from {{schema}}.deal_words
join unnest($1::text[], $2::text[]) asked (workspace, deal) using (workspace, deal)
"""

_OF_NODES = f"""
select workspace, deal, {WORD}
from (
    select distinct w.workspace, w.deal
    from unnest($1::text[], $2::text[]) asked (workspace, node)
    join {{schema}}.deal_words w on w.workspace = asked.workspace and w.node = asked.node
    where w.node <> ''
) of_nodes
join {{schema}}.deal_words using (workspace, deal)
"""

_FORGET = """
update {schema}.deal_words w set contact = $4, node = ''
from unnest($1::text[], $2::text[], $3::bytea[]) gone (workspace, node, key)
where w.workspace = gone.workspace and w.node = gone.node and w.node <> '' and w.key <= gone.key
returning w.workspace, w.deal, gone.node
"""

# Looked up: to make an enum's member of its number costs more than all else about a word.
_KINDS = {int(kind): kind for kind in Kind}

Stakes = dict[str, list[Stake]]  # by node


@dataclass(frozen=True, slots=True)
class Heard:
    """What a batch says of deals.

    `contacts` are the contact ids that facts are about, by the ids of the facts. `news` are the
    keys of words that were not known before, `stirred` who is or was the contact of their deals,
    each with the last of these events. `stakes_before` is what deals were to those whose words were
    forgotten.
    """

    contacts: Mapping[UUID, str] = field(default_factory=dict)
    news: frozenset[bytes] = frozenset()
    stirred: Mapping[Place, Recorded] = field(default_factory=dict)
    stakes_before: Stakes = field(default_factory=dict)


NOTHING = Heard()


async def hear(tx: Tx, schema: str, events: Sequence[Recorded]) -> Heard:
    """Keeps the words of events, and returns what they say."""
    told = [(event, deal) for event in events if (deal := deal_of(event)) is not None]
    if not told:
        return NOTHING
    said = {(deal, word.key): word for event, deal in told if (word := word_of(event)) is not None}
    keys = await erased_nodes.keys_of(
        tx, schema, {(deal[0], word.node) for (deal, _), word in said.items() if word.node}
    )
    said = {(deal, key): without_erased(keys, deal, word) for (deal, key), word in said.items()}
    rows = [(*deal, *row_of(word)) for (deal, _), word in sorted(said.items())]
    added = await tx.fetch(_ADD.format(schema=schema), *columns(rows)) if rows else []
    news = {((row["workspace"], row["deal"]), row["key"]) for row in added}
    asked = {deal for _, deal in told}
    known = await words_of(tx, schema, asked)
    contacts, stirred = {}, {}
    for event, deal in told:
        key = key_of(event.record_time, event.event_id)
        contacts[event.event_id] = contact_at(known[deal], (event.version, key))
        if (deal, key) in news:
            stirred.update({(deal[0], word.node): event for word in known[deal] if word.node})
    return Heard(contacts, frozenset(key for _, key in news), stirred)


def without_erased(keys: ErasedKeys, deal: Deal, word: Word) -> Word:
    """Returns a word, without the contact if that was erased since."""
    if word.node and covers(keys, deal[0], [word.node], word.key):
        return replace(word, contact=ERASED, node="")
    return word


async def forget_contacts(tx: Tx, schema: str, keys: ErasedKeys) -> dict[Deal, set[str]]:
    """Takes erased contacts out of the words that name them; returns those of each deal."""
    found: dict[Deal, set[str]] = defaultdict(set)
    if not keys:
        return found
    asked = columns([(*place, key) for place, key in sorted(keys.items())])
    for workspace, deal, node in await tx.fetch(_FORGET.format(schema=schema), *asked, ERASED):
        found[workspace, deal].add(node)
    return found


async def words_of(tx: Tx, schema: str, deals: Iterable[Deal]) -> dict[Deal, list[Word]]:
    """Returns all words of deals."""
    asked = sorted(deals)
    if not asked:
        return {}
    return _by_deal(await tx.fetch(_OF_DEALS.format(schema=schema), *columns(asked)))


async def load_stakes(
    tx: Tx, schema: str, places: Iterable[Place], news: frozenset[bytes] = frozenset()
) -> tuple[Stakes, Stakes]:
    """Returns what deals are to those behind some nodes: without the news, and with them."""
    asked = sorted(places)
    before: Stakes = defaultdict(list)
    after: Stakes = defaultdict(list)
    if asked:
        found = await tx.fetch(_OF_NODES.format(schema=schema), *columns(asked))
        for words in _by_deal(found).values():
            older = [word for word in words if word.key not in news]
            now = stakes(words)
            then = now if len(older) == len(words) else stakes(older)
            for known, owned in ((then, before), (now, after)):
                for node, stake in known.items():
                    owned[node].append(stake)
    return before, after


def _by_deal(rows: Iterable[Any]) -> dict[Deal, list[Word]]:
    found: dict[Deal, list[Word]] = defaultdict(list)
    for workspace, deal, *said in rows:
        found[workspace, deal].append(word_in(said))
    return found


def word_in(row: Sequence[Any]) -> Word:
    """Returns the word of a row, of which the columns are `WORD`."""
    version, key, occur_time, kind, contact, node, stage, amount_minor, currency, products = row
    return Word(
        version=version,
        key=key,
        occur_time=occur_time,
        kind=_KINDS[kind],
        contact=contact,
        node=node,
        stage=stage,
        amount_minor=amount_minor,
        currency=currency,
        products=tuple(json.loads(products)) if products else (),
    )


def row_of(word: Word) -> tuple[object, ...]:
    """Returns a word's row, but for workspace and deal."""
    return (
        word.version,
        word.key,
        word.occur_time,
        word.kind,
        word.contact,
        word.node,
        word.stage,
        word.amount_minor,
        word.currency,
        json.dumps(word.products) if word.products else None,
    )
