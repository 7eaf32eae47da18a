"""Writes a stream of a running service as a golden history, for test_histories.py.

    python tests/contract/record_history.py contacts acme ada "$RAPPORT_DATABASE_URL" \
        > tests/contract/histories/contacts-0.1-archived.json

Say the service, the workspace, the aggregate's id and the service's database. A history is written
once, by the release it is named for, and never edited: it stands for streams that exist out there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys

import asyncpg
import msgspec
from google.protobuf.json_format import MessageToDict

from services.kernel.log.log import read_stream


def rules_of(service):
    """The decider of a service, and the types of its events with today's upcasters."""
    decider = importlib.import_module(f"services.{service}.decider").DECIDER
    declared = importlib.import_module(f"services.{service}.__main__").SERVICE
    return decider, declared.event_types


def replayed(service, envelopes):
    """What today's code makes of a stream: the state, and the unique values it holds."""
    decider, event_types = rules_of(service)
    state = decider.fold([event_types.decode(envelope).event for envelope in envelopes])
    claims = sorted([claim.scope, claim.key] for claim in decider.claims(state))
    return {"state": msgspec.to_builtins(state), "claims": claims}


async def recorded(pool, service, workspace, aggregate_id):
    """A stream as a golden history."""
    decider, _ = rules_of(service)
    envelopes = await read_stream(pool, workspace, decider.stream(aggregate_id))
    return {
        "service": service,
        **replayed(service, envelopes),
        "events": [MessageToDict(envelope) for envelope in envelopes],
    }


async def main(service, workspace, aggregate_id, database_url):
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        history = await recorded(pool, service, workspace, aggregate_id)
    json.dump(history, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
