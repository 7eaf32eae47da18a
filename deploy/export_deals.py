"""`make export-deals`: writes the deals of the platform that `make up` runs into a file.

    make export-deals FILE=deals.csv              a row per deal
    make export-deals FILE=changes.csv CHANGES=1  a row per change: all that ever happened to them
    make export-deals FILE=deals.csv AT=2026-03-01T00:00:00Z FILTER='state = "WON"'

`make import-deals` reads either file again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from deploy.deal_files.sending import Ask
from deploy.deal_files.values import moment_of
from deploy.demo.door import open_door, reason_of
from deploy.demo.telling import pieces
from deploy.stack.errors import StackError
from deploy.stack.platform import running_platform
from deploy.stack.settings import Settings
from rapport.deals.v1 import exports_pb2 as pb
from services.kernel.errors import RapportError
from services.kernel.log.recorded import timestamp_of

WITHIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to have in which file."""

    file: Path
    changes: bool = False
    at: str = ""
    filter: str = ""


async def export(stub: Any, ask: Ask, wish: Wish) -> int:
    """Writes the file, whole or not at all; returns how many deals it tells of."""
    layout = pb.DEAL_EXPORT_LAYOUT_CHANGES if wish.changes else pb.DEAL_EXPORT_LAYOUT_DEALS
    request = pb.ExportDealsRequest(layout=layout, filter=wish.filter)
    if wish.at:
        request.read_time.CopyFrom(timestamp_of(moment_of(wish.at)))
    partial = wish.file.with_name(f"{wish.file.name}.part")
    count = 0
    try:
        with partial.open("w", encoding="utf-8", newline="") as opened:
            while True:
                page: pb.ExportDealsResponse = await ask(stub.ExportDeals, request)
                opened.write(page.csv)
                count += page.deal_count
                if not page.next_page_token:
                    break
                request.page_token = page.next_page_token
                request.read_time.CopyFrom(page.read_time)
        partial.replace(wish.file)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _wish(words: Sequence[str]) -> Wish:
    parser = argparse.ArgumentParser(prog="make export-deals")
    parser.add_argument("--file", type=lambda text: Path(text).expanduser())
    parser.add_argument("--changes", action="store_true")
    parser.add_argument("--at", default="")
    parser.add_argument("--filter", default="")
    said = parser.parse_args(words)
    if said.file is None:
        parser.error("say FILE=…")
    return Wish(**vars(said))


async def _run(dev: dict[str, Any], wish: Wish) -> int:
    async with open_door(dev) as door:

        async def ask(method: Any, request: Any) -> Any:
            return await door.ask(method, request, within_s=WITHIN_S)

        return await export(door.deal_exports, ask, wish)


def main() -> int:
    """Runs in the terminal; 1 when there is no platform, or it refused."""
    try:
        settings, wish = Settings.from_env(), _wish(sys.argv[1:])
        dev = running_platform(settings.data_dir)
        if dev is None:
            print("No platform runs here: start it with `make up`.")
            return 1
        print(f"{wish.file} has {pieces(asyncio.run(_run(dev, wish)), 'deals')}")
    except RapportError as error:
        print(reason_of(error))
    except KeyboardInterrupt:
        print("Stopped by hand; nothing was written")
    except (StackError, OSError, ValueError) as error:
        print(error)
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
