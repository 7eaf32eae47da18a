"""Orders in the view `commerce`: what each customer event says, and how orders stand by all."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from services.events.commerce import Slot, Statement
from services.events.orders import Refunds, Standing, Word, Words, amount_refunded, standing_of
from services.kernel.log.sql import columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from services.kernel.log.sql import Tx

TABLES = f"""
create table {{schema}}.statements (
    workspace text not null,
    order_id text collate "C" not null,
    slot smallint not null,
    key bytea not null,
    message_id text collate "C" not null,
    has_lines boolean not null,
    has_amounts boolean not null,
    said jsonb not null,
    primary key (workspace, order_id, slot, key)
);
create index statements_by_message on {{schema}}.statements (workspace, message_id);
create index statements_by_key on {{schema}}.statements (workspace, order_id, key);
create index statements_with_lines on {{schema}}.statements (workspace, order_id, key)
    where slot = {Slot.WHOLE:d} and has_lines;
create index statements_with_amounts on {{schema}}.statements (workspace, order_id, key)
    where slot = {Slot.WHOLE:d} and has_amounts;
create table {{schema}}.refund_sums (
    workspace text not null,
    order_id text collate "C" not null,
    kind text collate "C" not null,
    of text collate "C" not null,
    amount numeric not null,
    primary key (workspace, order_id, kind, of)
);
create table {{schema}}.orders (
    workspace text not null,
    order_id text collate "C" not null,
    state smallint not null,
    user_id text collate "C",
    anonymous_id text collate "C",
    checkout_id text collate "C",
    currency text collate "C",
    total_minor bigint,
    refund_count bigint not null,
    problem_count bigint not null,
    order_time timestamptz not null,
    update_time timestamptz not null,
    standing jsonb not null,
    units jsonb not null,
    lines jsonb not null,
    primary key (workspace, order_id)
);
create index orders_by_user on {{schema}}.orders (workspace, user_id, order_id)
    where user_id is not null;
create index orders_by_anonymous_id on {{schema}}.orders (workspace, anonymous_id, order_id)
    where anonymous_id is not null;
create index orders_by_time on {{schema}}.orders (workspace, order_time);
"""

_STATEMENTS = (
    *("workspace", "order_id", "slot", "key", "message_id"),
    *("has_lines", "has_amounts", "said"),
)

_TAKE = """
delete from {schema}.statements s
using unnest($1::text[], $2::text[]) gone (workspace, message_id)
where s.workspace = gone.workspace and s.message_id = gone.message_id
returning s.workspace, s.order_id, s.said
"""

_LAST = "order by key desc limit 1"
_WORD = """(
    select '{role}' as role, slot, key from {{schema}}.statements s
    where s.workspace = asked.workspace and s.order_id = asked.order_id and {which}
)"""
_ROLES: Final = {
    "head": f"slot = {Slot.WHOLE:d} {_LAST}",
    "lined": f"slot = {Slot.WHOLE:d} and has_lines {_LAST}",
    "priced": f"slot = {Slot.WHOLE:d} and has_amounts {_LAST}",
    "cancellation": f"slot = {Slot.CANCELLATION:d} {_LAST}",
    "refund": f"slot = {Slot.REFUND:d} {_LAST}",
    "first": "true order by key limit 1",
    "last": f"true {_LAST}",
}
_BOUNDS: Final = ("first", "last")
_WORDS = """
select asked.workspace, asked.order_id, word.role, word.slot, word.key
from unnest($1::text[], $2::text[]) asked (workspace, order_id)
cross join lateral ({words}) word
""".format(words=" union all ".join(_WORD.format(role=r, which=w) for r, w in _ROLES.items()))

_SAID = """
select workspace, order_id, key, said from {schema}.statements
join unnest($1::text[], $2::text[], $3::smallint[], $4::bytea[])
    asked (workspace, order_id, slot, key) using (workspace, order_id, slot, key)
"""

_PARTS = """
select asked.workspace, asked.order_id, part.slot, part.key, part.said
from unnest($1::text[], $2::text[], $3::smallint[]) asked (workspace, order_id, slot)
cross join lateral (
    select slot, key, said from {schema}.statements s
    where s.workspace = asked.workspace and s.order_id = asked.order_id and s.slot = asked.slot
    order by key desc limit 1
) part
"""

_ADD_SUMS = """
insert into {schema}.refund_sums as known (workspace, order_id, kind, of, amount)
select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::numeric[])
on conflict (workspace, order_id, kind, of) do update set amount = known.amount + excluded.amount
"""

_DROP_SUMS = """
delete from {schema}.refund_sums s
using unnest($1::text[], $2::text[], $3::text[], $4::text[]) gone (workspace, order_id, kind, of)
where s.workspace = gone.workspace and s.order_id = gone.order_id and s.kind = gone.kind
    and s.of = gone.of and s.amount = 0
