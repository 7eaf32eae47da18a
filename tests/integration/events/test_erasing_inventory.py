"""Where anything of a person may be kept, column by column: a new one fails until it is decided.

Each column that can hold a text, bytes or JSON has one of these fates when a person is erased.
"""

import asyncpg

from services.events.__main__ import SERVICE

# The kernel overwrites it, or drops the row, with the event that it came from.
KERNEL = "kernel"
# Goes with the row of the message, order or product, in every generation of the view.
FORGOTTEN = "forgotten"
# Goes step by step, outside the log.
REST = "rest"
# A keyed hash, of which nobody makes the value again.
HASH = "hash"
# Words of those who run the platform, about what they set up.
STAFF = "staff"
# Ours: made up by the platform, or one of a few words.
OURS = "ours"

FATES = {
    "customer_events.customer_events": {
        FORGOTTEN: "message_id name user_id anonymous_id group_id",
        STAFF: "source import_name",
    },
    "customer_events.counts": {FORGOTTEN: "name", STAFF: "source", OURS: "reason"},
    "commerce.statements": {FORGOTTEN: "order_id key message_id said"},
    "commerce.refund_sums": {FORGOTTEN: "order_id of", OURS: "kind"},
    "commerce.orders": {
        FORGOTTEN: "order_id user_id anonymous_id checkout_id currency standing units lines"
    },
    "commerce.mentions": {FORGOTTEN: "product_id key message_id said problems"},
    "commerce.products": {
        FORGOTTEN: "product_id said first_key last_key problem_counts display_name sku brand "
        "category variant currency url image_url",
        STAFF: "entry",
    },
    "quarantine.quarantined_events": {
        FORGOTTEN: "message_id name user_id anonymous_id group_id paths",
        STAFF: "source import_name tracking_plan",
        OURS: "rules",
    },
    "door.turned_away": {REST: "name", STAFF: "source", OURS: "reason"},
    "importing.chunks": {REST: "chunk", OURS: "import_id"},
    "importing.row_errors": {
        REST: "detail excerpt",
        STAFF: "column_name",
        OURS: "import_id work row_key reason",
    },
    # The message id is the place of an undo that goes on, and dropped when it has ended.
    "importing.progress": {REST: "after_message_id", OURS: "import_id work owner"},
    "erasing.looks": {OURS: "look", HASH: "mark"},
    "erasing.found": {OURS: "look"},
    "imports.imports": {
        STAFF: "import_id display_name source format mapping detail",
        OURS: "reason",
        HASH: "sha256",
    },
    "sources.sources": {STAFF: "source_id display_name settings", OURS: "key_ids"},
    "sources.write_keys": {STAFF: "source_id", OURS: "key_id", HASH: "secret_hash"},
    "suppressions.suppressions": {HASH: "suppression_id", OURS: "type"},
    "tracking_plans.tracking_plans": {STAFF: "tracking_plan_id display_name draft published"},
    "tracking_plans.versions": {STAFF: "tracking_plan_id content"},
    "transformations.transformations": {STAFF: "transformation_id display_name settings"},
    "retention_rules.retention_rules": {STAFF: "retention_rule_id display_name settings"},
    "webhooks.webhooks": {
        STAFF: "webhook_id display_name source signature mapping",
        OURS: "address_id secret_id",
    },
    "webhooks.secrets": {STAFF: "webhook_id sealed", OURS: "secret_id"},
    "kernel.events": {
        KERNEL: "data stream",
        OURS: "type erasure correlation_id causation_id",
        STAFF: "actor",
    },
    "kernel.requests": {
        KERNEL: "response fingerprint unchanged",
        OURS: "request_id method",
    },
    "kernel.states": {KERNEL: "state", OURS: "stream"},
    "kernel.claims": {KERNEL: "key stream", OURS: "scope"},
    "kernel.parked": {KERNEL: "stream reason", OURS: "consumer source type"},
    "kernel.checkpoints": {OURS: "consumer source owner"},
    "kernel.generations": {OURS: "view status"},
    "kernel.erasures": {
        HASH: "hashes nodes",
        OURS: "erasure counts problem notes",
        KERNEL: "also",
    },
    "kernel.erased_subjects": {HASH: "hash", OURS: "erasure"},
}

COLUMNS = """
select n.nspname || '.' || c.relname as name, a.attname as column
from pg_attribute a join pg_class c on c.oid = a.attrelid
join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and n.nspname !~ '^(pg_|information_schema)' and a.attnum > 0
    and not a.attisdropped and a.attname <> 'workspace'
    and format_type(a.atttypid, null) ~ '^(text|bytea|json|character)'
"""


async def test_every_column_has_a_fate(database_of):
    connection = await asyncpg.connect(await database_of(SERVICE))
    try:
        found = {tuple(row) for row in await connection.fetch(COLUMNS)}
    finally:
        await connection.close()
    decided = {
        (table, column)
        for table, fates in FATES.items()
        for columns in fates.values()
        for column in columns.split()
    }

    assert set() == found - decided, "decide what becomes of these when a person is erased"
    assert set() == decided - found
