"""Takes rows that name an erased person out of the files of imports that have not ended.

A file that is still being uploaded cannot be read yet: its parts are dropped, and it is uploaded
from its beginning. Any other is written anew, and put in place of the old one together with the
fact that says so, which fences whoever reads the old one.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections import Counter
from functools import partial
from typing import IO, TYPE_CHECKING

from rapport.events.v1.events_pb2 import ImportFileErased
from rapport.events.v1.import_job_pb2 import ImportFormat, ImportMapping
from services.events.deciders.import_job import CUSTOMER_EVENTS, DECIDER, UPLOADING
from services.events.import_files import RowError, UnreadableFileError
from services.events.import_mapping import Mapper
from services.events.import_rewriting import count_taken, rewrite
from services.events.naming import named_in_row, names
from services.events.projections import importing, uploads
from services.events.projections.imports import IMPORT_ROWS, kept_files
from services.events.upkeep.import_reading import fetch
from services.kernel.erasing.holdings import Gone
from services.kernel.errors import Aborted
from services.kernel.log.database import transaction
from services.kernel.log.log import Append, NewEvent, Origin
from services.kernel.views.view import append_with_views

if TYPE_CHECKING:
    from services.events.import_files import Row
    from services.events.projections.imports import Row as ImportRow
    from services.kernel.erasing.subjects import Erasure, Subject
    from services.kernel.process.runtime import Kernel

CHUNK_BYTES = 1024 * 1024
FILE_TIMEOUT_S = 600.0
SWAP_TIMEOUT_S = 20.0

IMPORT_ROWS_ERASED, UPLOADS_DROPPED = "rows of imported files", "uploads begun"


async def erase_in_files(kernel: Kernel, erasure: Erasure) -> Gone | None:
    """Takes the rows out of the next file that has some; None when no file has any."""
    async with asyncio.timeout(FILE_TIMEOUT_S):
        for import_id in await kept_files(kernel.pool, erasure.workspace):
            row = await IMPORT_ROWS.existing(
                kernel.pool, erasure.workspace, DECIDER.name(import_id)
            )
            if row.state.kind != CUSTOMER_EVENTS:
                continue
            if row.state.state == UPLOADING:
                if await uploads.drop_file(kernel.pool, erasure.workspace, import_id):
                    return Gone(counts=Counter({UPLOADS_DROPPED: 1}))
                continue
            try:
                taken = await _erase_in_file(kernel, erasure, row)
            except Aborted:  # something happened to the import meanwhile: looked at once more
                return Gone()
            if taken:
                return Gone(counts=Counter({IMPORT_ROWS_ERASED: taken}))
    await uploads.drop_staged(kernel.pool, erasure.workspace, erasure.name)
    return None


async def _erase_in_file(kernel: Kernel, erasure: Erasure, row: ImportRow) -> int:
    """Takes rows out of one file, and answers how many."""
    file_format = ImportFormat.FromString(row.state.format)
    takes = partial(_takes, erasure.subject, _mapper_of(row))
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as out:
        try:
            await fetch(kernel.pool, row, file)
            size_bytes = row.state.size_bytes
            taken = await asyncio.to_thread(count_taken, file, size_bytes, file_format, takes)
            if taken:
                await asyncio.to_thread(rewrite, file, size_bytes, file_format, takes, out)
        except UnreadableFileError:
            # Nobody can read who is in it, and no import of it would get any further.
            await uploads.drop_file(kernel.pool, row.workspace, row.aggregate_id)
            return 0
        if taken:
            await _put(kernel, erasure, row, out, taken)
    return taken


async def _put(
    kernel: Kernel, erasure: Erasure, row: ImportRow, file: IO[bytes], taken: int
) -> None:
    """Puts a file in place of the one there was, unless something happened to the import."""
    staged = uploads.staged_id(row.aggregate_id, erasure.name)
    await uploads.drop_file(kernel.pool, row.workspace, staged)
    digest, size_bytes = hashlib.sha256(), 0
    file.seek(0)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        digest.update(chunk)
        await uploads.add_chunk(kernel.pool, row.workspace, staged, size_bytes, chunk)
        size_bytes += len(chunk)
    fact = ImportFileErased(size_bytes=size_bytes, sha256=digest.digest(), rows=taken)
    origin = Origin(row.workspace, erasure.name, erasure.name, causation_id="")
    append = Append(origin, DECIDER.stream(row.aggregate_id), [NewEvent(fact)], row.version)
    async with asyncio.timeout(SWAP_TIMEOUT_S), transaction(kernel.pool) as tx:
        await append_with_views(tx, kernel.log, kernel.views, [append])
        await uploads.put_in_place(tx, row.workspace, row.aggregate_id, staged, size_bytes)
        await importing.fence(tx, row.workspace, row.aggregate_id)


def _mapper_of(row: ImportRow) -> Mapper | None:
    if not row.state.mapping:
        return None
    mapping = ImportMapping.FromString(row.state.mapping)
    return Mapper.of(mapping, DECIDER.name(row.aggregate_id))


def _takes(subject: Subject, mapper: Mapper | None, number: int, row: Row) -> bool:
    """Whether a row names a person: by what it is mapped to, or by what its columns are called."""
    if subject.is_named(named_in_row(row)):
        return True
    mapped = None if mapper is None else mapper.mapped(number, row)
    return mapped is not None and not isinstance(mapped, RowError) and names(subject, mapped)
