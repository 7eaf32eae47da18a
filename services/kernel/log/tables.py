"""The kernel's own tables in a service's database, and how they come to be.

`kernel.events` is the truth. `requests` is kept for ever, too: it is the promise of idempotency.
`states` is a mere cache of folded streams, `checkpoints`, `parked` and `generations` belong to
consumers and views. `erasures` and `erased_subjects` are the register of whom nothing may be left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.kernel.log.sql import Tx

# Two processes of one service may start at once; schema changes wait for each other on this key.
SCHEMA_LOCK_KEY = 7_267_767_678

KERNEL_TABLES = """
create schema if not exists kernel;

create table if not exists kernel.heads (
    partition int primary key,
    position bigint not null,
    record_time timestamptz not null default '-infinity'
);

create table if not exists kernel.events (
    partition int not null,
    position bigint not null,
    workspace text not null,
    stream text not null,
    version bigint not null,
    event_id uuid not null,
    type text not null,
    data bytea not null,
    actor text not null,
    correlation_id text not null,
    causation_id text not null,
    occur_time timestamptz not null,
    record_time timestamptz not null,
    primary key (partition, position),
    unique (workspace, stream, version),
    unique (event_id)
);

create table if not exists kernel.requests (
    workspace text not null,
    request_id text not null,
    method text not null,
    fingerprint bytea not null,
    response bytea not null,
    record_time timestamptz not null,
    primary key (workspace, request_id)
);

create table if not exists kernel.states (
    workspace text not null,
    stream text not null,
    version bigint not null,
    create_time timestamptz not null,
    update_time timestamptz not null,
    shape int not null,
    state bytea not null,
    primary key (workspace, stream)
);

create table if not exists kernel.claims (
    workspace text not null,
    scope text not null,
    key text not null,
    stream text not null,
    primary key (workspace, scope, key)
);

create table if not exists kernel.checkpoints (
    consumer text not null,
    generation int not null,
    source text not null,
    partition int not null,
    position bigint not null,
    epoch bigint not null,
    owner text not null,
    lease_until timestamptz not null,
    primary key (consumer, generation, source, partition)
);

create table if not exists kernel.parked (
    consumer text not null,
    source text not null,
    partition int not null,
    position bigint not null,
    workspace text not null,
    stream text not null,
    type text not null,
    reason text not null,
    attempts int not null,
    park_time timestamptz not null,
    primary key (consumer, source, partition, position)
);

create table if not exists kernel.generations (
    view text not null,
    generation int not null,
    shape int not null,
    status text not null,
    create_time timestamptz not null,
    swap_time timestamptz,
    primary key (view, generation)
);

create table if not exists kernel.erasures (
    workspace text not null,
    erasure text collate "C" not null,
    key_time timestamptz not null,
    key_event_id uuid not null,
    hashes text[] not null,
    nodes text[] not null,
    stage int not null,
    counts jsonb not null,
    also jsonb not null,
    feed_partition int not null,
    feed_position bigint not null,
    problem text not null default '',
    notes text[] not null default '{}',
    primary key (workspace, erasure)
);

create table if not exists kernel.erased_subjects (
    workspace text not null,
    hash text collate "C" not null,
    key_time timestamptz not null,
    key_event_id uuid not null,
    erasure text not null,
    primary key (workspace, hash)
);

-- What was there before these columns gets each of them without being rewritten.
do $$ declare
    missing text;
begin
    for missing in
        select format('alter table %s add column %I %s', added.owner, added.name, added.kind)
        from (values
            ('kernel.events', 'erasure', 'text'),
            ('kernel.heads', 'sealed_time', 'timestamptz not null default ''-infinity'''),
            ('kernel.requests', 'unchanged', 'text[]')
        ) added (owner, name, kind)
        where not exists (
            select from pg_attribute
            where attrelid = added.owner::regclass and attname = added.name
        )
    loop
        execute missing;
    end loop;
    if to_regclass('kernel.events_erased') is null then
        create index events_erased on kernel.events (workspace, erasure, partition, position)
            where erasure is not null;
    end if;
    if to_regclass('kernel.requests_unchanged') is null then
        create index requests_unchanged on kernel.requests using gin (unchanged)
            where unchanged is not null;
    end if;
end $$;

-- The one change that there is: an erasure takes what an event says.
create or replace function kernel.refuse_change() returns trigger language plpgsql as $$
begin
    if tg_op = 'UPDATE' then
        if new.erasure is not null and (old.erasure is null or old.data <> '')
            and (new.stream = old.stream or new.stream ~ '^erased-[0-9a-f]{32}$')
            and (new.partition, new.position, new.workspace, new.version, new.event_id, new.type,
                 new.actor, new.correlation_id, new.causation_id, new.occur_time,
                 new.record_time)
              = (old.partition, old.position, old.workspace, old.version, old.event_id, old.type,
                 old.actor, old.correlation_id, old.causation_id, old.occur_time,
                 old.record_time)
        then
            return new;
        end if;
    end if;
    raise exception 'the log is append-only: % on kernel.events is refused', tg_op;
end $$;

-- Not `create or replace trigger`: it would wait for a vacuum, and all writers behind it.
do $$ begin
    if not exists (
        select from pg_trigger
        where tgrelid = 'kernel.events'::regclass and tgname = 'events_are_not_truncated'
    ) then
        create trigger events_are_facts before update or delete on kernel.events
            for each row execute function kernel.refuse_change();
        create trigger events_are_not_truncated before truncate on kernel.events
            for each statement execute function kernel.refuse_change();
    end if;
end $$;
"""

_ADD_HEADS = """
insert into kernel.heads (partition, position)
select partition, 0 from generate_series(0, $1::int - 1) partition
on conflict do nothing
"""

_COUNT_HEADS = "select count(*) from kernel.heads"


class PartitionCountError(Exception):
    """When the configured number of partitions is not the one the log was made with."""


async def create_kernel_tables(connection: Tx, partitions: int) -> None:
    """Create what is missing; PartitionCountError when the log was born with other partitions."""
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", SCHEMA_LOCK_KEY)
        await connection.execute(KERNEL_TABLES)
        count = await connection.fetchval(_COUNT_HEADS)
        if count not in (0, partitions):
            raise PartitionCountError(
                f"the log has {count} partitions, the configuration {partitions}"
            )
        await connection.execute(_ADD_HEADS, partitions)


async def create_tables(connection: Tx, statements: str) -> None:
    """Create a service's tables that are no view's, by statements that may be repeated."""
    if statements:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", SCHEMA_LOCK_KEY)
            await connection.execute(statements)
