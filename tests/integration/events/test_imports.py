"""A file becomes customer events: each row once, and what is wrong with the others is told."""

import asyncio

import orjson
import pytest

from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import ImportFormat
from rapport.events.v1.imports_pb2_grpc import ImportsServiceStub
from rapport.events.v1.service_pb2_grpc import EventsServiceStub
from rapport.events.v1.sources_pb2 import (
    CreateSourceRequest,
    DisableSourceRequest,
    EnableSourceRequest,
)
from rapport.events.v1.sources_pb2_grpc import SourcesServiceStub
from services.events.service import imports as service
from services.events.upkeep import import_checking, import_recording
from services.kernel.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
)
from tests.imports_world import (
    CSV,
    JSONL,
    PARQUET,
    Imports,
    counts,
    csv_file,
    jsonl_file,
    mapping,
    packed,
    parquet_file,
    people,
)

ROWS = [("who", "score"), ("ada", 1), ("bob", 2), ("eve", 3)]
FILES = {
    "csv": (csv_file(ROWS), CSV),
    "csv.gz": (packed(csv_file(ROWS)), CSV),
    "jsonl": (jsonl_file(ROWS), JSONL),
    "jsonl.gz": (packed(jsonl_file(ROWS)), JSONL),
    "parquet": (parquet_file(ROWS), PARQUET),
}


@pytest.mark.parametrize("kind", FILES)
async def test_each_row_of_a_file_of_any_kind_becomes_a_customer_event(imports, kind):
    file, file_type = FILES[kind]

    done = await imports.run(file, file_type=file_type)

    assert {"rows": 3, "accepted": 3} == counts(done.progress)
    assert (len(file), len(file)) == (done.size_bytes, done.progress.read_bytes)
    recorded = await imports.until_listed(3)
    assert {"ada": 1, "bob": 2, "eve": 3} == {
        each.user_id: int(orjson.loads(each.properties)["score"]) for each in recorded.values()
    }
    assert {done.name} == {each.import_name for each in recorded.values()}
    assert {f"{done.name}/{row}" for row in (1, 2, 3)} == set(recorded)


async def test_more_rows_than_a_batch_holds_are_recorded_in_order(imports):
    done = await imports.run(people(1_234))

    assert {"rows": 1_234, "accepted": 1_234} == counts(done.progress)
    assert done.progress.rows_per_s > 0
    assert not done.progress.HasField("remaining_time")


async def test_a_row_that_is_wrong_is_told_and_stops_no_other(imports):
    file = csv_file([("who", "score"), ("ada", 1), ("", 2), ("eve",), ("x" * 300, 4), ("bob", 5)])

    done = await imports.run(file)

    assert {"rows": 5, "accepted": 2, "refused": 2, "unmapped": 1} == counts(done.progress)
    assert [
        (2, "", "NO_IDENTIFIER"),
        (3, "", "COLUMNS_MISMATCH"),
        (4, "", "IDENTIFIER_TOO_LONG"),
    ] == await imports.row_errors(done.name)
    assert [(3, "", "COLUMNS_MISMATCH")] == await imports.row_errors(
        done.name, filter='reason = "COLUMNS_MISMATCH"'
    )


async def test_a_message_id_that_was_recorded_before_is_a_duplicate(imports, record, sent):
    await record(sent("m-2"))
    rows = [("who", "score", "id"), ("a", 1, "m-1"), ("b", 2, "m-2"), ("c", 3, "m-1")]
    by_id = mapping(user_id="who", message_id="id")

    done = await imports.run(csv_file(rows), mapping=by_id)

    assert {"rows": 3, "accepted": 1, "duplicate": 2} == counts(done.progress)


async def test_the_same_file_again_with_ids_of_its_own_records_nothing(imports):
    rows = csv_file([("who", "id"), *((f"u-{n}", f"m-{n}") for n in range(700))])
    by_id = mapping(user_id="who", message_id="id")
    await imports.run(rows, mapping=by_id)

    again = await imports.run(rows, mapping=by_id, import_id="again")

    assert {"rows": 700, "duplicate": 700} == counts(again.progress)


