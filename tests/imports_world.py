"""Imports as somebody who has a file meets them, and files of every kind with the same rows."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rapport.events.v1 import imports_pb2 as pb
from rapport.events.v1.import_job_pb2 import (
    ImportField,
    ImportFileType,
    ImportFormat,
    ImportMapping,
)
from rapport.events.v1.service_pb2 import ListCustomerEventsRequest
from services.kernel.testing import eventually

CSV = ImportFileType.IMPORT_FILE_TYPE_CSV
JSONL = ImportFileType.IMPORT_FILE_TYPE_JSONL
PARQUET = ImportFileType.IMPORT_FILE_TYPE_PARQUET

WITHIN_S = 30.0


def mapping(*, constants=(), **columns):
    """A mapping of targets to columns: `mapping(user_id="who", properties__sku="sku")`."""
    fields = {"type": ImportField(target="type", constant="track")}
    fields["name"] = ImportField(target="name", constant="Row Imported")
    for target, column in columns.items():
        place = target.replace("__", ".")
        fields[place] = ImportField(target=place, column=column)
    for target, constant in dict(constants).items():
        fields[target] = ImportField(target=target, constant=constant)
    return ImportMapping(fields=fields.values())


def product_mapping(**columns):
    """A mapping of products, by targets: `product_mapping(product_id="id")`."""
    fields = [ImportField(target=target, column=column) for target, column in columns.items()]
    return ImportMapping(fields=fields)


def csv_file(rows, **options):
    """Rows, the first being the header, as a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text, **options).writerows(rows)
    return text.getvalue().encode()


def jsonl_file(rows):
    """Rows, the first being the header, as JSON lines."""
    header, *others = rows
    return b"".join(orjson.dumps(dict(zip(header, row, strict=True))) + b"\n" for row in others)


def parquet_file(rows, **options):
    """Rows, the first being the header, as a Parquet file."""
    header, *others = rows
    columns = {name: [row[place] for row in others] for place, name in enumerate(header)}
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def people(count, begin=1):
    """A file of this many rows: somebody each, with a score."""
    numbers = range(begin, begin + count)
    return csv_file([("who", "score"), *((f"u-{number}", number) for number in numbers)])


def packed(file):
    """The file as gzip packs it."""
    return gzip.compress(file, mtime=0)


@dataclass
class Imports:
    """The imports of one workspace, and the customer events that they bring."""

    stub: Any
    events: Any

    async def create(self, import_id="one", file_type=CSV, **options):
        """A new import; its name."""
        options = {"mapping": mapping(user_id="who", properties__score="score"), **options}
        request = pb.CreateImportRequest(
            import_id=import_id,
            display_name="A file",
            format=options.pop("format", ImportFormat(type=file_type)),
            **options,
        )
        return (await self.stub.CreateImport(request)).import_job.name

    async def upload(self, name, file, chunk_size=64 * 1024):
        """Uploads a file and says that it is complete."""
        for offset in range(0, len(file), chunk_size):
            chunk = file[offset : offset + chunk_size]
            await self.stub.UploadImportChunk(
                pb.UploadImportChunkRequest(name=name, offset_bytes=offset, chunk=chunk)
            )
        response = await self.stub.FinishImportUpload(
            pb.FinishImportUploadRequest(
                name=name, size_bytes=len(file), sha256=hashlib.sha256(file).digest()
            )
        )
        return response.import_job

    async def ask_finish(self, name, **said):
        """Says that the file is complete."""
        request = pb.FinishImportUploadRequest(name=name, **said)
        return (await self.stub.FinishImportUpload(request)).import_job

    async def eventually(self, assertion):
        """Repeats an assertion until it holds."""
        return await eventually(assertion, within_s=WITHIN_S)

    async def ready(self, file, **options):
        """A new import with its file; its name."""
        name = await self.create(**options)
        await self.upload(name, file)
        return name

    async def ask(self, verb, name):
        """Asks something of an import: `ask("Start", name)`."""
        request = getattr(pb, f"{verb}ImportRequest")(name=name)
        return (await getattr(self.stub, f"{verb}Import")(request)).import_job

    async def get(self, name):
        """The import as it is."""
        return (await self.stub.GetImport(pb.GetImportRequest(name=name))).import_job

    async def until(self, name, state, within_s=WITHIN_S):
        """The import as soon as it is in a state: `until(name, "DONE")`."""

        async def reached():
            found = await self.get(name)
            assert f"IMPORT_STATE_{state}" == pb.ImportState.Name(found.state), found
            return found

        return await eventually(reached, within_s=within_s)

    async def run(self, file, **options):
        """A new import, recorded to its end."""
        name = await self.ready(file, **options)
        await self.ask("Start", name)
        return await self.until(name, "DONE")

    async def row_errors(self, name, **options):
        """What was wrong with rows: (row, column, reason)."""
        request = pb.ListImportRowErrorsRequest(name=name, **options)
        listed = await self.stub.ListImportRowErrors(request)
        return [(error.row, error.column, error.reason) for error in listed.row_errors]

    async def listed(self, filter="", page_size=1000):  # noqa: A002, the request's own word
        """The customer events that are listed, by message id."""
        request = ListCustomerEventsRequest(page_size=page_size, filter=filter)
        listed = await self.events.ListCustomerEvents(request)
        return {each.message_id: each for each in listed.customer_events}

    async def until_listed(self, count, filter=""):  # noqa: A002, the request's own word
        """The customer events as soon as this many are listed."""

        async def reached():
            found = await self.listed(filter)
            assert count == len(found)
            return found

        return await eventually(reached, within_s=WITHIN_S)


def counts(progress):
    """The counts that are not 0, by name."""
    return {field.name: value for field, value in progress.counts.ListFields()}
