"""A file becomes entries of the catalogue, each row once, whoever dies; the last row counts."""

import pytest

from rapport.common.v1.money_pb2 import Money
from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.events_pb2 import CatalogueEntry, ProductRecorded
from rapport.events.v1.import_job_pb2 import ImportKind
from rapport.events.v1.products_pb2 import (
    ListProductsRequest,
    ProductEntry,
    RecordProductsRequest,
)
from rapport.events.v1.products_pb2_grpc import ProductsServiceStub
from services.events.__main__ import SERVICE
from services.events.projections import importing
from services.events.service.commerce import ProductsService
from services.events.upkeep import import_cataloguing, import_reading, import_recording
from services.events.upkeep import (
    importing as upkeep,
)
from services.events.upkeep.import_work import Claimed
from services.kernel.errors import FailedPrecondition
from tests.import_workers import Asked, Workers, kill_at
from tests.imports_world import (
    CSV,
    JSONL,
    PARQUET,
    counts,
    csv_file,
    jsonl_file,
    packed,
    parquet_file,
    product_mapping,
)

MAPPING = product_mapping(product_id="id", display_name="title", price="price", currency="currency")
OF_PRODUCTS = {"kind": ImportKind.IMPORT_KIND_PRODUCTS, "mapping": MAPPING}
HEADER = ("id", "title", "price", "currency")
ROWS = [HEADER, ("lamp", "Lamp", "2.55", "EUR"), ("desk", "Desk", "100", "EUR")]
TEXTS = {"lamp": ("Lamp", 255), "desk": ("Desk", 10_000)}
FILES = {
    "csv": (csv_file(ROWS), CSV),
    "csv.gz": (packed(csv_file(ROWS)), CSV),
    "jsonl": (jsonl_file([HEADER, ("lamp", "Lamp", 2.55, "EUR"), *ROWS[2:]]), JSONL),
    "parquet": (parquet_file(ROWS), PARQUET),
}
# Of every hundred rows two say the same as one before, one says something else of the same product,
# two are broken.
MANY = csv_file(
    [
        HEADER,
        *(
            (f"p-{n - 3 if n % 100 in (12, 60) else n}", "Again", "1", "EUR")
            if n % 100 in (9, 57, 12, 60)
            else (f"p-{n - 2}", "Other", "2", "EUR")
            if n % 100 == 50
            else (f"p-{n}", "Broken", "1,50", "EUR")
            if n % 100 == 7
            else ("only this",)
            if n % 100 == 8
            else (f"p-{n}", "Thing", "1.50", "EUR")
            for n in range(1, 1_201)
        ),
    ]
)
EXPECTED = {"rows": 1_200, "accepted": 1_152, "duplicate": 24, "unmapped": 24}
# Where a worker dies.
RECORDING = {
    "the entries are looked up": (import_cataloguing, "entries_in"),
    "the progress is within the transaction": (importing, "save"),
    "the row errors are within the transaction": (importing, "add_errors"),
    "all of it is saved": (Claimed, "save_deciding"),
}


@pytest.fixture
def products(asked):
    """The service as the workspace `acme` sees it."""
    return asked.stub(ProductsServiceStub)


@pytest.fixture
async def workers(database_of, monkeypatch):
    """Workers with small batches, so that a file has several."""
    monkeypatch.setattr(import_reading, "ROWS_PER_BATCH_MAX", 400)
    async with Workers.open(await database_of(SERVICE)) as workers:
        yield workers


async def listed(products):
    """What the list says of each product: its name and price."""
    response = await products.ListProducts(ListProductsRequest())
    return {
        each.name.removeprefix("products/"): (each.display_name, each.price.amount_minor)
        for each in response.products
    }


async def said(workers):
    """What was recorded of each product, in order, by whom."""
    facts = {}
    for event in await workers.facts():
        if isinstance(event.event, ProductRecorded):
            title = event.event.entry.display_name
            facts.setdefault(event.stream, []).append((title, event.actor))
    return facts


async def started(workers):
    name = await workers.ready(MANY, **OF_PRODUCTS)
    await workers.ask("Start", name)
    return name


@pytest.mark.parametrize("kind", FILES)
async def test_each_row_of_a_file_of_any_kind_becomes_an_entry(imports, products, kind):
    file, file_type = FILES[kind]

    done = await imports.run(file, file_type=file_type, **OF_PRODUCTS)

    assert {"rows": 2, "accepted": 2} == counts(done.progress)

    async def both():
        assert TEXTS == await listed(products)

    await imports.eventually(both)
    filtered = pb.ListImportsRequest(filter="kind = PRODUCTS")
    assert [done.name] == [each.name for each in (await imports.stub.ListImports(filtered)).imports]


