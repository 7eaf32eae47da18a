"""A real file as people have it: two months of a shop, with all its dirt."""

import gzip
from pathlib import Path

import orjson
import pytest

from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import ImportField, ImportMapping, ImportValueType
from tests.imports_world import counts

DATA = Path(__file__).parents[4] / "shared" / "data" / "online_retail"
FILES = sorted(DATA.glob("*.csv.gz"))
ROWS_MAX = 3_000

needs_data = pytest.mark.skipif(
    not FILES, reason="the real data sets do not lie beside the repository"
)


@pytest.fixture
def retail():
    """The first rows of the shop's file, packed as it is."""
    with gzip.open(FILES[0]) as file:
        return gzip.compress(b"".join(file.readline() for _ in range(ROWS_MAX + 1)))


@needs_data
async def test_a_shops_lines_become_customer_events_by_a_suggested_mapping(imports, retail):
    name = await imports.create(mapping=None)
    await imports.upload(name, retail)
    request = pb.SuggestImportMappingRequest(name=name)
    suggested = (await imports.stub.SuggestImportMapping(request)).mapping
    await imports.stub.MapImport(pb.MapImportRequest(name=name, mapping=_of_the_shop(suggested)))

    await imports.ask("Start", name)
    done = await imports.until(name, "DONE", within_s=60)

    assert {"rows": ROWS_MAX, "accepted": ROWS_MAX} == counts(done.progress)
    listed = await imports.listed(page_size=1_000, filter='user_id = "17850"')
    first = listed[f"{name}/1"]
    assert "2010-12-01T08:26:00Z" == first.occur_time.ToJsonString()
    assert {
        "InvoiceNo": "536365",
        "StockCode": "85123A",
        "Description": "WHITE HANGING HEART T-LIGHT HOLDER",
        "Quantity": 6,
        "UnitPrice": 2.55,
        "Country": "United Kingdom",
    } == orjson.loads(first.properties)


def _of_the_shop(suggested):
    """The suggested mapping, with what only the shop knows."""
    fields = {field.target: field for field in suggested.fields}
    fields["user_id"].constant = ""
    fields["anonymous_id"] = ImportField(target="anonymous_id", column="InvoiceNo")
    fields["original_time"].time_zone = "Europe/London"
    fields["name"].constant = "Line Ordered"
    fields["properties.InvoiceNo"].type = ImportValueType.IMPORT_VALUE_TYPE_STRING
    return ImportMapping(fields=fields.values())