async def test_a_check_tells_what_would_become_of_each_row_and_records_nothing(
    imports, record, sent
):
    await record(sent("m-2"))
    rows = [("who", "id"), ("a", "m-1"), ("b", "m-2"), ("c", "m-1"), ("", "m-3"), ("e",)]
    name = await imports.ready(csv_file(rows), mapping=mapping(user_id="who", message_id="id"))

    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")

    expected = {"rows": 5, "accepted": 1, "duplicate": 2, "refused": 1, "unmapped": 1}
    assert expected == counts(checked.check)
    assert [(4, "", "NO_IDENTIFIER"), (5, "", "COLUMNS_MISMATCH")] == await imports.row_errors(name)
    assert not checked.HasField("progress")
    assert ["m-2"] == list(await imports.until_listed(1))


async def test_a_check_may_be_repeated_with_another_mapping(imports):
    name = await imports.ready(people(10), mapping=mapping(user_id="whom"))
    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")
    assert "COLUMN_MISSING" == checked.reason

    mended = mapping(user_id="who")
    await imports.stub.MapImport(pb.MapImportRequest(name=name, mapping=mended))
    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")

    assert ({"rows": 10, "accepted": 10}, "") == (counts(checked.check), checked.reason)


async def test_a_check_keeps_as_many_row_errors_as_the_limit_says(imports, monkeypatch):
    monkeypatch.setattr(import_checking, "CHECKED_ERRORS_MAX", 3)
    name = await imports.ready(csv_file([("who", "score"), *([("", 1)] * 4)]))

    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")

    assert {"rows": 4, "refused": 4} == counts(checked.check)
    assert [1, 2, 3] == [row for row, _, _ in await imports.row_errors(name)]


@pytest.mark.parametrize(("wrong", "state"), [(3, "DONE"), (4, "FAILED")])
async def test_a_file_with_more_errors_than_the_limit_fails(imports, monkeypatch, wrong, state):
    monkeypatch.setattr(import_recording, "ROW_ERRORS_MAX", 3)
    name = await imports.ready(csv_file([("who", "score"), *([("", 1)] * wrong)]))

    await imports.ask("Start", name)
    ended = await imports.until(name, state)

    assert ("ROW_ERRORS_TOO_MANY" if state == "FAILED" else "") == ended.reason
    assert wrong == len(await imports.row_errors(name))


@pytest.mark.parametrize(
    ("file", "file_type", "reason"),
    [
        (b"PAR1 and then nothing of the kind", PARQUET, "FILE_CORRUPT"),
        (packed(people(5_000))[:-20], CSV, "FILE_CORRUPT"),
        (b"who,who\na,b\n", CSV, "HEADER_INVALID"),
        (b"a,b\n1,2\n", CSV, "COLUMN_MISSING"),
    ],
)
async def test_a_file_that_cannot_be_read_fails_with_its_reason(imports, file, file_type, reason):
    name = await imports.ready(file, file_type=file_type)

    await imports.ask("Start", name)
    failed = await imports.until(name, "FAILED")

    assert reason == failed.reason
    assert failed.detail