"""

_SUMS = """
select workspace, order_id, kind, of, amount from {schema}.refund_sums
join unnest($1::text[], $2::text[]) asked (workspace, order_id) using (workspace, order_id)
where kind <> 'units'
"""

_UNIT_SUMS = """
select workspace, order_id, kind, of, amount from {schema}.refund_sums
join unnest($1::text[], $2::text[], $3::text[]) asked (workspace, order_id, of)
    using (workspace, order_id, of)
where kind = 'units'
"""

_UNITS = """
select workspace, units from {schema}.orders
join unnest($1::text[], $2::text[]) asked (workspace, order_id) using (workspace, order_id)
"""

_SAVE = """
insert into {schema}.orders (workspace, order_id, state, user_id, anonymous_id, checkout_id,
    currency, total_minor, refund_count, problem_count, order_time, update_time, standing, units,
    lines)
select * from unnest($1::text[], $2::text[], $3::smallint[], $4::text[], $5::text[], $6::text[],
    $7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[], $12::timestamptz[],
    $13::jsonb[], $14::jsonb[], $15::jsonb[])
on conflict (workspace, order_id) do update set
    state = excluded.state, user_id = excluded.user_id, anonymous_id = excluded.anonymous_id,
    checkout_id = excluded.checkout_id, currency = excluded.currency,
    total_minor = excluded.total_minor, refund_count = excluded.refund_count,
    problem_count = excluded.problem_count, order_time = excluded.order_time,
    update_time = excluded.update_time, standing = excluded.standing, units = excluded.units,
    lines = excluded.lines
