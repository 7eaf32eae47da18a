"""`make import`: imports a file into the platform that `make up` runs, and shows how it goes.

    make import FILE=orders.csv                       by a mapping that is suggested, and shown
    make import FILE=orders.csv MAPPING=orders.json   by a mapping of one's own, in JSON
    make import FILE=orders.csv SOURCE=sources/shop   as that source's
    make import FILE=orders.csv CHECK=1               only tells what would become of each row
    make import UNDO=imports/7                        retracts what an import recorded

Exits 1 when something was wrong with a row, or with the import.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format

from deploy.demo.door import open_door, reason_of
from deploy.stack.errors import StackError
from deploy.stack.platform import running_platform
from deploy.stack.settings import Settings
from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import ImportFileType, ImportFormat, ImportMapping
from services.kernel.errors import RapportError

CHUNK_BYTES: Final = 1024 * 1024
ROW_ERRORS_SHOWN: Final = 10
LOOK_INTERVAL_S: Final = 0.5

_TYPES: Final = {
    ".csv": ImportFileType.IMPORT_FILE_TYPE_CSV,
    ".jsonl": ImportFileType.IMPORT_FILE_TYPE_JSONL,
    ".ndjson": ImportFileType.IMPORT_FILE_TYPE_JSONL,
    ".parquet": ImportFileType.IMPORT_FILE_TYPE_PARQUET,
}
_WORKING: Final = (
    pb.ImportState.IMPORT_STATE_CHECKING,
    pb.ImportState.IMPORT_STATE_RUNNING,
    pb.ImportState.IMPORT_STATE_UNDOING,
)

Ask = Callable[[Any, Any], Awaitable[Any]]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to have imported, or undone."""

    file: Path | None = None
    mapping: Path | None = None
    source: str = ""
    check_only: bool = False
    undo: str = ""


@dataclass(frozen=True, slots=True)
class Importing:
    """One import on its way, told line by line. `ask` asks a method of `stub` until it answers."""

    stub: Any
    ask: Ask
    say: Say

    async def run(self, wish: Wish) -> bool:
        """Does what is wished for; tells whether nothing was wrong."""
        if wish.undo:
            return await self._undo(wish.undo)
        assert wish.file is not None
        name = await self._uploaded(wish.file, wish.source)
        await self._map(name, wish.mapping)
        await self.ask(self.stub.CheckImport, pb.CheckImportRequest(name=name, request_id=_id()))
        shown = await self._until_over(name, "check")
        is_whole = not shown.reason
        if is_whole and not wish.check_only:
            start = pb.StartImportRequest(name=name, request_id=_id())
            await self.ask(self.stub.StartImport, start)
            shown = await self._until_over(name, "progress")
        await self._say_errors(name)
        self.say(f"{name} is {_state(shown)}{_because(shown)}")
        counts = (shown.check if wish.check_only else shown.progress).counts
        return not (shown.reason or counts.refused or counts.unmapped)

    async def _uploaded(self, file: Path, source: str) -> str:
        create = pb.CreateImportRequest(
            display_name=file.name,
            source=source,
            format=ImportFormat(type=type_of(file)),
            request_id=_id(),
        )
        name: str = (await self.ask(self.stub.CreateImport, create)).import_job.name
        digest, place = hashlib.sha256(), 0
        with file.open("rb") as opened:
            while chunk := await asyncio.to_thread(opened.read, CHUNK_BYTES):
                digest.update(chunk)
                part = pb.UploadImportChunkRequest(name=name, offset_bytes=place, chunk=chunk)
                place = (await self.ask(self.stub.UploadImportChunk, part)).uploaded_bytes
        finish = pb.FinishImportUploadRequest(
            name=name, size_bytes=place, sha256=digest.digest(), request_id=_id()
        )
        await self.ask(self.stub.FinishImportUpload, finish)
        self.say(f"{name} has {place} bytes of {file.name}")
        return name

    async def _map(self, name: str, mapping_file: Path | None) -> None:
        if mapping_file is None:
            suggest = pb.SuggestImportMappingRequest(name=name)
            mapping = (await self.ask(self.stub.SuggestImportMapping, suggest)).mapping
            for field in mapping.fields:
                self.say(f"  {field.target:32} {field.column or repr(field.constant)}")
        else:
            text = await asyncio.to_thread(mapping_file.read_text, encoding="utf-8")
            mapping = json_format.Parse(text, ImportMapping())
        request = pb.MapImportRequest(name=name, mapping=mapping, request_id=_id())
        await self.ask(self.stub.MapImport, request)

    async def _undo(self, name: str) -> bool:
        request = pb.UndoImportRequest(name=name, request_id=_id())
        await self.ask(self.stub.UndoImport, request)
        shown = await self._until_over(name, "")
        self.say(f"{name} is {_state(shown)}: {shown.retracted} customer events were retracted")
        return True

    async def _until_over(self, name: str, work: str) -> pb.Import:
        """Says how far a work is, whenever there is something new, until it is over."""
        told = ""
        while True:
            shown: pb.Import = (
                await self.ask(self.stub.GetImport, pb.GetImportRequest(name=name))
            ).import_job
            line = _progress(work, getattr(shown, work)) if work else ""
            if line != told:
                self.say(line)
            told = line
            if shown.state not in _WORKING:
                return shown
            await asyncio.sleep(LOOK_INTERVAL_S)

    async def _say_errors(self, name: str) -> None:
        request = pb.ListImportRowErrorsRequest(name=name, page_size=ROW_ERRORS_SHOWN)
        listed = await self.ask(self.stub.ListImportRowErrors, request)
        for error in listed.row_errors:
            where = f"{error.column}: " if error.column else ""
            self.say(f"  row {error.row:<8} {error.reason:20} {where}{error.detail}")
        if listed.next_page_token:
            self.say("  … and more")


