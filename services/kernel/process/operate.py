"""What an operator does with a service's views, by `python -m services.<name> <command>`.

It runs beside the serving processes and needs only their database and, for views fed by other
logs, their owners.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from rapport.common.v1.subjects_pb2 import ErasureStage
from services.kernel.clock import SystemClock
from services.kernel.erasing import register
from services.kernel.erasing.proof import SOUGHT_LENGTH_MIN, find_in_files
from services.kernel.errors import RapportError
from services.kernel.feed.source import open_sources
from services.kernel.process.runtime import Service, make_kernel, open_pool
from services.kernel.views import parking
from services.kernel.views.checkpoint import Place, read_positions
from services.kernel.views.projection import retry_parked
from services.kernel.views.rebuild import (
    Comparison,
    DifferenceError,
    Rebuild,
    RebuildError,
)
from services.kernel.views.view import list_generations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from services.kernel.process.config import ServiceConfig
    from services.kernel.process.runtime import Kernel

OK, FAILED = 0, 1
_DATA_DIRECTORY = "select current_setting('data_directory')"
# Wider than any line: what is piped is read by programs, which find a row in one line.
PLAIN_WIDTH = 10_000


def _console_on(stream: TextIO, **options: Any) -> Console:
    if stream.isatty():
        return Console(**options)
    return Console(**options, width=PLAIN_WIDTH, color_system=None)


_console = _console_on(sys.stdout)


class OperatorError(Exception):
    """When the operator asked for something that is not there."""


async def run(service: Service, config: ServiceConfig, words: Sequence[str]) -> int:
    """Do what the words say; answers the exit status."""
    asked = _parse(service, words)
    commands: dict[str, Callable[[Service, ServiceConfig, Kernel, Any], Awaitable[None]]] = {
        "views": _views,
        "rebuild": _rebuild,
        "compare": _compare,
        "swap": _swap,
        "drop": _drop,
        "parked": _parked,
        "retry": _retry,
        "erasures": _erasures,
        "prove-erased": _prove_erased,
    }
    try:
        async with open_pool(config.database_url) as pool:
            kernel = make_kernel(
                pool, service, config.partitions, SystemClock(), secret=config.internal_secret
            )
            await commands[asked.command](service, config, kernel, asked)
    except (OperatorError, RebuildError, DifferenceError, RapportError) as error:
        console = _console_on(sys.stderr, stderr=True)
        console.print(f"[red]{asked.command}:[/red] {escape(str(error))}")
        return FAILED
    return OK


def _parse(service: Service, words: Sequence[str]) -> Any:
    parser = argparse.ArgumentParser(prog=f"python -m services.{service.name}", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("views", help="the generations of each view, and how far they are")
    names = [v.name for v in (*service.views, *(c.view for c in service.consumers))]
    for command, help_text in (
        ("rebuild", "build a new generation beside the live one; resumes an unfinished one"),
        ("compare", "compare the new generation with the live one at the same position"),
        ("swap", "make the new generation the live one; keeps the old one"),
        ("drop", "remove a generation that is not live"),
    ):
        found = commands.add_parser(command, help=help_text)
        found.add_argument("view", choices=names)
        if command == "swap":
            found.add_argument("--accept-difference", action="store_true")
        if command == "drop":
            found.add_argument("generation", type=int)
    commands.add_parser("parked", help="events put aside because they could not be applied")
    retry = commands.add_parser("retry", help="apply a parked stream again")
    for word in ("consumer", "source", "partition", "workspace", "stream"):
        retry.add_argument(word, type=int if word == "partition" else str)
    commands.add_parser("erasures", help="whom was asked to be erased, and how far that is")
    prove = commands.add_parser("prove-erased", help="look for a text in every byte of all files")
    prove.add_argument("text", help="what only the erased person had, e.g. an e-mail address")
    prove.add_argument("folders", nargs="*", type=Path, help="of feeds, exports and backups")
    return parser.parse_args(words)


async def _views(service: Service, _config: ServiceConfig, kernel: Kernel, _asked: Any) -> None:
    table = Table("view", "generation", "status", "shape", "created", "positions", box=None)
    for row in await list_generations(kernel.pool):
        of_checkpoint = 0 if row["status"] == "LIVE" else row["generation"]
        positions = await read_positions(kernel.pool, row["view"], of_checkpoint)
        said = ", ".join(f"{source}-{p}: {at}" for (source, p), at in sorted(positions.items()))
        inline = row["view"] in {view.name for view in service.views}
        table.add_row(
            row["view"],
            str(row["generation"]),
            row["status"],
            str(row["shape"]),
            f"{row['create_time']:%Y-%m-%d %H:%M}",
            said or ("with the log" if inline and row["status"] == "LIVE" else "-"),
        )
    _console.print(table)


async def _rebuild(service: Service, config: ServiceConfig, kernel: Kernel, asked: Any) -> None:
    async with open_sources(_source_names(service, asked.view), config, kernel.pool) as sources:
        rebuild = _rebuild_of(service, kernel, asked.view, sources)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>9,.0f} events/s"),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=_console, disable=not sys.stdout.isatty()) as bar:
            task = bar.add_task(asked.view, total=None, rate=0.0)
            async for progress in rebuild.build():
                rate = progress.done / progress.elapsed_s if progress.elapsed_s else 0.0
                bar.update(task, completed=progress.done, total=progress.total, rate=rate)
        _console.print(
            f"{asked.view}: {progress.done} events in {progress.elapsed_s:.1f} s ({rate:,.0f}/s); "
            f"now `compare {asked.view}`, then `swap {asked.view}`"
        )


async def _compare(service: Service, config: ServiceConfig, kernel: Kernel, asked: Any) -> None:
    async with open_sources(_source_names(service, asked.view), config, kernel.pool) as sources:
        comparison = await _rebuild_of(service, kernel, asked.view, sources).compare()
    _show(comparison)
    if not comparison.equal:
        raise DifferenceError(f"the generations of {asked.view} differ at the same position")


async def _swap(service: Service, config: ServiceConfig, kernel: Kernel, asked: Any) -> None:
    async with open_sources(_source_names(service, asked.view), config, kernel.pool) as sources:
        rebuild = _rebuild_of(service, kernel, asked.view, sources)
        _show(await rebuild.swap(accept_difference=asked.accept_difference))
    _console.print(
        f"{asked.view}: the new generation is live; `views` shows the old one, `drop` removes it"
    )


async def _drop(service: Service, _config: ServiceConfig, kernel: Kernel, asked: Any) -> None:
    await _rebuild_of(service, kernel, asked.view, {}).drop(asked.generation)
    _console.print(f"{asked.view}: generation {asked.generation} is gone")


async def _parked(service: Service, _config: ServiceConfig, kernel: Kernel, _asked: Any) -> None:
    table = Table(
        "consumer",
        "source",
        "position",
        "workspace",
        "stream",
        "type",
        "attempts",
        "reason",
        box=None,
    )
    for consumer in service.consumers:
        for row in await parking.list_parked(kernel.pool, consumer.name):
            table.add_row(
                row["consumer"],
                f"{row['source']}-{row['partition']}",
                str(row["position"]),
                row["workspace"],
                row["stream"],
                row["type"],
                str(row["attempts"]),
                escape(row["reason"]),
            )
    _console.print(table if table.row_count else "nothing is parked")


async def _retry(service: Service, config: ServiceConfig, kernel: Kernel, asked: Any) -> None:
    consumers = {consumer.name: consumer for consumer in service.consumers}
    if asked.consumer not in consumers:
        raise OperatorError(f"no consumer {asked.consumer}; there are: {', '.join(consumers)}")
    consumer = consumers[asked.consumer]
    if asked.source not in consumer.sources:
        known = ", ".join(consumer.sources)
        raise OperatorError(f"{consumer.name} reads no source {asked.source}; it reads: {known}")
    place = Place(consumer.name, asked.source, asked.partition)
    async with open_sources(consumer.sources, config, kernel.pool) as sources:
        read = sources[asked.source].read
        count = await retry_parked(
            kernel.pool,
            kernel.log,
            consumer,
            place,
            asked.workspace,
            asked.stream,
            read,
            service.views,
        )
    _console.print(f"{asked.stream}: {count} events applied")


async def _erasures(service: Service, _config: ServiceConfig, kernel: Kernel, _asked: Any) -> None:
    table = Table("workspace", "erasure", "stage", "erased", "problem", "left to others", box=None)
    for known in await register.all_erasures(kernel.pool):
        table.add_row(
            known.workspace,
            known.name,
            ErasureStage.Name(known.stage).removeprefix("ERASURE_STAGE_"),
            ", ".join(f"{count} {system}" for system, count in sorted(known.counts.items())),
            escape(known.problem),
            escape("; ".join(known.notes)),
        )
    _console.print(table if table.row_count else f"nobody was erased from {service.name}")


async def _prove_erased(
    _service: Service, _config: ServiceConfig, kernel: Kernel, asked: Any
) -> None:
    if len(asked.text) < SOUGHT_LENGTH_MIN:
        raise OperatorError(
            f"a text of less than {SOUGHT_LENGTH_MIN} characters is found by chance"
        )
    # What the server still holds in memory has to be in the files to be found there.
    await kernel.pool.execute("checkpoint")
    folders = [Path(await kernel.pool.fetchval(_DATA_DIRECTORY)), *asked.folders]
    if missing := [f"{folder}" for folder in folders if not folder.exists()]:
        raise OperatorError(f"not on this machine, or closed to us: {', '.join(missing)}")
    found = list(find_in_files(asked.text, folders))
    for file in found:
        _console.print(f"{file.path}: {file.count}")
    if found:
        raise OperatorError(f"{len(found)} files hold that text")
    _console.print(f"no file below {', '.join(map(str, folders))} holds that text")


def _source_names(service: Service, view: str) -> Sequence[str]:
    return next((c.sources for c in service.consumers if c.name == view), ())


def _rebuild_of(service: Service, kernel: Kernel, view: str, sources: Any) -> Rebuild:
    """The rebuild of a view by name, inline or fed."""
    readers = {name: source.read for name, source in sources.items()}
    for consumer in service.consumers:
        if consumer.name == view:
            return Rebuild.of_consumer(kernel.pool, kernel.log, consumer, readers, service.views)
    inline = next(found for found in service.views if found.name == view)
    return Rebuild(kernel.pool, kernel.log, inline, service.event_types, {})


def _show(comparison: Comparison) -> None:
    table = Table("table", "live rows", "new rows", "", box=None)
    for name in sorted({*comparison.live, *comparison.built}):
        live, built = comparison.live.get(name), comparison.built.get(name)
        verdict = "[green]equal[/green]" if live == built else "[red]different[/red]"
        rows = [str(found[0]) if found else "-" for found in (live, built)]
        table.add_row(name, *rows, verdict)
    _console.print(table)
