"""What the events service answers about imports."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import ImportFormat
from rapport.events.v1.imports_pb2_grpc import ImportsServiceServicer
from services.events.deciders.import_job import (
    AT_WORK,
    CHECKING,
    DECIDER,
    PAUSED,
    PRODUCTS,
    READY,
    RUNNING,
    UPLOADING,
    Command,
    State,
    Upload,
    decider_with,
    require,
)
from services.events.import_files import UnreadableFileError, sample
from services.events.import_suggestion import suggest, suggest_products
from services.events.projections.importing import (
    Progresses,
    Work,
    list_row_errors,
    read_progress,
)
from services.events.projections.imports import (
    IMPORT_ROWS,
    ImportsView,
    Row,
    count_open,
    import_of,
    list_imports,
)
from services.events.projections.uploads import (
    add_chunk,
    chunk_at,
    tail_of,
    uploaded_bytes,
)
from services.kernel.command.decider import Decided, Decider
from services.kernel.errors import FailedPrecondition, OutOfRange, ResourceExhausted
from services.kernel.log.bell import heard_within
from services.kernel.rpc.caller import current_caller, draining

if TYPE_CHECKING:
    from services.kernel.process.runtime import Kernel

# How long the file of an import may be.
IMPORT_BYTES_MAX = 256 * 1024 * 1024
# Imports of a workspace whose file is kept.
OPEN_IMPORTS_MAX = 100
# What of a file is looked at for a suggestion: the first rows, and for Parquet the end.
SAMPLE_ROWS_MAX = 100
SAMPLE_BYTES_MAX = 4 * 1024 * 1024
# How long a watch goes without looking; progress is saved about as often.
WATCH_INTERVAL_S = 0.5
WATCH_PAUSE_S = 0.1

M = TypeVar("M", bound=Message)


def _refuse(_command: Command, _state: State) -> Sequence[Message]:
    raise ResourceExhausted("OPEN_IMPORTS_MAX", OPEN_IMPORTS_MAX)


FULL = replace(DECIDER, decide=_refuse)
"""The rules where no import can be created any more: one that was is still answered for."""


class ImportsService(ImportsServiceServicer):
    """Imports of the caller's workspace."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel

    async def CreateImport(
        self, request: pb.CreateImportRequest, _: Any
    ) -> pb.CreateImportResponse:
        count = await count_open(self._kernel.pool, current_caller().workspace)
        decider = DECIDER if count < OPEN_IMPORTS_MAX else FULL
        import_id = request.import_id or str(self._kernel.new_id())
        return await self._execute(import_id, request, pb.CreateImportResponse, decider)

    async def UploadImportChunk(
        self, request: pb.UploadImportChunkRequest, _: Any
    ) -> pb.UploadImportChunkResponse:
        row = await self._existing(request.name)
        require(request.name, row.state, UPLOADING)
        end_bytes = request.offset_bytes + len(request.chunk)
        if end_bytes > IMPORT_BYTES_MAX:
            raise ResourceExhausted("IMPORT_BYTES_MAX", IMPORT_BYTES_MAX)
        key = row.workspace, row.aggregate_id
        if not await add_chunk(self._kernel.pool, *key, request.offset_bytes, request.chunk):
            there = await self._uploaded_bytes(row)
            raise OutOfRange(f"the next part of the file begins at {there}")
        return pb.UploadImportChunkResponse(uploaded_bytes=await self._uploaded_bytes(row))

    async def FinishImportUpload(
        self, request: pb.FinishImportUploadRequest, _: Any
    ) -> pb.FinishImportUploadResponse:
        import_id = DECIDER.aggregate_id(request.name)
        decider = decider_with(await self._upload(import_id))
        return await self._execute(import_id, request, pb.FinishImportUploadResponse, decider)

    async def SuggestImportMapping(
        self, request: pb.SuggestImportMappingRequest, _: Any
    ) -> pb.SuggestImportMappingResponse:
        row = await self._existing(request.name)
        require(request.name, row.state, READY, CHECKING, RUNNING, PAUSED)
        try:
            columns, rows = await self._sample(row)
        except UnreadableFileError as problem:
            raise FailedPrecondition(
                f"{request.name} cannot be read: {problem.detail}", resource=request.name
            ) from None
        suggested = suggest_products if row.state.kind == PRODUCTS else suggest
        mapping = suggested(columns, rows)
        return pb.SuggestImportMappingResponse(mapping=mapping, columns=columns)

    async def MapImport(self, request: pb.MapImportRequest, _: Any) -> pb.MapImportResponse:
        return await self._change(request, pb.MapImportResponse)

    async def CheckImport(self, request: pb.CheckImportRequest, _: Any) -> pb.CheckImportResponse:
        return await self._change(request, pb.CheckImportResponse)

    async def StartImport(self, request: pb.StartImportRequest, _: Any) -> pb.StartImportResponse:
        return await self._change(request, pb.StartImportResponse)

    async def PauseImport(self, request: pb.PauseImportRequest, _: Any) -> pb.PauseImportResponse:
        return await self._change(request, pb.PauseImportResponse)

    async def ResumeImport(
        self, request: pb.ResumeImportRequest, _: Any
    ) -> pb.ResumeImportResponse:
        return await self._change(request, pb.ResumeImportResponse)

    async def CancelImport(
        self, request: pb.CancelImportRequest, _: Any
    ) -> pb.CancelImportResponse:
        return await self._change(request, pb.CancelImportResponse)

    async def UndoImport(self, request: pb.UndoImportRequest, _: Any) -> pb.UndoImportResponse:
        return await self._change(request, pb.UndoImportResponse)

    async def GetImport(self, request: pb.GetImportRequest, _: Any) -> pb.GetImportResponse:
        await self._kernel.freshness.wait(ImportsView.name, request.read_token)
        return pb.GetImportResponse(import_job=await self._shown(request.name))

    async def ListImports(self, request: pb.ListImportsRequest, _: Any) -> pb.ListImportsResponse:
        await self._kernel.freshness.wait(ImportsView.name, request.read_token)
        return await list_imports(self._kernel.pool, current_caller().workspace, request)

    async def ListImportRowErrors(
        self, request: pb.ListImportRowErrorsRequest, _: Any
    ) -> pb.ListImportRowErrorsResponse:
        row = await self._existing(request.name)
        known = await self._progress(row.workspace, row.aggregate_id)
        work = Work.RECORD if Work.RECORD in known.by_work else Work.CHECK
        return await list_row_errors(
            self._kernel.pool, row.workspace, row.aggregate_id, work, request
        )

    async def WatchImport(
        self, request: pb.WatchImportRequest, _: Any
    ) -> AsyncIterator[pb.WatchImportResponse]:
        told = None
        with self._kernel.bell.listening() as heard:
            while not draining().is_set():
                heard.clear()
                shown = await self._shown(request.name)
                if shown != told:
                    yield pb.WatchImportResponse(import_job=shown)
                if shown.state not in WATCHED:
                    return
                told = shown
                # Whatever is recorded rings the bell, too: that alone is no reason to look at once.
                await asyncio.sleep(WATCH_PAUSE_S)
                await heard_within(heard, WATCH_INTERVAL_S)

    async def _change(self, request: Any, response: Callable[..., M]) -> M:
        return await self._execute(DECIDER.aggregate_id(request.name), request, response)

    async def _execute(
        self,
        import_id: str,
        command: Command,
        response: Callable[..., M],
        decider: Decider[Command, State] = DECIDER,
    ) -> M:
        """Executes a command on an import and answers with what became of it."""
        known = await self._progress(current_caller().workspace, import_id)

        def respond(decided: Decided[State]) -> M:
            shown = import_of(import_id, decided, known)
            return response(import_job=shown, write_token=decided.write_token)

        return await self._kernel.commands.execute(decider, import_id, command, respond)

    async def _existing(self, name: str) -> Row:
        return await IMPORT_ROWS.existing(self._kernel.pool, current_caller().workspace, name)

    async def _shown(self, name: str) -> pb.Import:
        row = await self._existing(name)
        known = await self._progress(row.workspace, row.aggregate_id)
        return import_of(row.aggregate_id, row, known)

    async def _progress(self, workspace: str, import_id: str) -> Progresses:
        found = await read_progress(self._kernel.pool, workspace, [import_id])
        return found.get(import_id, Progresses())

    async def _uploaded_bytes(self, row: Row) -> int:
        found = await uploaded_bytes(self._kernel.pool, row.workspace, [row.aggregate_id])
        return found.get(row.aggregate_id, 0)

    async def _upload(self, import_id: str) -> Upload:
        """The file as it is there: what is there never changes, so neither does its digest."""
        workspace, digest, place = current_caller().workspace, hashlib.sha256(), 0
        while chunk := await chunk_at(self._kernel.pool, workspace, import_id, place):
            digest.update(chunk)
            place += len(chunk)
        return Upload(place, digest.digest())

    async def _sample(self, row: Row) -> tuple[list[str], list[dict[str, Any]]]:
        """The columns and the first rows, as far as a part of the file tells them."""
        pool, key = self._kernel.pool, (row.workspace, row.aggregate_id)
        head, tail = b"", b""
        while len(head) < SAMPLE_BYTES_MAX and (chunk := await chunk_at(pool, *key, len(head))):
            head += chunk
        if len(head) < row.state.size_bytes:
            tail = await tail_of(pool, *key, row.state.size_bytes - SAMPLE_BYTES_MAX)
        file_format = ImportFormat.FromString(row.state.format)
        return await asyncio.to_thread(sample, head, tail, file_format, SAMPLE_ROWS_MAX)


WATCHED = (UPLOADING, READY, *AT_WORK, PAUSED)
"""States in which there is something to wait for."""
