"""Writes streams of a running service as golden histories, for test_histories.py.

    python tests/contract/record_history.py deals acme "$RAPPORT_DATABASE_URL" \
        deal-looms pipeline-sales > tests/contract/histories/deals/0.1-streams.json

Say the service, the workspace, the service's database and the streams. A history is written once,
by the release it is named for, and never edited: it stands for streams that exist out there.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import sys

import msgspec
from google.protobuf.json_format import MessageToDict

from services.kernel.log.log import read_stream
from services.kernel.process.runtime import open_pool


def decider_of(service, stream):
    """The decider of a stream; where a service has but one, it is that of all its streams."""
    package = importlib.import_module(f"services.{service}")
    if "decider" in {module.name for module in pkgutil.iter_modules(package.__path__)}:
        return importlib.import_module(f"services.{service}.decider").DECIDER
    folder = importlib.import_module(f"services.{service}.deciders")
    modules = [
        importlib.import_module(f"services.{service}.deciders.{module.name}")
        for module in pkgutil.iter_modules(folder.__path__)
    ]
    deciders = [module.DECIDER for module in modules if hasattr(module, "DECIDER")]
    return next(each for each in deciders if each.category == stream.partition("-")[0])


def event_types_of(service):
    """The types of a service's events, with today's upcasters."""
    return importlib.import_module(f"services.{service}.__main__").SERVICE.event_types


def replayed(service, envelopes):
    """What today's code makes of a stream: the state, and the unique values it holds."""
    decider = decider_of(service, envelopes[0].stream)
    event_types = event_types_of(service)
    state = decider.fold([recorded.event for recorded in event_types.decode_all(envelopes)])
    claims = sorted([claim.scope, claim.key] for claim in decider.claims(state))
    return {"state": json.loads(msgspec.json.encode(state)), "claims": claims}


async def recorded(pool, service, workspace, stream):
    """A stream as a golden history."""
    envelopes = await read_stream(pool, workspace, stream)
    return {
        "service": service,
        **replayed(service, envelopes),
        "events": [MessageToDict(envelope) for envelope in envelopes],
    }


async def main(service, workspace, database_url, *streams):
    async with open_pool(database_url) as pool:
        histories = [await recorded(pool, service, workspace, stream) for stream in streams]
    json.dump(histories, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
