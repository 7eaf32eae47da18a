"""Products in the view `commerce`: each customer event's mentions, and what follows from all.

Per field the last word of customer events is kept, and shown where the catalogue says nothing.
Only when the last word is taken back is it looked for anew.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rapport.events.v1.events_pb2 import CatalogueEntry
from services.events.money import Amount
from services.events.projections.orders import occurred
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from services.events.commerce import Mention
    from services.kernel.log.sql import Tx

TABLES = """
create table {schema}.mentions (
    workspace text not null,
    product_id text collate "C" not null,
    key bytea not null,
    message_id text collate "C" not null,
    said jsonb not null,
    views int not null,
    adds int not null,
    refunded bigint not null,
    problems jsonb not null,
    primary key (workspace, product_id, key)
);
create index mentions_by_message on {schema}.mentions (workspace, message_id);
create table {schema}.products (
    workspace text not null,
    product_id text collate "C" not null,
    said jsonb not null,
    entry bytea,
    mention_count bigint not null,
    first_key bytea,
    last_key bytea,
    view_count bigint not null,
    add_count bigint not null,
    ordered_units bigint not null,
    refunded_units bigint not null,
    problem_counts jsonb not null,
    display_name text collate "C",
    sku text collate "C",
    brand text collate "C",
    category text collate "C",
    variant text collate "C",
    currency text collate "C",
    price_minor bigint,
    url text collate "C",
    image_url text collate "C",
    first_seen_time timestamptz,
    last_seen_time timestamptz,
    primary key (workspace, product_id)
) with (fillfactor = 70);
"""

_MENTIONS = (
    *("workspace", "product_id", "key", "message_id", "said", "views", "adds", "refunded"),
    "problems",
)

_TAKE = """
delete from {schema}.mentions m
using unnest($1::text[], $2::text[]) gone (workspace, message_id)
where m.workspace = gone.workspace and m.message_id = gone.message_id
returning m.workspace, m.product_id, m.key, m.said, m.views, m.adds, m.refunded, m.problems
"""

_KEPT = """workspace, product_id, said, entry, mention_count, first_key, last_key, view_count,
    add_count, ordered_units, refunded_units, problem_counts"""

_ROWS = f"""
select {_KEPT} from {{schema}}.products
join unnest($1::text[], $2::text[]) asked (workspace, product_id) using (workspace, product_id)
"""

_LAST_WORDS = """
select asked.workspace, asked.product_id, asked.field, word.said, word.key
from unnest($1::text[], $2::text[], $3::text[]) asked (workspace, product_id, field)
cross join lateral (
    select said ->> asked.field as said, key from {schema}.mentions m
    where m.workspace = asked.workspace and m.product_id = asked.product_id
        and m.said ? asked.field
    order by key desc limit 1
) word
"""

_BOUNDS = """
select asked.workspace, asked.product_id,
    (select key from {schema}.mentions m
     where m.workspace = asked.workspace and m.product_id = asked.product_id
     order by key limit 1) as first_key,
    (select key from {schema}.mentions m
     where m.workspace = asked.workspace and m.product_id = asked.product_id
     order by key desc limit 1) as last_key
from unnest($1::text[], $2::text[]) asked (workspace, product_id)
"""

_SHOWN = """display_name, sku, brand, category, variant, currency, price_minor, url, image_url,
    first_seen_time, last_seen_time"""

_SAVE = f"""
insert into {{schema}}.products ({_KEPT}, {_SHOWN})
select * from unnest($1::text[], $2::text[], $3::jsonb[], $4::bytea[], $5::bigint[], $6::bytea[],
    $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::jsonb[],
    $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bigint[],
    $20::text[], $21::text[], $22::timestamptz[], $23::timestamptz[])
on conflict (workspace, product_id) do update set
    ({_KEPT}, {_SHOWN}) = row (
        {", ".join(f"excluded.{name.strip()}" for name in f"{_KEPT}, {_SHOWN}".split(","))}
    )