async def test_what_was_read_before_a_file_broke_off_is_recorded(imports):
    file = packed(people(20_000))
    name = await imports.ready(file[: len(file) // 2])

    await imports.ask("Start", name)
    failed = await imports.until(name, "FAILED")

    assert 0 < failed.progress.counts.rows < 20_000
    assert failed.progress.counts.rows == failed.progress.counts.accepted


async def test_an_upload_goes_on_where_it_was_left_and_repeats_harmlessly(imports):
    name = await imports.create()
    file = people(3)

    async def send(offset, chunk):
        request = pb.UploadImportChunkRequest(name=name, offset_bytes=offset, chunk=chunk)
        return (await imports.stub.UploadImportChunk(request)).uploaded_bytes

    assert 5 == await send(0, file[:5])
    assert 5 == await send(0, file[:5])
    assert 5 == (await imports.get(name)).uploaded_bytes
    for offset, chunk in ((0, b"other"), (3, file[3:5]), (6, file[6:])):
        with pytest.raises(OutOfRange):
            await send(offset, chunk)
    assert len(file) == await send(5, file[5:])


async def test_two_that_upload_the_same_at_once_upload_it_once(imports):
    name = await imports.create()
    file = people(2_000)

    await asyncio.gather(*(_insisting(imports, name, file) for _ in range(3)))
    uploaded = await imports.upload(name, file, chunk_size=1_000)

    assert len(file) == uploaded.size_bytes


async def _insisting(imports, name, file, size=1_000):
    for offset in range(0, len(file), size):
        request = pb.UploadImportChunkRequest(
            name=name, offset_bytes=offset, chunk=file[offset : offset + size]
        )
        await imports.stub.UploadImportChunk(request)


async def test_a_file_is_as_long_as_the_limit_says_and_not_longer(imports, monkeypatch):
    name = await imports.create()
    file = people(3)
    monkeypatch.setattr(service, "IMPORT_BYTES_MAX", len(file) - 1)
    with pytest.raises(ResourceExhausted) as refusal:
        await imports.upload(name, file)
    assert "IMPORT_BYTES_MAX" == refusal.value.metadata["limit"]

    monkeypatch.setattr(service, "IMPORT_BYTES_MAX", len(file))
    assert len(file) == (await imports.upload(name, file)).size_bytes


async def test_a_workspace_has_as_many_files_as_the_limit_says(imports, monkeypatch):
    monkeypatch.setattr(service, "OPEN_IMPORTS_MAX", 1)
    name = await imports.create("one")
    with pytest.raises(ResourceExhausted) as refusal:
        await imports.create("two")
    assert "OPEN_IMPORTS_MAX" == refusal.value.metadata["limit"]

    await imports.ask("Cancel", name)
    await imports.create("two")


async def test_who_asks_again_for_the_last_import_that_fits_gets_it(imports, monkeypatch):
    monkeypatch.setattr(service, "OPEN_IMPORTS_MAX", 1)
    request_id = "0190a000-0000-4000-8000-000000000001"
    name = await imports.create("one", request_id=request_id)

    assert name == await imports.create("one", request_id=request_id)


async def test_a_file_that_is_not_the_one_meant_is_refused(imports):
    name = await imports.create()
    with pytest.raises(FailedPrecondition):
        await imports.ask_finish(name)
    await _insisting(imports, name, people(3))

    for said in ({"sha256": b"\1" * 32}, {"size_bytes": 1}):
        with pytest.raises(InvalidArgument):
            await imports.ask_finish(name, **said)
    assert await imports.ask_finish(name)


async def test_the_file_is_gone_when_the_import_has_ended(asked, imports):
    done = await imports.run(people(3))

    async def gone():
        count = "select count(*) from importing.chunks"
        assert 0 == await asked.kernel.pool.fetchval(count)

    await imports.eventually(gone)
    assert len(people(3)) == (await imports.get(done.name)).size_bytes


@pytest.mark.parametrize("kind", FILES)
async def test_a_mapping_is_suggested_that_can_be_used_as_it_is(imports, kind):
    rows = [("User ID", "Event Name", "Timestamp", "score"), ("ada", "Won", "2026-01-01", 1)]
    make = {"csv": csv_file, "jsonl": jsonl_file, "parquet": parquet_file}[kind.partition(".")[0]]
    file = packed(make(rows)) if kind.endswith("gz") else make(rows)
    name = await imports.create(file_type=FILES[kind][1], mapping=None)
    await imports.upload(name, file)

    request = pb.SuggestImportMappingRequest(name=name)
    suggested = await imports.stub.SuggestImportMapping(request)

    assert list(rows[0]) == list(suggested.columns)
    await imports.stub.MapImport(pb.MapImportRequest(name=name, mapping=suggested.mapping))
    await imports.ask("Start", name)
    await imports.until(name, "DONE")
    [recorded] = (await imports.until_listed(1)).values()
    assert ("ada", "Won", {"score": 1}) == (
        recorded.user_id,
        recorded.name,
        orjson.loads(recorded.properties),
    )


async def test_a_disabled_source_pauses_its_imports_until_it_is_enabled(asked, imports):
    sources = asked.stub(SourcesServiceStub)
    await sources.CreateSource(CreateSourceRequest(source_id="shop", display_name="Shop"))
    await sources.DisableSource(DisableSourceRequest(name="sources/shop"))
    name = await imports.ready(people(3), source="sources/shop")

    await imports.ask("Start", name)
    assert "SOURCE_DISABLED" == (await imports.until(name, "PAUSED")).reason
    await sources.EnableSource(EnableSourceRequest(name="sources/shop"))
    await imports.ask("Resume", name)
    await imports.until(name, "DONE")

    recorded = await imports.until_listed(3)
    assert {"sources/shop"} == {each.source for each in recorded.values()}


async def test_a_watch_tells_of_an_import_until_it_has_ended(imports):
    name = await imports.ready(people(3_000))
    watch = aiter(imports.stub.WatchImport(pb.WatchImportRequest(name=name)))
    first = (await anext(watch)).import_job

    await imports.ask("Start", name)
    async with asyncio.timeout(30):
        told = [each.import_job async for each in watch]

    assert pb.ImportState.IMPORT_STATE_READY == first.state
    assert pb.ImportState.IMPORT_STATE_DONE == told[-1].state
    rows = [each.progress.counts.rows for each in told]
    assert (sorted(rows), 3_000) == (rows, rows[-1])


async def test_another_workspace_sees_nothing_of_an_import(asked, imports):
    name = await imports.ready(people(3))
    others = Imports(
        asked.stub(ImportsServiceStub, workspace="globex"),
        asked.stub(EventsServiceStub, workspace="globex"),
    )

    for ask in (others.get(name), others.ask("Start", name), others.row_errors(name)):
        with pytest.raises(NotFound):
            await ask
    assert not (await others.stub.ListImports(pb.ListImportsRequest())).imports
    mine = await imports.stub.ListImports(pb.ListImportsRequest(filter="state = READY"))
    assert [name] == [each.name for each in mine.imports]


async def test_a_format_of_ones_own_is_read(imports):
    file = "\ufeffwho;score\r\n'ada;1';2\r\n".encode()
    own = ImportFormat(type=CSV, delimiter=";", quote="'")

    await imports.run(file, format=own)

    [recorded] = (await imports.until_listed(1)).values()
    assert "ada;1" == recorded.user_id


async def test_what_breaks_the_plan_is_quarantined_and_leaves_it_when_the_import_is_undone(
    imports, plan, waiting, resubmit
):
    rows = [("who", "total", "id"), ("a", 1, "m-1"), ("b", "", "m-2"), ("c", "", "m-3")]
    by_id = mapping(user_id="who", message_id="id", properties__total="total")
    name = await imports.ready(csv_file(rows), mapping=by_id)

    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")
    assert {"rows": 3, "accepted": 1, "quarantined": 2} == counts(checked.check)
    assert [(2, "", "PLAN_VIOLATED"), (3, "", "PLAN_VIOLATED")] == await imports.row_errors(name)
    await imports.ask("Start", name)
    done = await imports.until(name, "DONE")
    assert {"rows": 3, "accepted": 1, "quarantined": 2} == counts(done.progress)
    assert {"m-2", "m-3"} == set(await waiting())
    plan.needed = ""
    await resubmit("m-3")

    await imports.ask("Undo", name)
    assert 3 == (await imports.until(name, "UNDONE")).retracted

    assert [] == await waiting()
    await imports.until_listed(0)
    again = await imports.run(csv_file(rows), mapping=by_id, import_id="again")
    assert {"rows": 3, "accepted": 3} == counts(again.progress)
