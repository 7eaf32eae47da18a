"""The demo tells a story that holds, and what it loads is there completely and once."""

import gzip
import io
import uuid
from pathlib import Path

import pytest
from rich.console import Console

from deploy.demo.__main__ import load_directory, load_generated, main
from deploy.demo.answers import show_answers
from deploy.demo.collecting import show_collection
from deploy.demo.report import problems_of
from deploy.demo.story import Story, new_person
from deploy.demo.telling import Teller

DATA = Path(__file__).parents[2].parent / "shared" / "data"
RETAIL = "online_retail/online_retail_2010-12_2011-01.csv.gz"

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets do not lie beside the repository"
)


@pytest.fixture
def teller():
    return Teller(Console(file=io.StringIO()))


@pytest.fixture
def demo(platform, monkeypatch, capsys):
    """Runs the command line and returns its exit status and what it said."""
    monkeypatch.setenv("RAPPORT_DATA_DIR", str(platform["data_dir"]))

    def run(*arguments):
        return main(list(map(str, arguments))), capsys.readouterr().out

    return run


def cut(directory, name, wanted):
    """Copies the lines of a real file that are wanted, told by their number and text."""
    lines = gzip.decompress((DATA / name).read_bytes()).decode().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines, start=1) if wanted(number, line)]
    (directory / name).parent.mkdir(exist_ok=True)
    (directory / name).write_bytes(gzip.compress("".join(kept).encode()))


@pytest.fixture(scope="module")
def extract(tmp_path_factory):
    """Small parts of the real sets, with what is difficult about each."""
    directory = tmp_path_factory.mktemp("extract")
    # 537434 has 675 lines and comes in two parts; 536591 was written over two minutes.
    difficult = ("InvoiceNo", "537434,", "536591,", "C536379,")
    cut(directory, RETAIL, lambda number, line: number <= 201 or line.startswith(difficult))
    # The first of these does not fit a log, the other has a path of more than 500 characters.
    cut(
        directory,
        "access_log/apache_logs_ip_masked.log.gz",
        lambda number, _: number <= 200 or number in {3029, 8899},
    )
    cut(directory, "b2b_deals/Salvirt_B2B_ML_dataset.csv.gz", lambda number, _: number <= 41)
    # Row 179 has no name; the end of this set has no end of line.
    cut(directory, "people/dataset3.csv.gz", lambda number, _: number <= 200)
    cut(
        directory,
        "people/dataset4a.csv.gz",
        lambda number, line: number == 1 or not line.endswith("\n"),
    )
    return directory


async def test_the_story_holds(door, teller):
    story = Story(door, teller, new_person(uuid.uuid4().hex[:8]))

    await story.tell()
    await show_answers(story)

    assert "Customer 360" in teller.console.file.getvalue()


async def test_a_shop_sends_and_a_second_time_only_its_own_is_new(door, teller):
    run = uuid.uuid4().hex[:8]
    for number in (1, 2):
        story = Story(door, teller, new_person(f"{run}{number}"))
        await story.browse()
        await story.sign_up()
        await show_collection(story)

    said = teller.console.file.getvalue()
    assert 2 == said.count("would have quarantined 1 of 4")
    assert 2 == said.count("trackingPlans/demo-shop@1 is in force")


@needs_data
async def test_real_input_arrives_completely_and_a_second_time_changes_nothing(
    door, teller, extract
):
    first = await load_directory(door, teller, extract)
    second = await load_directory(door, teller, extract)

    assert [] == problems_of([*first, *second])
    counts = {it.file: (it.rows, it.sent, it.accepted, it.known, len(it.refused)) for it in first}
    assert {
        RETAIL: (915, 28, 28, 0, 0),
        "access_log/apache_logs_ip_masked.log.gz": (202, 201, 201, 0, 1),
        "b2b_deals/Salvirt_B2B_ML_dataset.csv.gz": (40, 40, 40, 0, 0),
        "people/dataset3.csv.gz": (199, 199, 198, 0, 1),
        "people/dataset4a.csv.gz": (1, 1, 1, 0, 0),
    } == counts
    assert [(0, it.accepted) for it in first] == [(it.accepted, it.known) for it in second]
    assert [it.refused for it in first] == [it.refused for it in second]


@needs_data
async def test_the_numbers_compared_are_those_of_the_file(door, teller, extract):
    loads = {load.file: load for load in await load_directory(door, teller, extract)}

    retail = {it.what: it.at_platform for it in loads[RETAIL].comparisons}
    lines = gzip.decompress((extract / RETAIL).read_bytes()).decode().splitlines()[1:]
    invoices = {line.partition(",")[0] for line in lines}
    assert len(lines) == retail["order lines"]
    assert sum(not invoice.startswith("C") for invoice in invoices) == retail["Order Completed"]
    assert 1 == retail["Order Continued"]
    deals = {
        it.what: it.at_platform
        for it in loads["b2b_deals/Salvirt_B2B_ML_dataset.csv.gz"].comparisons
    }
    assert (40, 40 * 22) == (deals["WON"] + deals.get("LOST", 0), deals["fields"])


@needs_data
async def test_a_refused_row_is_told_with_the_reason_of_the_platform(door, teller, extract):
    loads = {load.file: load for load in await load_directory(door, teller, extract)}

    (nameless,) = loads["people/dataset3.csv.gz"].refused
    assert 179 == nameless.line
    assert nameless.reason.startswith("FIELD_INVALID: given_name, family_name, email, phone:")
    (broken,) = loads["access_log/apache_logs_ip_masked.log.gz"].refused
    assert (202, True) == (broken.line, broken.row.startswith("10.0.4.44 "))


async def test_the_generated_world_arrives_completely(door, teller):
    loads = await load_generated(door, teller)

    assert [] == problems_of(loads)
    assert [0, 0, 0] == [len(load.refused) for load in loads]
    assert "GENERATED" in teller.console.file.getvalue()


@needs_data
def test_the_command_line_says_what_is_absent_and_exits_0(demo, tmp_path):
    cut(tmp_path, "b2b_deals/Salvirt_B2B_ML_dataset.csv.gz", lambda number, _: number <= 11)

    status, said = demo("--data", tmp_path)

    assert 0 == status, said
    assert "Using the platform that runs" in said
    assert "absent      online_retail, access_log, people" in said
    assert "What the pipeline says of the cases" in said


def test_input_that_the_platform_has_otherwise_makes_it_exit_1(demo, tmp_path):
    prices = tmp_path / "online_retail" / "orders.csv"
    prices.parent.mkdir()
    columns = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    row = f"{uuid.uuid4().hex[:8]},1,LAMP,2,2010-12-01 08:26:00,{{}},,France"
    prices.write_text(f"{columns}\n{row.format('2.50')}\n")
    before, said_before = demo("--data", tmp_path)
    prices.write_text(f"{columns}\n{row.format('2.60')}\n")

    after, said = demo("--data", tmp_path)

    assert 0 == before, said_before
    assert 1 == after, said
    assert "GBP minor: 520 in the file, 500 at the platform" in said


def test_a_directory_without_a_set_we_know_is_told(demo, tmp_path):
    status, said = demo("--data", tmp_path)

    assert 1 == status
    assert "holds none of the sets" in said