"""

_DROP = """
delete from {schema}.products p
using unnest($1::text[], $2::text[]) gone (workspace, product_id)
where p.workspace = gone.workspace and p.product_id = gone.product_id
"""

Place = tuple[str, str]  # workspace, product


@dataclass(slots=True)
class Row:
    """What is kept of a product: per field the last word and its key, and sums."""

    said: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    entry: bytes | None = None
    mention_count: int = 0
    first_key: bytes | None = None
    last_key: bytes | None = None
    views: int = 0
    adds: int = 0
    ordered: int = 0
    refunded: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    def add(self, key: bytes, mention: Mention) -> None:
        """Adds what a customer event says."""
        for name, text in mention.said.items():
            if name not in self.said or self.said[name][1] < key:
                self.said[name] = text, key
        self.mention_count += 1
        self.first_key = key if self.first_key is None else min(self.first_key, key)
        self.last_key = key if self.last_key is None else max(self.last_key, key)
        self.views += mention.views
        self.adds += mention.adds
        self.refunded += mention.refunded
        self.problems.update(mention.problems)

    def take(self, record: Any) -> list[str]:
        """Takes back what a customer event said; returns the fields whose last word it had."""
        self.mention_count -= 1
        self.views -= record["views"]
        self.adds -= record["adds"]
        self.refunded -= record["refunded"]
        self.problems.subtract(json.loads(record["problems"]))
        lost = [name for name, (_, key) in self.said.items() if key == record["key"]]
        for name in lost:
            del self.said[name]
        return lost


async def fold(
    tx: Tx,
    schema: str,
    *,
    added: Sequence[tuple[str, str, bytes, Mention]],
    retracted: Sequence[tuple[str, str]],
    entries: Mapping[Place, CatalogueEntry],
    units: Mapping[Place, tuple[int, int]],
) -> None:
    """Adds and takes back mentions, entries of the catalogue, and units that orders changed.

    `added` are workspace, message id, key and mention, `retracted` workspaces and message ids.
    """
    taken: list[Any] = []
    if retracted:
        taken = list(await tx.fetch(_TAKE.format(schema=schema), *columns(retracted)))
    await tx.copy_records_to_table(
        "mentions",
        schema_name=schema,
        columns=_MENTIONS,
        records=[_mention_row(*each) for each in added],
    )
    touched = {(record["workspace"], record["product_id"]) for record in taken}
    mended = sorted(touched)
    touched |= {(workspace, mention.product) for workspace, _, _, mention in added}
    touched |= entries.keys() | units.keys()
    if not touched:
        return
    rows = await _load(tx, schema, sorted(touched))
    lost = [
        (*place, name)
        for record in taken
        for place in [(record["workspace"], record["product_id"])]
        for name in rows[place].take(record)
    ]
    for workspace, _, key, mention in added:
        rows[workspace, mention.product].add(key, mention)
    await _mend(tx, schema, rows, mended, lost)
    for place, entry in entries.items():
        rows[place].entry = entry.SerializeToString(deterministic=True)
    for place, (ordered, besides) in units.items():
        rows[place].ordered += ordered
        rows[place].refunded += besides
    await _save(tx, schema, rows)


async def _load(tx: Tx, schema: str, touched: Sequence[Place]) -> defaultdict[Place, Row]:
    rows: defaultdict[Place, Row] = defaultdict(Row)
    for record in await tx.fetch(_ROWS.format(schema=schema), *columns(touched)):
        said = json.loads(record["said"])
        rows[record["workspace"], record["product_id"]] = Row(
            said={name: (text, bytes.fromhex(key)) for name, (text, key) in said.items()},
            entry=record["entry"],
            mention_count=record["mention_count"],
            first_key=record["first_key"],
            last_key=record["last_key"],
            views=record["view_count"],
            adds=record["add_count"],
            ordered=record["ordered_units"],
            refunded=record["refunded_units"],
            problems=Counter(json.loads(record["problem_counts"])),
        )
    return rows


async def _mend(
    tx: Tx,
    schema: str,
    rows: defaultdict[Place, Row],
    mended: Sequence[Place],
    lost: Sequence[tuple[str, str, str]],
) -> None:
    """Finds the last words and the bounds of what lost some."""
    if lost:
        for workspace, product, name, text, key in await tx.fetch(
            _LAST_WORDS.format(schema=schema), *columns(lost)
        ):
            rows[workspace, product].said[name] = text, key
    if mended:
        for workspace, product, first, last in await tx.fetch(
            _BOUNDS.format(schema=schema), *columns(mended)
        ):
            row = rows[workspace, product]
            row.first_key, row.last_key = first, last


async def _save(tx: Tx, schema: str, rows: Mapping[Place, Row]) -> None:
    kept, gone = [], []
    for place, row in sorted(rows.items(), key=lambda item: item[0]):
        if row.mention_count or row.entry is not None:
            kept.append(_row(place, row))
        else:
            gone.append(place)
    if kept:
        await tx.execute(_SAVE.format(schema=schema), *columns(kept))
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(gone))


def _mention_row(
    workspace: str, message_id: str, key: bytes, mention: Mention
) -> tuple[object, ...]:
    said, problems = json.dumps(mention.said), json.dumps(mention.problems)
    counts = mention.views, mention.adds, mention.refunded
    return (workspace, mention.product, key, message_id, said, *counts, problems)


def _row(place: Place, row: Row) -> tuple[object, ...]:
    words = {name: (text, key.hex()) for name, (text, key) in row.said.items()}
    problems = {reason: count for reason, count in row.problems.items() if count}
    return (
        *place,
        json.dumps(words),
        row.entry,
        row.mention_count,
        row.first_key,
        row.last_key,
        row.views,
        row.adds,
        row.ordered,
        row.refunded,
        json.dumps(problems),
        *_shown(row),
        None if row.first_key is None else occurred(row.first_key),
        None if row.last_key is None else occurred(row.last_key),
    )


def _shown(row: Row) -> Iterable[object]:
    """What is shown of each field: what the catalogue says, else the last word."""
    entry = CatalogueEntry.FromString(row.entry or b"")
    words = {name: text for name, (text, _) in row.said.items()}
    price = Amount.of_text(words["price"]) if "price" in words else None
    if entry.HasField("price"):
        price = Amount(entry.price.amount_minor, entry.price.currency)
    return (
        entry.display_name or words.get("name"),
        entry.sku or words.get("sku"),
        entry.brand or words.get("brand"),
        entry.category or words.get("category"),
        entry.variant or words.get("variant"),
        None if price is None else price.currency,
        None if price is None else price.minor,
        entry.url or words.get("url"),
        entry.image_url or words.get("image_url"),
    )
