"""What may be asked of an import when, and what it is after."""

import pytest

from rapport.events.v1 import events_pb2 as facts
from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import (
    ImportCounts,
    ImportFileType,
    ImportFormat,
    ImportKind,
    ImportMapping,
)
from services.events.deciders.import_job import (
    CHECKING,
    DECIDER,
    DONE,
    READY,
    RUNNING,
    UNDONE,
    Upload,
    decider_with,
)
from services.kernel.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from services.kernel.testing import Spec
from tests.imports_world import mapping, product_mapping

NAME = "imports/one"
CSV = ImportFormat(type=ImportFileType.IMPORT_FILE_TYPE_CSV)
MAPPING = mapping(user_id="who")
CREATED = facts.ImportCreated(
    display_name="A file",
    kind=ImportKind.IMPORT_KIND_CUSTOMER_EVENTS,
    format=CSV,
    mapping=MAPPING,
)
UNMAPPED = facts.ImportCreated(display_name="A file", kind=1, format=CSV)
UPLOADED = facts.ImportUploaded(size_bytes=3, sha256=b"s" * 32)
UPLOAD = Upload(3, b"s" * 32)
COUNTS = ImportCounts(rows=1, accepted=1)

MOVES = {
    "Pause": (pb.PauseImportRequest(name=NAME), facts.ImportPaused()),
    "Resume": (pb.ResumeImportRequest(name=NAME), facts.ImportResumed()),
    "Cancel": (pb.CancelImportRequest(name=NAME), facts.ImportCancelled()),
    "Undo": (pb.UndoImportRequest(name=NAME), facts.ImportUndoStarted()),
    "Check": (pb.CheckImportRequest(name=NAME), facts.ImportCheckStarted()),
    "Start": (pb.StartImportRequest(name=NAME), facts.ImportStarted()),
}
STATES = {
    "UPLOADING": [CREATED],
    "READY": [CREATED, UPLOADED],
    "CHECKING": [CREATED, UPLOADED, facts.ImportCheckStarted()],
    "RUNNING": [CREATED, UPLOADED, facts.ImportStarted()],
    "PAUSED": [CREATED, UPLOADED, facts.ImportStarted(), facts.ImportPaused()],
    "DONE": [CREATED, UPLOADED, facts.ImportStarted(), facts.ImportFinished(counts=COUNTS)],
    "FAILED": [CREATED, UPLOADED, facts.ImportStarted(), facts.ImportFailed(reason="BUG")],
    "CANCELLED": [CREATED, facts.ImportCancelled()],
    "UNDOING": [CREATED, facts.ImportCancelled(), facts.ImportUndoStarted()],
    "UNDONE": [
        CREATED,
        facts.ImportCancelled(),
        facts.ImportUndoStarted(),
        facts.ImportUndone(),
    ],
}
ALLOWED = {
    "Pause": {"RUNNING"},
    "Resume": {"PAUSED"},
    "Cancel": {"UPLOADING", "READY", "CHECKING", "RUNNING", "PAUSED"},
    "Undo": {"DONE", "FAILED", "CANCELLED"},
    "Check": {"READY"},
    "Start": {"READY"},
}
NO_NEWS = {
    ("Pause", "PAUSED"),
    ("Resume", "RUNNING"),
    ("Cancel", "CANCELLED"),
    ("Undo", "UNDOING"),
    ("Undo", "UNDONE"),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("move", MOVES)
def test_each_move_is_made_from_its_states_only(move, state):
    command, fact = MOVES[move]
    spec = Spec(DECIDER).given(*STATES[state]).when(command)

    if state in ALLOWED[move]:
        spec.then(fact)
    elif (move, state) in NO_NEWS:
        spec.then()
    else:
        refusal = spec.then_refused(FailedPrecondition, reason="STATE_FORBIDS")
        assert state == refusal.metadata["state"]


@pytest.mark.parametrize("move", MOVES)
def test_what_nobody_created_is_not_found(move):
    Spec(DECIDER).when(MOVES[move][0]).then_refused(NotFound)


def test_a_new_import_has_a_name_and_becomes_customer_events():
    create = pb.CreateImportRequest(display_name=" A file ", format=CSV, mapping=MAPPING)

    Spec(DECIDER).when(create).then(CREATED)


def test_an_id_is_taken_once():
    create = pb.CreateImportRequest(import_id="one", display_name="Another", format=CSV)

    refusal = Spec(DECIDER).given(CREATED).when(create).then_refused(AlreadyExists)

    assert NAME == refusal.metadata["existing_name"]


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("display_name", {"display_name": " "}),
        ("source", {"source": "shop"}),
        ("source", {"source": "sources/a/b"}),
        ("format.delimiter", {"format": ImportFormat(type=1, delimiter="\n")}),
        ("format.quote", {"format": ImportFormat(type=1, delimiter='"')}),
        ("mapping.fields", {"mapping": ImportMapping()}),
    ],
)
def test_what_could_never_be_imported_is_refused_by_its_field(field, changes):
    create = pb.CreateImportRequest(**{"display_name": "A file", "format": CSV} | changes)

    refusal = Spec(DECIDER).when(create).then_refused(InvalidArgument)

    assert [field] == [violation.field for violation in refusal.violations]


