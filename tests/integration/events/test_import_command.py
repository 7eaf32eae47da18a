"""What `make import` says of an import, and that it does it."""

import orjson
import pytest

from deploy.importing import Importing, Wish, type_of
from tests.imports_world import CSV, JSONL, PARQUET, csv_file


@pytest.fixture
def command(imports):
    """Runs the command; answers whether nothing was wrong, and what it said."""

    async def ask(method, request):
        return await method(request)

    async def command(**wish):
        said = []
        is_right = await Importing(imports.stub, ask, said.append).run(Wish(**wish))
        return is_right, said

    return command


@pytest.fixture
def orders(tmp_path):
    """A file with a row that is wrong."""
    file = tmp_path / "orders.csv"
    file.write_bytes(csv_file([("user_id", "event", "total"), ("a", "Order", 1), ("", "Order", 2)]))
    return file


async def test_a_file_is_imported_by_a_suggested_mapping_and_undone(imports, command, orders):
    is_right, said = await command(file=orders)

    assert not is_right
    name = said[0].split()[0]
    assert f"{name} is DONE" == said[-1]
    assert any("NO_IDENTIFIER" in line for line in said)
    assert 1 == len(await imports.until_listed(1))

    is_right, said = await command(undo=name)
    assert (True, f"{name} is UNDONE: 1 customer events were retracted") == (is_right, said[-1])


async def test_a_check_imports_nothing(imports, command, orders, tmp_path):
    mapping = tmp_path / "mapping.json"
    fields = [
        {"target": "type", "constant": "track"},
        {"target": "name", "column": "event"},
        {"target": "user_id", "column": "user_id", "constant": "nobody"},
    ]
    mapping.write_bytes(orjson.dumps({"fields": fields}))

    is_right, said = await command(file=orders, mapping=mapping, check_only=True)

    assert is_right
    assert "rows 2 accepted 2" in said[-2]
    assert said[-1].endswith("is READY")
    assert {} == await imports.listed()


@pytest.mark.parametrize(
    ("name", "file_type"),
    [("a.csv", CSV), ("a.CSV.gz", CSV), ("a.b.jsonl", JSONL), ("a.parquet", PARQUET)],
)
def test_how_a_file_is_written_is_told_by_its_name(tmp_path, name, file_type):
    assert file_type == type_of(tmp_path / name)
    with pytest.raises(ValueError, match="must end in"):
        type_of(tmp_path / "a.xlsx")