async def test_of_a_product_that_is_there_twice_the_last_row_counts(imports, products):
    rows = [HEADER, ("lamp", "Old", "1", "EUR"), *ROWS[1:], ("desk", "New", "", "")]

    done = await imports.run(csv_file(rows), **OF_PRODUCTS)

    assert {"rows": 4, "accepted": 4} == counts(done.progress)

    async def last():
        assert {"lamp": ("Lamp", 255), "desk": ("New", 0)} == await listed(products)

    await imports.eventually(last)


async def test_a_row_that_says_what_the_catalogue_says_is_no_news(imports, products):
    lamp = CatalogueEntry(display_name="Lamp", price=Money(amount_minor=255, currency="EUR"))
    desk = CatalogueEntry(display_name="Desk")
    entries = {"lamp": lamp, "desk": desk}
    await products.RecordProducts(
        RecordProductsRequest(
            products=[ProductEntry(product_id=key, entry=entry) for key, entry in entries.items()]
        )
    )
    rows = csv_file([*ROWS, ROWS[2]])
    name = await imports.ready(rows, **OF_PRODUCTS)

    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")
    await imports.ask("Start", name)
    done = await imports.until(name, "DONE")

    assert {"rows": 3, "accepted": 1, "duplicate": 2} == counts(checked.check)
    assert {"rows": 3, "accepted": 1, "duplicate": 2} == counts(done.progress)
    again = await imports.run(rows, import_id="again", **OF_PRODUCTS)
    assert {"rows": 3, "duplicate": 3} == counts(again.progress)


async def test_a_row_that_is_wrong_is_told_and_stops_no_other(imports):
    wrong = [("", "No id", "1", "EUR"), ("a", "", "1,5", "EUR"), ("b", "", "1", ""), ("c",)]
    name = await imports.ready(csv_file([*ROWS, *wrong]), **OF_PRODUCTS)
    expected = [
        (3, "id", "VALUE_EMPTY"),
        (4, "price", "AMOUNT_INVALID"),
        (5, "currency", "CURRENCY_MISSING"),
        (6, "", "COLUMNS_MISMATCH"),
    ]

    await imports.ask("Check", name)
    checked = await imports.until(name, "READY")
    assert {"rows": 6, "accepted": 2, "unmapped": 4} == counts(checked.check)
    assert expected == await imports.row_errors(name)
    await imports.ask("Start", name)
    done = await imports.until(name, "DONE")

    assert {"rows": 6, "accepted": 2, "unmapped": 4} == counts(done.progress)
    assert expected == await imports.row_errors(name)


@pytest.mark.parametrize(("wrong", "state"), [(3, "DONE"), (4, "FAILED")])
async def test_a_file_with_more_errors_than_the_limit_fails(imports, monkeypatch, wrong, state):
    monkeypatch.setattr(import_recording, "ROW_ERRORS_MAX", 3)
    name = await imports.ready(csv_file([HEADER, *[("", "", "", "")] * wrong]), **OF_PRODUCTS)

    await imports.ask("Start", name)
    ended = await imports.until(name, state)

    assert ("ROW_ERRORS_TOO_MANY" if state == "FAILED" else "") == ended.reason


async def test_a_file_without_a_column_that_is_mapped_fails(imports):
    name = await imports.ready(csv_file([("id",), ("lamp",)]), **OF_PRODUCTS)

    await imports.ask("Start", name)

    assert "COLUMN_MISSING" == (await imports.until(name, "FAILED")).reason


async def test_a_mapping_is_suggested_that_can_be_used_as_it_is(imports):
    name = await imports.ready(csv_file(ROWS), **OF_PRODUCTS | {"mapping": None})

    suggested = await imports.stub.SuggestImportMapping(pb.SuggestImportMappingRequest(name=name))
    await imports.stub.MapImport(pb.MapImportRequest(name=name, mapping=suggested.mapping))
    await imports.ask("Start", name)

    assert {"rows": 2, "accepted": 2} == counts((await imports.until(name, "DONE")).progress)
    assert MAPPING.fields[0] in suggested.mapping.fields


async def test_an_import_of_products_is_not_undone(imports):
    done = await imports.run(csv_file(ROWS), **OF_PRODUCTS)

    with pytest.raises(FailedPrecondition) as refusal:
        await imports.ask("Undo", done.name)
    assert done.name == refusal.value.metadata["resource"]


