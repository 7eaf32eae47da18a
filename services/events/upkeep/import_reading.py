"""The file of an import as a worker reads it: fetched into a temporary file, mapped in a thread."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import IO, TYPE_CHECKING, Generic, Protocol, TypeVar

from google.protobuf.message import Message

from rapport.events.v1.import_job_pb2 import ImportFormat
from services.events.import_files import OpenFile, RowError, UnreadableFileError, open_file
from services.events.projections.importing import FoundError
from services.events.projections.uploads import chunk_at

if TYPE_CHECKING:
    from asyncpg import Pool

    from services.events.import_files import Row
    from services.events.projections.imports import Row as ImportRow

ROWS_PER_BATCH_MAX = 500
# Of what the rows of a batch become; a customer event that is too long is refused by itself.
BATCH_BYTES_MAX = 2 * 1024 * 1024
ROWS_PER_SKIP_MAX = 20_000
CHUNKS_PER_SIGN_OF_LIFE = 16
READ_TIMEOUT_S = 60.0

SignOfLife = Callable[[], Awaitable[None]]
T = TypeVar("T")
M = TypeVar("M", bound=Message)
M_co = TypeVar("M_co", bound=Message, covariant=True)


class RowMapper(Protocol[M_co]):
    """Makes of rows what the kind of their import says."""

    def mapped(self, number: int, row: Row, /) -> M_co | RowError:
        """What the row with this number is, or why it is nothing."""
        ...

    def missing(self, columns: Iterable[str]) -> list[str]:
        """The columns that are needed and a file with these columns has not."""
        ...


@dataclass(slots=True)
class Rows(Generic[M]):
    """The next rows of a file: what they become, by row, and what was wrong with the other rows.

    `problem` says why the file cannot be read on after them.
    """

    mapped: list[tuple[int, M]] = field(default_factory=list)
    errors: list[FoundError] = field(default_factory=list)
    read_bytes: int = 0
    is_last: bool = False
    problem: UnreadableFileError | None = None

    @property
    def count(self) -> int:
        """How many rows they are."""
        return len(self.mapped) + len(self.errors)


@dataclass(slots=True)
class Reading(Generic[M]):
    """An open file on its way from row to row; `number` is that of the last row read."""

    opened: OpenFile
    mapper: RowMapper[M]
    number: int = 0

    async def skip(self, rows: int, sign_of_life: SignOfLife) -> None:
        """Goes past the rows that were read before."""
        while self.number < rows:
            size = min(rows - self.number, ROWS_PER_SKIP_MAX)
            await _in_thread(partial(_read_past, self.opened, size))
            self.number += size
            await sign_of_life()

    async def next(self) -> Rows[M]:
        """The next rows: the same ones whenever the file is read on from here."""
        return await _in_thread(self._take)

    def _take(self) -> Rows[M]:
        rows: Rows[M] = Rows()
        size_bytes = 0
        try:
            while rows.count < ROWS_PER_BATCH_MAX and size_bytes < BATCH_BYTES_MAX:
                row = next(self.opened.rows, None)
                if row is None:
                    rows.is_last = True
                    break
                self.number += 1
                mapped = self._mapped(row)
                if isinstance(mapped, RowError):
                    rows.errors.append(FoundError(self.number, mapped))
                else:
                    rows.mapped.append((self.number, mapped))
                    size_bytes += mapped.ByteSize()
        except UnreadableFileError as problem:
            rows.problem = problem
        rows.read_bytes = self.opened.read_bytes()
        return rows

    def _mapped(self, row: Row | RowError) -> M | RowError:
        return row if isinstance(row, RowError) else self.mapper.mapped(self.number, row)


@asynccontextmanager
async def reading(
    pool: Pool, row: ImportRow, mapper: RowMapper[M], sign_of_life: SignOfLife
) -> AsyncIterator[Reading[M]]:
    """Fetches the file of an import and opens it; raises UnreadableFileError."""
    state = row.state
    with tempfile.TemporaryFile() as file:
        await fetch(pool, row, file, sign_of_life)
        file_format = ImportFormat.FromString(state.format)
        opened = await _in_thread(partial(open_file, file, state.size_bytes, file_format))
        missing = mapper.missing(opened.columns) if opened.columns else []
        if missing:
            raise UnreadableFileError("COLUMN_MISSING", f"the file has no column {missing[0]!r}")
        yield Reading(opened, mapper)


async def _alone() -> None:
    """Nobody else would take over."""


async def fetch(
    pool: Pool, row: ImportRow, file: IO[bytes], sign_of_life: SignOfLife = _alone
) -> None:
    """Copies the file of an import; raises UnreadableFileError when it is another."""
    digest = hashlib.sha256()
    place, chunks = 0, 0
    while place < row.state.size_bytes:
        chunk = await chunk_at(pool, row.workspace, row.aggregate_id, place)
        if chunk is None:
            break
        await _in_thread(partial(_keep, file, digest, chunk))
        place += len(chunk)
        chunks += 1
        if chunks % CHUNKS_PER_SIGN_OF_LIFE == 0:
            await sign_of_life()
    if digest.digest() != row.state.sha256:
        raise UnreadableFileError("FILE_CORRUPT", "the file is not the one that was uploaded")
    file.seek(0)


def _keep(file: IO[bytes], digest: hashlib._Hash, chunk: bytes) -> None:
    file.write(chunk)
    digest.update(chunk)


def _read_past(opened: OpenFile, rows: int) -> None:
    for _ in islice(opened.rows, rows):
        pass


async def _in_thread(work: Callable[[], T]) -> T:
    async with asyncio.timeout(READ_TIMEOUT_S):
        return await asyncio.to_thread(work)