def type_of(file: Path) -> ImportFileType.ValueType:
    """How a file is written, by its name; raises ValueError."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    found = _TYPES.get(suffixes[-1] if suffixes else "")
    if found is None:
        raise ValueError(f"{file.name} must end in {', '.join(_TYPES)}, or that and .gz")
    return found


def _progress(work: str, progress: pb.ImportProgress) -> str:
    counts = progress.counts
    told = " ".join(f"{field.name} {value}" for field, value in counts.ListFields())
    return f"{work:9} {told or 'rows 0'} · {progress.rows_per_s:.0f} rows/s"


def _state(shown: pb.Import) -> str:
    return pb.ImportState.Name(shown.state).removeprefix("IMPORT_STATE_")


def _because(shown: pb.Import) -> str:
    return f": {shown.reason}, {shown.detail}" if shown.reason else ""


def _id() -> str:
    return str(uuid.uuid4())


def _wish(words: list[str]) -> Wish:
    parser = argparse.ArgumentParser(prog="make import")
    parser.add_argument("--file", type=lambda text: Path(text).expanduser())
    parser.add_argument("--mapping", type=lambda text: Path(text).expanduser())
    parser.add_argument("--source", default="")
    parser.add_argument("--check-only", action="store_true")
    parser.add_argument("--undo", default="")
    asked = Wish(**vars(parser.parse_args(words)))
    if not asked.undo and asked.file is None:
        parser.error("say FILE=… or UNDO=imports/…")
    return asked


async def _run(dev: dict[str, Any], wish: Wish) -> bool:
    async with open_door(dev) as door:
        return await Importing(door.imports, door.ask, print).run(wish)


def main() -> int:
    """Runs in the terminal; 1 when there is no platform, or something was wrong."""
    try:
        settings, wish = Settings.from_env(), _wish(sys.argv[1:])
        dev = running_platform(settings.data_dir)
        if dev is None:
            print("No platform runs here: start it with `make up`.")
            return 1
        return 0 if asyncio.run(_run(dev, wish)) else 1
    except RapportError as error:
        print(reason_of(error))
    except (StackError, OSError, ValueError, json_format.ParseError) as error:
        print(error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
