"""A small file is imported: checked, recorded, and taken back."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from deploy.demo.door import Door, with_request_id
from deploy.demo.story import Person, hold
from deploy.demo.telling import Teller, pieces
from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import ImportFileType, ImportFormat

LOOK_INTERVAL_S: Final = 0.1
OVER_WITHIN_S: Final = 60.0

_WORKING: Final = frozenset(
    {
        pb.ImportState.IMPORT_STATE_CHECKING,
        pb.ImportState.IMPORT_STATE_RUNNING,
        pb.ImportState.IMPORT_STATE_UNDOING,
    }
)
# The last row's time is none.
_FILE: Final = """event,user_id,timestamp,branch
Store Visited,{user_id},2025-03-01T10:00:00Z,Harbour
Store Visited,{user_id},2025-03-08T11:30:00Z,Harbour
Store Visited,{user_id},2025-03-15T09:45:00Z,Old Town
Store Visited,{user_id},last Tuesday,Harbour
"""
_ROWS: Final = 4


async def imported_and_undone(door: Door, teller: Teller, source: str, person: Person) -> None:
    """Tells it all."""
    name = await _uploaded(door, source, person)
    check = with_request_id(pb.CheckImportRequest(name=name))
    await door.ask(door.imports.CheckImport, check)
    checked = (await _over(door, name)).check.counts
    hold(
        (checked.rows, checked.accepted, checked.unmapped) == (_ROWS, _ROWS - 1, 1),
        f"a check tells what would become of each row: {checked}",
    )
    listing = pb.ListImportRowErrorsRequest(name=name)
    errors = (await door.ask(door.imports.ListImportRowErrors, listing)).row_errors
    hold([error.row for error in errors] == [_ROWS], f"the last row is wrong: {errors}")
    wrong = f'row {errors[0].row}: {errors[0].reason} "{errors[0].excerpt}"'
    teller.step("import", f"{name}, {pieces(_ROWS, 'rows')} of CSV, checked: {wrong}")

    start = with_request_id(pb.StartImportRequest(name=name))
    await door.ask(door.imports.StartImport, start)
    done = await _over(door, name)
    hold(done.state == pb.ImportState.IMPORT_STATE_DONE, f"the import is done: {done}")
    hold(done.progress.counts == checked, f"it did what was checked: {done.progress}")
    undo = with_request_id(pb.UndoImportRequest(name=name))
    await door.ask(door.imports.UndoImport, undo)
    undone = await _over(door, name)
    hold(undone.state == pb.ImportState.IMPORT_STATE_UNDONE, f"the import is undone: {undone}")
    hold(undone.retracted == checked.accepted, f"all of it was retracted: {undone}")
    teller.step("", f"{checked.accepted} recorded; undone: {undone.retracted} retracted")


async def _uploaded(door: Door, source: str, person: Person) -> str:
    """A complete file with the mapping that is suggested for it."""
    content = _FILE.format(user_id=person.user_id).encode()
    create = pb.CreateImportRequest(
        import_id=f"demo-{person.run}",
        display_name="Visits of the demo",
        source=source,
        format=ImportFormat(type=ImportFileType.IMPORT_FILE_TYPE_CSV),
    )
    created = await door.ask(door.imports.CreateImport, with_request_id(create))
    name: str = created.import_job.name
    part = pb.UploadImportChunkRequest(name=name, chunk=content)
    await door.ask(door.imports.UploadImportChunk, part)
    finish = pb.FinishImportUploadRequest(
        name=name, size_bytes=len(content), sha256=hashlib.sha256(content).digest()
    )
    await door.ask(door.imports.FinishImportUpload, with_request_id(finish))
    suggest = pb.SuggestImportMappingRequest(name=name)
    mapping = (await door.ask(door.imports.SuggestImportMapping, suggest)).mapping
    request = with_request_id(pb.MapImportRequest(name=name, mapping=mapping))
    await door.ask(door.imports.MapImport, request)
    return name


async def _over(door: Door, name: str) -> pb.Import:
    """The import once nothing is done with its file any more."""
    async with asyncio.timeout(OVER_WITHIN_S):
        while True:
            request = pb.GetImportRequest(name=name)
            found = (await door.ask(door.imports.GetImport, request)).import_job
            if found.state not in _WORKING:
                return found
            await asyncio.sleep(LOOK_INTERVAL_S)
