"""What `make import-deals` says of a file, and that `make export-deals` writes it again."""

import io

import pytest
from rich.console import Console

from deploy.demo.telling import Teller
from deploy.export_deals import Wish as ExportWish
from deploy.export_deals import export
from deploy.import_deals import ImportingDeals, Wish
from rapport.deals.v1.exports_pb2_grpc import DealExportsServiceStub
from rapport.deals.v1.imports_pb2_grpc import DealImportsServiceStub
from rapport.deals.v1.pipelines_pb2_grpc import PipelinesServiceStub

CHANGES = (
    "Deal ID,Property,Value,Timestamp\n"
    "d-1,dealname,Looms,2025-01-07\n"
    "d-1,amount,1200,2025-01-07\n"
    "d-1,dealstage,Closed won,2025-03-01\n"
    "d-2,dealstage,Nowhere,2025-01-07\n"
    "d-3,expected_close_time,2999-01-01,2025-01-07\n"
    "d-3,dealstage,Proposal,2999-01-01\n"
)


async def ask(method, request):
    """Asks once."""
    return await method(request)


@pytest.fixture
def command(asked, tmp_path):
    """Runs the command; answers whether nothing was wrong, and what it said."""

    async def command(**wish):
        said = io.StringIO()
        importing = ImportingDeals(
            asked.stub(DealImportsServiceStub),
            asked.stub(PipelinesServiceStub),
            ask,
            Teller(Console(file=said, width=200)),
            tmp_path / "wrong.csv",
        )
        return await importing.run(Wish(**wish)), said.getvalue().splitlines()

    return command


async def test_a_file_is_checked_imported_mended_and_imported_again(asked, command, tmp_path):
    file, written = tmp_path / "changes.csv", tmp_path / "written.csv"
    file.write_text(CHANGES, encoding="utf-8-sig")
    exports = asked.stub(DealExportsServiceStub)

    is_right, checked = await command(file=file, currency="EUR", check_only=True)
    assert not is_right
    assert "would be 1 imported" in checked[-1]
    assert 0 == await export(exports, ask, ExportWish(written))

    is_right, said = await command(file=file, currency="EUR")
    assert not is_right
    assert said[-1] == (
        "changes.csv: 1 imported, 0 there already, 0 there with another history, "
        "1 refused, 1 unreadable"
    )
    wrong = (tmp_path / "wrong.csv").read_text().splitlines()
    assert ["5,d-2,stage,CELL_INVALID", "6,d-3,changes[0].occur_time,FIELD_INVALID"] == [
        ",".join(line.split(",")[:4]) for line in wrong[1:]
    ]

    file.write_text("".join(CHANGES.splitlines(keepends=True)[:4]))
    assert await command(file=file, currency="EUR") == (True, [*_layout(3), _again(1)])
    assert not (tmp_path / "wrong.csv").exists()

    assert 1 == await export(exports, ask, ExportWish(written, changes=True))
    assert [
        "deal_id,time,field,value",
        "d-1,2025-01-07T00:00:00Z,name,Looms",
        "d-1,2025-01-07T00:00:00Z,state,OPEN",
        "d-1,2025-01-07T00:00:00Z,stage,pipelines/sales/stages/qualification",
        "d-1,2025-01-07T00:00:00Z,amount,1200.00",
        "d-1,2025-01-07T00:00:00Z,currency,EUR",
        "d-1,2025-03-01T00:00:00Z,state,WON",
        "d-1,2025-03-01T00:00:00Z,stage,pipelines/sales/stages/won",
    ] == written.read_text().splitlines()


def _layout(rows):
    """What is said of a file of changes with so many rows and one deal."""
    columns = {"Deal ID": "deal_id", "Property": "field", "Value": "value", "Timestamp": "time"}
    return [
        f"{rows} rows, one row per change",
        *(f"  {name:32} {means}" for name, means in columns.items()),
        "  changes.csv: 1 of 1",
    ]


def _again(count):
    return (
        f"changes.csv: 0 imported, {count} there already, 0 there with another history, "
        "0 refused, 0 unreadable"
    )


async def test_a_file_that_is_not_in_utf_8_is_refused(command, tmp_path):
    file = tmp_path / "deals.csv"
    file.write_bytes(b"deal_id,open_time,name\na,2026-01-01,Caf\xe9\n")

    with pytest.raises(ValueError, match="save it as CSV in UTF-8"):
        await command(file=file)