"""

_DROP = """
delete from {schema}.orders o
using unnest($1::text[], $2::text[]) gone (workspace, order_id)
where o.workspace = gone.workspace and o.order_id = gone.order_id
"""

Place = tuple[str, str]  # workspace, order
Units = dict[Place, tuple[int, int]]  # workspace, product: ordered, refunded besides
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


async def fold(
    tx: Tx,
    schema: str,
    *,
    added: Sequence[tuple[str, str, bytes, Statement]],
    retracted: Sequence[tuple[str, str]],
) -> Units:
    """Adds and takes back statements; returns by how many units that changes products.

    `added` are workspace, message id, key and statement, `retracted` workspaces and message ids.
    """
    sums: Counter[tuple[str, str, str, str]] = Counter()
    touched: set[Place] = set()
    if retracted:
        for workspace, order, said in await tx.fetch(
            _TAKE.format(schema=schema), *columns(retracted)
        ):
            touched.add((workspace, order))
            _count(sums, workspace, _statement(said), -1)
    rows = []
    for workspace, message_id, key, statement in added:
        touched.add((workspace, statement.order))
        _count(sums, workspace, statement, 1)
        said = msgspec.json.encode(statement).decode()
        has = bool(statement.lines), bool(statement.amounts)
        rows.append((workspace, statement.order, statement.slot, key, message_id, *has, said))
    if not touched:
        return {}
    await tx.copy_records_to_table(
        "statements", schema_name=schema, columns=_STATEMENTS, records=rows
    )
    await _save_sums(tx, schema, sums)
    return await _stand(tx, schema, sorted(touched))


def _count(
    sums: Counter[tuple[str, str, str, str]], workspace: str, statement: Statement, sign: int
) -> None:
    """What a refund adds to the sums of its order, or takes from them."""
    if statement.slot != Slot.REFUND:
        return
    order = statement.order
    sums[workspace, order, "count", ""] += sign
    if statement.is_whole_refund:
        sums[workspace, order, "whole", ""] += sign
    amount = amount_refunded(statement)
    if amount is not None:
        sums[workspace, order, "minor", amount.currency] += sign * amount.minor
    for line in statement.lines:
        if line.product and line.quantity:
            sums[workspace, order, "units", line.product] += sign * line.quantity


async def _save_sums(tx: Tx, schema: str, sums: Mapping[tuple[str, str, str, str], int]) -> None:
    rows = [(*place, amount) for place, amount in sorted(sums.items()) if amount]
    if rows:
        changed = columns(rows)
        await tx.execute(_ADD_SUMS.format(schema=schema), *changed)
        await tx.execute(_DROP_SUMS.format(schema=schema), *changed[:4])


async def _stand(tx: Tx, schema: str, touched: Sequence[Place]) -> Units:
    """Says anew how orders stand; returns by how many units that changes products."""
    words, times = await _load_words(tx, schema, touched)
    refunds = await _load_refunds(tx, schema, touched, words)
    units: Units = {}
    for workspace, before in await tx.fetch(_UNITS.format(schema=schema), *columns(touched)):
        for product, (ordered, besides) in json.loads(before).items():
            _add(units, (workspace, product), -ordered, -besides)
    rows, gone = [], []
    for place in touched:
        known = words.get(place)
        if known is None or not (known.head or known.cancellation or known.refund):
            gone.append(place)
            continue
        standing = standing_of(known, refunds.get(place, Refunds()))
        own = {
            product: (ordered, standing.refunded_besides.get(product, 0))
            for product, ordered in standing.ordered.items()
        }
        for product, (ordered, besides) in own.items():
            _add(units, (place[0], product), ordered, besides)
        rows.append(_row(place, standing, own, *times[place]))
    if rows:
        await tx.execute(_SAVE.format(schema=schema), *columns(rows))
    if gone:
        await tx.execute(_DROP.format(schema=schema), *columns(gone))
    return {product: change for product, change in units.items() if any(change)}


def _add(units: Units, product: Place, ordered: int, besides: int) -> None:
    known = units.get(product, (0, 0))
    units[product] = known[0] + ordered, known[1] + besides


async def _load_words(
    tx: Tx, schema: str, touched: Sequence[Place]
) -> tuple[dict[Place, Words], dict[Place, tuple[datetime, datetime]]]:
    """The last words on orders, and when they were first and last named."""
    keys: dict[Place, dict[str, bytes]] = defaultdict(dict)
    needed = set()
    for workspace, order, role, slot, key in await tx.fetch(
        _WORDS.format(schema=schema), *columns(touched)
    ):
        keys[workspace, order][role] = key
        if role not in _BOUNDS:
            needed.add((workspace, order, slot, key))
    # One statement often plays several roles, and is read once.
    said = {}
    if needed:
        for workspace, order, key, text in await tx.fetch(
            _SAID.format(schema=schema), *columns(sorted(needed))
        ):
            said[workspace, order, key] = Word(key, _statement(text))
    found = {
        place: {role: said[*place, key] for role, key in roles.items() if role not in _BOUNDS}
        for place, roles in keys.items()
    }
    asked = [
        (*place, number)
        for place, known in found.items()
        if "lined" in known
        for number in range(2, known["lined"].statement.parts + 1)
    ]
    parts: dict[Place, dict[int, Word]] = defaultdict(dict)
    if asked:
        for workspace, order, slot, key, text in await tx.fetch(
            _PARTS.format(schema=schema), *columns(asked)
        ):
            parts[workspace, order][slot] = Word(key, _statement(text))
    times = {
        place: (occurred(roles["first"]), occurred(roles["last"])) for place, roles in keys.items()
    }
    words = {
        place: Words(
            head=known.get("head"),
            lined=known.get("lined"),
            priced=known.get("priced"),
            cancellation=known.get("cancellation"),
            refund=known.get("refund"),
            parts=parts[place],
        )
        for place, known in found.items()
    }
    return words, times


async def _load_refunds(
    tx: Tx, schema: str, touched: Sequence[Place], words: Mapping[Place, Words]
) -> dict[Place, Refunds]:
    """What was refunded of orders; units only of the products that their lines name."""
    named = {
        (*place, line.product)
        for place, known in words.items()
        for word in (known.lined, known.cancellation, *known.parts.values())
        if word is not None
        for line in word.statement.lines
        if line.product
    }
    records: list[Any] = list(await tx.fetch(_SUMS.format(schema=schema), *columns(touched)))
    if records and named:
        records += await tx.fetch(_UNIT_SUMS.format(schema=schema), *columns(sorted(named)))
    sums: dict[Place, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for workspace, order, kind, of, amount in records:
        sums[workspace, order][kind][of] = int(amount)
    return {
        place: Refunds(
            count=known["count"].get("", 0),
            whole_count=known["whole"].get("", 0),
            minor=known["minor"],
            units=known["units"],
        )
        for place, known in sums.items()
    }


def _row(
    place: Place,
    standing: Standing,
    units: Mapping[str, tuple[int, int]],
    first: datetime,
    last: datetime,
) -> tuple[object, ...]:
    said, total = standing.said, standing.amounts.get("total")
    kept = {
        "affiliation": said.affiliation,
        "coupon": said.coupon,
        "amounts": {name: amount.text for name, amount in standing.amounts.items()},
        "refunded": dict(standing.refunds.minor),
        "problems": standing.problems,
    }
    return (
        *place,
        standing.state,
        said.user_id or None,
        said.anonymous_id or None,
        said.checkout_id or None,
        None if total is None else total.currency,
        None if total is None else total.minor,
        standing.refunds.count,
        standing.problem_count,
        first,
        last,
        msgspec.json.encode(kept).decode(),
        json.dumps(units),
        msgspec.json.encode(standing.lines).decode(),
    )


def occurred(key: bytes) -> datetime:
    """When the customer event with this key happened."""
    return _EPOCH + timedelta(microseconds=int.from_bytes(key[:8], "big"))


def _statement(said: str) -> Statement:
    return msgspec.json.decode(said, type=Statement)
