"""The rules of an import: what may be asked of it when, and the facts that follow.

What a worker finds out, that all rows were read or that the file cannot be, it appends itself, only
if nothing happened to the import since it looked: then the rules below have the first word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from rapport.events.v1.events_pb2 import (
    ImportCancelled,
    ImportChecked,
    ImportCheckStarted,
    ImportCreated,
    ImportFailed,
    ImportFileErased,
    ImportFinished,
    ImportMapped,
    ImportPaused,
    ImportResumed,
    ImportStarted,
    ImportUndone,
    ImportUndoStarted,
    ImportUploaded,
)
from rapport.events.v1.import_job_pb2 import ImportFormat, ImportKind, ImportMapping
from rapport.events.v1.imports_pb2 import (
    CancelImportRequest,
    CheckImportRequest,
    CreateImportRequest,
    FinishImportUploadRequest,
    ImportState,
    MapImportRequest,
    PauseImportRequest,
    ResumeImportRequest,
    StartImportRequest,
    UndoImportRequest,
)
from services.events import display_names, import_mapping, import_products
from services.kernel.command.decider import Decider
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
)

Move = PauseImportRequest | ResumeImportRequest | CancelImportRequest | UndoImportRequest
Command = (
    CreateImportRequest
    | FinishImportUploadRequest
    | MapImportRequest
    | CheckImportRequest
    | StartImportRequest
    | Move
)

UPLOADING = ImportState.IMPORT_STATE_UPLOADING
READY = ImportState.IMPORT_STATE_READY
CHECKING = ImportState.IMPORT_STATE_CHECKING
RUNNING = ImportState.IMPORT_STATE_RUNNING
PAUSED = ImportState.IMPORT_STATE_PAUSED
DONE = ImportState.IMPORT_STATE_DONE
FAILED = ImportState.IMPORT_STATE_FAILED
CANCELLED = ImportState.IMPORT_STATE_CANCELLED
UNDOING = ImportState.IMPORT_STATE_UNDOING
UNDONE = ImportState.IMPORT_STATE_UNDONE

# A worker has something to do.
AT_WORK = (CHECKING, RUNNING, UNDOING)
# The file is still needed.
OPEN = (UPLOADING, READY, CHECKING, RUNNING, PAUSED)
ENDED = (DONE, FAILED, CANCELLED)

CUSTOMER_EVENTS = ImportKind.IMPORT_KIND_CUSTOMER_EVENTS
PRODUCTS = ImportKind.IMPORT_KIND_PRODUCTS

SOURCES = "sources/"

_VIOLATIONS: Mapping[int, Callable[[ImportMapping], Iterator[FieldViolation]]] = {
    CUSTOMER_EVENTS: import_mapping.violations,
    PRODUCTS: import_products.violations,
}

# The fact, the states in which it is no news, and those in which it may be asked for.
_MOVES: Mapping[type[Move], tuple[Callable[[], Message], Sequence[int], Sequence[int]]] = {
    PauseImportRequest: (ImportPaused, (PAUSED,), (RUNNING,)),
    ResumeImportRequest: (ImportResumed, (RUNNING,), (PAUSED,)),
    CancelImportRequest: (ImportCancelled, (CANCELLED,), OPEN),
    UndoImportRequest: (ImportUndoStarted, (UNDOING, UNDONE), ENDED),
}


@dataclass(frozen=True, slots=True)
class Upload:
    """The file as it was uploaded until now."""

    size_bytes: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class State:
    """An import as its events leave it; before the first of them it does not exist.

    `format` and `mapping` are serialised. `attempt` grows with each check and start, whose progress
    begins anew.
    """

    exists: bool = False
    display_name: str = ""
    kind: int = 0
    source: str = ""
    format: bytes = b""
    mapping: bytes = b""
    state: int = 0
    size_bytes: int = 0
    sha256: bytes = b""
    attempt: int = 0
    reason: str = ""
    detail: str = ""


def decide(upload: Upload, command: Command, state: State) -> Sequence[Message]:
    """Returns the facts that follow from a command, or refuses it."""
    if isinstance(command, CreateImportRequest):
        return create(command, state)
    if not state.exists:
        raise NotFound(command.name)
    if isinstance(command, FinishImportUploadRequest):
        return finish_upload(upload, command, state)
    if isinstance(command, MapImportRequest):
        return map_rows(command, state)
    if isinstance(command, CheckImportRequest | StartImportRequest):
        return begin(command, state)
    return move(command, state)


def create(command: CreateImportRequest, state: State) -> Sequence[Message]:
    """A new import needs a free id, a name, and a format that can be read."""
    if state.exists:
        raise AlreadyExists(f"imports/{command.import_id}", "import_id")
    name = display_names.readable(command.display_name, "an import")
    source = command.source
    if source and (not source.startswith(SOURCES) or "/" in source[len(SOURCES) :]):
        raise InvalidArgument.of("source", f"must look like {SOURCES}{{id}}, or be empty")
    kind = command.kind or CUSTOMER_EVENTS
    if source and kind == PRODUCTS:
        raise InvalidArgument.of("source", "the catalogue's entries come from no source")
    created = ImportCreated(
        display_name=name,
        kind=kind,
        source=source,
        format=readable(command.format),
    )
    if command.HasField("mapping"):
        created.mapping.CopyFrom(checked(command.mapping, kind))
    return [created]


def finish_upload(
    upload: Upload, command: FinishImportUploadRequest, state: State
) -> Sequence[Message]:
    """The file is what was uploaded; who knows its size or digest is told if it is another."""
    if state.state != UPLOADING and (upload.size_bytes, upload.sha256) == (
        state.size_bytes,
        state.sha256,
    ):
        return []
    require(command.name, state, UPLOADING)
    if not upload.size_bytes:
        raise FailedPrecondition("nothing was uploaded", resource=command.name, state="UPLOADING")
    if command.size_bytes not in (0, upload.size_bytes):
        description = f"the file has {upload.size_bytes} bytes here"
        raise InvalidArgument.of("size_bytes", description)
    if command.sha256 not in (b"", upload.sha256):
        raise InvalidArgument.of("sha256", f"the file's is {upload.sha256.hex()} here")
    return [ImportUploaded(size_bytes=upload.size_bytes, sha256=upload.sha256)]


def map_rows(command: MapImportRequest, state: State) -> Sequence[Message]:
    """Rows are mapped in one way: from the start on the mapping stays."""
    require(command.name, state, UPLOADING, READY)
    mapping = checked(command.mapping, state.kind)
    if serialised(mapping) == state.mapping:
        return []
    return [ImportMapped(mapping=mapping)]


def begin(command: CheckImportRequest | StartImportRequest, state: State) -> Sequence[Message]:
    """A complete file and a mapping are needed; each beginning is news."""
    require(command.name, state, READY)
    if not state.mapping:
        message = f"{command.name} has no mapping yet"
        raise FailedPrecondition(message, resource=command.name, state="READY")
    return [ImportCheckStarted() if isinstance(command, CheckImportRequest) else ImportStarted()]


def move(command: Move, state: State) -> Sequence[Message]:
    """What is so already is no news; what the catalogue says is said anew, not retracted."""
    fact, reached, allowed = _MOVES[type(command)]
    if state.state in reached:
        return []
    require(command.name, state, *allowed)
    if isinstance(command, UndoImportRequest) and state.kind == PRODUCTS:
        message = f"{command.name} recorded products: record or import what they shall be instead"
        raise FailedPrecondition(message, resource=command.name, state=said_state(state.state))
    return [fact()]


def readable(file_format: ImportFormat) -> ImportFormat:
    """Refuses a format in which no file can be read."""
    delimiter, quote = file_format.delimiter or ",", file_format.quote or '"'
    for field, character in (("delimiter", delimiter), ("quote", quote)):
        if character in ("\0", "\r", "\n", " "):
            raise InvalidArgument.of(f"format.{field}", "is no character between values")
    if delimiter == quote:
        raise InvalidArgument.of("format.quote", "is the delimiter, too")
    return file_format


def checked(mapping: ImportMapping, kind: int) -> ImportMapping:
    """Refuses a mapping by which no row can be mapped; names each reason."""
    found = list(_VIOLATIONS[kind](mapping))
    if found:
        raise InvalidArgument(found)
    return mapping


def require(name: str, state: State, *allowed: int) -> None:
    """Refuses what is asked in another state than these."""
    if state.state not in allowed:
        said = said_state(state.state)
        names = " or ".join(said_state(each) for each in allowed)
        message = f"{name} is {said}; it must be {names}"
        raise FailedPrecondition(message, resource=name, state=said)


def said_state(state: int) -> str:
    """`IMPORT_STATE_READY` → `READY`."""
    return ImportState.Name(ImportState.ValueType(state)).removeprefix("IMPORT_STATE_")


def evolve(state: State, event: Message) -> State:  # noqa: C901, PLR0912, a case per fact
    """Returns the import after an event."""
    match event:
        case ImportCreated():
            return State(
                exists=True,
                display_name=event.display_name,
                kind=event.kind,
                source=event.source,
                format=event.format.SerializeToString(deterministic=True),
                mapping=serialised(event.mapping),
                state=UPLOADING,
            )
        case ImportMapped():
            return replace(state, mapping=serialised(event.mapping))
        case ImportUploaded():
            size_bytes, sha256 = event.size_bytes, event.sha256
            return replace(state, state=READY, size_bytes=size_bytes, sha256=sha256)
        case ImportFileErased():
            return replace(state, size_bytes=event.size_bytes, sha256=event.sha256)
        case ImportCheckStarted():
            return _at(state, CHECKING, attempt=state.attempt + 1)
        case ImportChecked():
            return _at(state, READY, event.reason, event.detail)
        case ImportStarted():
            return _at(state, RUNNING, attempt=state.attempt + 1)
        case ImportPaused():
            return _at(state, PAUSED, event.reason, event.detail)
        case ImportResumed():
            return _at(state, RUNNING)
        case ImportFinished():
            return _at(state, DONE)
        case ImportFailed():
            return _at(state, FAILED, event.reason, event.detail)
        case ImportCancelled():
            return _at(state, CANCELLED)
        case ImportUndoStarted():
            return _at(state, UNDOING, state.reason, state.detail)
        case ImportUndone():
            return _at(state, UNDONE, state.reason, state.detail)
    return state


def _at(
    state: State, reached: int, reason: str = "", detail: str = "", attempt: int | None = None
) -> State:
    attempt = state.attempt if attempt is None else attempt
    return replace(state, state=reached, reason=reason, detail=detail, attempt=attempt)


def serialised(mapping: ImportMapping) -> bytes:
    """The one form of mappings that say the same; empty for none."""
    return mapping.SerializeToString(deterministic=True)


def decider_with(upload: Upload) -> Decider[Command, State]:
    """The rules, with the file as it was uploaded until now."""
    return Decider(
        category="import",
        collection="imports",
        initial=State(),
        decide=partial(decide, upload),
        evolve=evolve,
    )


DECIDER = decider_with(Upload(0, b""))
"""The rules for who finishes no upload."""
