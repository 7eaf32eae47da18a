"""What `make import-deals` and `make export-deals` leave behind and make of odd files."""

import csv
import gzip

import pytest

from deploy.deal_files.reading import BadRow
from deploy.export_deals import Wish, export
from deploy.import_deals import lines_of, shown, write_wrong
from rapport.deals.v1.exports_pb2 import ExportDealsResponse
from services.kernel.errors import Unavailable


class Exports:
    """An export of two pages."""

    ExportDeals = "ExportDeals"


async def test_an_export_that_breaks_off_leaves_the_file_as_it_was_and_nothing_beside(tmp_path):
    file = tmp_path / "deals.csv"
    file.write_text("before")
    pages = [ExportDealsResponse(csv="first", next_page_token="next")]

    async def ask(_method, _request):
        if not pages:
            raise Unavailable("gateway")
        return pages.pop()

    with pytest.raises(Unavailable):
        await export(Exports, ask, Wish(file))

    assert ["before"] == [each.read_text() for each in tmp_path.iterdir()]


def test_what_is_wrong_is_told_in_cells_that_no_spreadsheet_takes_for_a_formula(tmp_path):
    file = tmp_path / "new" / "wrong.csv"

    write_wrong(file, [BadRow(2, "=cmd|x", "open_time", "CELL_INVALID", "-1 is no time")])

    with file.open(newline="") as opened:
        assert ["2", "'=cmd|x", "open_time", "CELL_INVALID", "'-1 is no time"] == [
            *csv.reader(opened)
        ][1]


def test_what_a_file_says_does_not_command_the_terminal():
    assert "�[31mRed\\[bold]� Füße" == shown("\x1b[31mRed[bold]\x07 Füße")


@pytest.mark.parametrize("spoil", [lambda data: data[:-12], lambda data: data[:20] + b"x" * 20])
def test_a_compressed_file_that_is_damaged_is_refused(tmp_path, spoil):
    file = tmp_path / "deals.csv.gz"
    file.write_bytes(spoil(gzip.compress(b"deal_id,open_time\n" * 1000)))

    with pytest.raises(ValueError, match=r"deals\.csv\.gz is damaged"):
        list(lines_of(file))