async def test_a_check_foretells_a_run_and_records_nothing(workers):
    name = await workers.ready(MANY, **OF_PRODUCTS)

    await workers.ask("Check", name)
    await workers.step()
    assert EXPECTED == counts((await workers.until(name, "READY")).check)
    assert {} == await said(workers)
    await workers.ask("Start", name)
    await workers.step()

    assert EXPECTED == counts((await workers.until(name, "DONE")).progress)
    assert {name} == {actor for facts in (await said(workers)).values() for _, actor in facts}


@pytest.mark.parametrize(("known", "duplicates"), [(2, 1), (1, 0)])
async def test_a_check_knows_as_many_products_again_as_the_limit_says(
    workers, monkeypatch, known, duplicates
):
    monkeypatch.setattr(import_cataloguing, "CHECKED_IDS_MAX", known)
    name = await workers.ready(csv_file([*ROWS, ROWS[2]]), **OF_PRODUCTS)

    await workers.ask("Check", name)
    await workers.step()

    checked = (await workers.until(name, "READY")).check.counts
    assert (3, duplicates) == (checked.rows, checked.duplicate)


@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("place", RECORDING)
async def test_who_takes_an_import_over_counts_and_records_each_row_once(
    workers, monkeypatch, place, when, nth
):
    name = await started(workers)
    kill_at(monkeypatch, RECORDING[place], when, nth)

    await workers.die()
    assert not await workers.step("another")
    await workers.lapse()
    while await workers.step("another"):
        pass

    assert EXPECTED == counts((await workers.until(name, "DONE")).progress)
    facts = await said(workers)
    assert EXPECTED["accepted"] == sum(len(each) for each in facts.values())
    assert ["Thing", "Other"] == [title for title, _ in facts["product-p-148"]]
    assert 24 == len(await workers.row_errors(name, page_size=100))


async def test_a_paused_import_records_nothing_and_goes_on_where_it_was(workers, monkeypatch):
    name = await started(workers)
    save = Claimed.save_deciding
    batches = iter(range(10))

    async def pausing(*args, **kwargs):
        if next(batches) == 1:
            await workers.ask("Pause", name)
        return await save(*args, **kwargs)

    monkeypatch.setattr(Claimed, "save_deciding", pausing)
    await workers.step()
    paused = await workers.until(name, "PAUSED")
    assert 400 == paused.progress.counts.rows
    facts = await said(workers)
    assert paused.progress.counts.accepted == sum(len(each) for each in facts.values())
    assert not await workers.step()

    await workers.ask("Resume", name)
    await workers.step()

    assert EXPECTED == counts((await workers.until(name, "DONE")).progress)


async def test_what_a_cancelled_import_recorded_stays(workers, monkeypatch):
    name = await started(workers)
    kill_at(monkeypatch, RECORDING["all of it is saved"], "after", 2)
    await workers.die()
    await workers.lapse()

    await workers.ask("Cancel", name)

    while await workers.step():
        pass

    assert 768 == sum(len(each) for each in (await said(workers)).values())


async def test_a_batch_that_cannot_be_saved_is_not_counted(workers, monkeypatch):
    """Not even when the import is given up: what is counted was recorded."""
    name = await started(workers)
    add_errors = importing.add_errors
    batches = iter(range(10))

    async def broken(tx, job, errors):
        if errors and next(batches):
            raise ValueError("the second batch")
        await add_errors(tx, job, errors)

    monkeypatch.setattr(importing, "add_errors", broken)
    monkeypatch.setattr(upkeep, "TROUBLE_PAUSE_S", 0)
    for _ in range(upkeep.FAILURES_MAX):
        with pytest.raises(ValueError, match="second"):
            await workers.step()

    failed = await workers.until(name, "FAILED")
    assert ("BUG", 400) == (failed.reason, failed.progress.counts.rows)
    facts = await said(workers)
    assert failed.progress.counts.accepted == sum(len(each) for each in facts.values())


async def test_an_entry_that_somebody_records_meanwhile_is_replaced(workers):
    """Whoever comes later counts, be it a row or a request."""
    products = Asked(ProductsService(workers.kernel))
    lamp = ProductEntry(product_id="p-1", entry=CatalogueEntry(display_name="Theirs"))
    await products.RecordProducts(RecordProductsRequest(products=[lamp]))
    await started(workers)
    await workers.step()
    await products.RecordProducts(RecordProductsRequest(products=[lamp]))

    titles = [title for title, _ in (await said(workers))["product-p-1"]]
    assert ["Theirs", "Thing", "Theirs"] == titles