def test_a_complete_file_is_ready():
    finish = pb.FinishImportUploadRequest(name=NAME, size_bytes=3, sha256=b"s" * 32)

    state = Spec(decider_with(UPLOAD)).given(CREATED).when(finish).then(UPLOADED)

    assert (READY, 3) == (state.state, state.size_bytes)


def test_a_file_that_is_complete_already_is_no_news():
    finish = pb.FinishImportUploadRequest(name=NAME)

    Spec(decider_with(UPLOAD)).given(CREATED, UPLOADED).when(finish).then()


@pytest.mark.parametrize(("field", "value"), [("size_bytes", 4), ("sha256", b"t" * 32)])
def test_another_file_than_was_meant_is_refused(field, value):
    finish = pb.FinishImportUploadRequest(name=NAME, **{field: value})

    spec = Spec(decider_with(UPLOAD)).given(CREATED).when(finish)

    assert [field] == [each.field for each in spec.then_refused(InvalidArgument).violations]


def test_nothing_is_no_file():
    finish = pb.FinishImportUploadRequest(name=NAME)

    Spec(decider_with(Upload(0, b""))).given(CREATED).when(finish).then_refused(FailedPrecondition)


@pytest.mark.parametrize("move", ["Check", "Start"])
def test_without_a_mapping_nothing_begins(move):
    Spec(DECIDER).given(UNMAPPED, UPLOADED).when(MOVES[move][0]).then_refused(FailedPrecondition)


def test_a_mapping_stays_from_the_start_on():
    other = mapping(user_id="whom")
    command = pb.MapImportRequest(name=NAME, mapping=other)

    Spec(DECIDER).given(CREATED).when(command).then(facts.ImportMapped(mapping=other))
    Spec(DECIDER).given(CREATED, facts.ImportMapped(mapping=other)).when(command).then()
    started = Spec(DECIDER).given(CREATED, UPLOADED, facts.ImportStarted()).when(command)
    started.then_refused(FailedPrecondition)


def test_each_beginning_is_an_attempt_of_its_own():
    checked = [facts.ImportCheckStarted(), facts.ImportChecked(reason="FILE_CORRUPT")]
    state = DECIDER.fold([CREATED, UPLOADED, *checked, facts.ImportCheckStarted()])
    assert (CHECKING, 2) == (state.state, state.attempt)

    paused = DECIDER.fold([facts.ImportStarted(), facts.ImportPaused(reason="WHY")], state)
    assert (3, "WHY") == (paused.attempt, paused.reason)
    resumed = DECIDER.fold([facts.ImportResumed()], paused)
    assert (RUNNING, 3, "") == (resumed.state, resumed.attempt, resumed.reason)


def test_why_an_import_failed_is_told_after_it_was_undone():
    failed = DECIDER.fold([*STATES["FAILED"], facts.ImportUndoStarted(), facts.ImportUndone()])

    assert (UNDONE, "BUG") == (failed.state, failed.reason)
    assert DONE == DECIDER.fold(STATES["DONE"]).state


PRODUCTS = {"display_name": "A file", "kind": ImportKind.IMPORT_KIND_PRODUCTS, "format": CSV}
OF_PRODUCTS = product_mapping(product_id="id")


def test_an_import_of_products_is_mapped_as_products_are():
    create = pb.CreateImportRequest(**PRODUCTS, mapping=OF_PRODUCTS)

    Spec(DECIDER).when(create).then(facts.ImportCreated(**PRODUCTS, mapping=OF_PRODUCTS))
    for kind, wrong in ((PRODUCTS, MAPPING), (PRODUCTS | {"kind": 1}, OF_PRODUCTS)):
        ask = pb.MapImportRequest(name=NAME, mapping=wrong)
        Spec(DECIDER).given(facts.ImportCreated(**kind)).when(ask).then_refused(InvalidArgument)


def test_products_come_from_no_source():
    create = pb.CreateImportRequest(**PRODUCTS, source="sources/shop")

    refusal = Spec(DECIDER).when(create).then_refused(InvalidArgument)

    assert ["source"] == [violation.field for violation in refusal.violations]


@pytest.mark.parametrize("state", ["DONE", "FAILED", "CANCELLED"])
def test_an_import_of_products_is_not_undone(state):
    given = [facts.ImportCreated(**PRODUCTS, mapping=OF_PRODUCTS), *STATES[state][1:]]

    spec = Spec(DECIDER).given(*given).when(pb.UndoImportRequest(name=NAME))

    refusal = spec.then_refused(FailedPrecondition, reason="STATE_FORBIDS")
    assert (NAME, state) == (refusal.metadata["resource"], refusal.metadata["state"])
    assert "record or import" in refusal.message
