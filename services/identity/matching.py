"""Compares profiles, in a process of its own: `python -m services.identity.matching`.

Rows come in, pairs go out, each line a batch in JSON; nothing else is read or written. The process
knows no database and no key, writes no file, and may be ended at any moment. Splink is imported
here and nowhere else, so that no service pays for it when it starts.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import msgspec

from services.identity.match_model import (
    FIELDS,
    LEVELS,
    PAIRS_SAMPLED_MAX,
    THOUGHT,
    Chances,
    FieldModel,
    Likeness,
    hundredths,
    learnt,
    odds_before,
    version_of,
)
from services.identity.match_rows import BLOCKS, Row, blocks_of

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection
    from splink import Linker
    from splink.comparison_library import CustomComparison

# What so many share is no clue: a block with more profiles is none.
BLOCK_PROFILES_MAX = 50
# The pairs that are told, the likeliest first.
FOUND_MAX = 20_000
ROWS_PER_LINE = 1_000
MEMORY_BYTES_MAX = 2 * 1024**3
CPU_S_MAX = 1_800
# One thread: whoever asks something comes first, and sums are in one order.
THREADS = 1
NICENESS = 10
OUT_OF_MEMORY = "OUT_OF_MEMORY"
BUG = "BUG"

_SAMPLE_SEED = 1
_COLUMNS = tuple(field.name for field in FIELDS)
_WEIGHED = tuple(
    f"{part}_{field.name}"
    for field in FIELDS
    for part in ("gamma", "mw", "mw_tf_adj")
    if part != "mw_tf_adj" or field.counts_rarity
)


class FoundEvidence(NamedTuple):
    """What a field says: numbers of MatchField and MatchAgreement, and hundredths of a weight."""

    field: int
    agreement: int
    weight_hundredths: int


class FoundPair(NamedTuple):
    """Two profiles that may be one person, and why."""

    one: str
    other: str
    weight_hundredths: int
    evidence: tuple[FoundEvidence, ...]


class Told(msgspec.Struct, omit_defaults=True):
    """A line of the answer: some pairs, or at the end what was done, or why it could not be."""

    pairs: tuple[FoundPair, ...] = ()
    profiles: int = 0
    compared: int = 0
    found: int = 0
    model_version: str = ""
    failed: str = ""


class Comparison(NamedTuple):
    """What comparing profiles led to: at most FOUND_MAX pairs of those that were found."""

    pairs: list[FoundPair]
    profiles: int
    compared: int
    found: int
    model_version: str


def compare(rows: Sequence[Row]) -> Comparison:
    """Compares profiles that share a block; the same rows, in any order, lead to the same pairs."""
    profiles = len(rows)
    if profiles < 2:  # noqa: PLR2004, a pair
        return Comparison([], profiles, 0, 0, version_of(THOUGHT, profiles))
    connection = _loaded(rows)
    chances = _learnt(connection, profiles)
    linker = _linker(connection, chances, profiles)
    blocked = linker.inference.compute_blocked_pairs_for_predict()
    [[compared]] = connection.sql(f"select count(*) from {blocked.physical_name}").fetchall()
    table = linker.inference.predict(threshold_match_weight=0, warning_mode="never").physical_name
    [[found]] = connection.sql(f"select count(*) from {table}").fetchall()
    best = connection.sql(
        f"select unique_id_l, unique_id_r, match_weight, {', '.join(_WEIGHED)} from {table}"
        f" order by round(match_weight, 2) desc, unique_id_l, unique_id_r limit {FOUND_MAX}"
    )
    pairs = [_pair(dict(zip(best.columns, record, strict=True))) for record in best.fetchall()]
    pairs.sort(key=lambda pair: (-pair.weight_hundredths, pair.one, pair.other))
    return Comparison(pairs, profiles, compared, found, version_of(chances, profiles))


def _loaded(rows: Sequence[Row]) -> DuckDBPyConnection:
    """A database in memory with the rows in it, each in the blocks that are none too large."""
    import duckdb  # noqa: PLC0415, as splink
    import pyarrow as pa  # noqa: PLC0415

    connection = duckdb.connect(
        config={
            "threads": THREADS,
            "memory_limit": f"{MEMORY_BYTES_MAX}B",
            # What does not fit fails: nobody's name is to be left in a file.
            "temp_directory": "",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
    )
    ordered = sorted(rows)
    texts = list(zip(*(row.compared for row in ordered), strict=True))
    blocks = list(zip(*(blocks_of(row.compared) for row in ordered), strict=True))
    columns = {"unique_id": pa.array([row.profile for row in ordered], pa.string())}
    columns |= {
        name: pa.array(column, pa.string()) for name, column in zip(_COLUMNS, texts, strict=True)
    }
    columns |= {f"block_{n}": pa.array(column, pa.string()) for n, column in enumerate(blocks)}
    columns["named"] = pa.array([list(row.named) for row in ordered], pa.list_(pa.string()))
    connection.register("told", pa.table(columns))
    connection.execute(
        f"create table profiles as select unique_id, {', '.join(_COLUMNS)}, named, "
        + ", ".join(
            f"case when count(*) over (partition by block_{n}) <= {BLOCK_PROFILES_MAX}"
            f" then block_{n} end as block_{n}"
            for n in range(BLOCKS)
        )
        + " from told order by unique_id"
    )
    connection.unregister("told")
    return connection


def _learnt(connection: DuckDBPyConnection, profiles: int) -> Chances:
    """How often strangers agree, from a sample of pairs, always the same of the same profiles."""
    linker = _linker(connection, THOUGHT, profiles)
    linker.training.estimate_u_using_random_sampling(
        max_pairs=PAIRS_SAMPLED_MAX, seed=_SAMPLE_SEED, min_count_per_level=None, num_chunks=1
    )
    model = linker.misc.save_model_to_json()
    seen = {
        comparison["output_column_name"]: tuple(
            level["u_probability"] if isinstance(level.get("u_probability"), float) else None
            for level in comparison["comparison_levels"]
            if not level.get("is_null_level")
        )
        for comparison in model["comparisons"]
    }
    counts = ", ".join(f"count({name})" for name in _COLUMNS)
    [told] = connection.sql(f"select {counts} from profiles").fetchall()
    shares = {name: count / profiles for name, count in zip(_COLUMNS, told, strict=True)}
    return learnt(seen, shares, profiles)


def _linker(connection: DuckDBPyConnection, chances: Chances, profiles: int) -> Linker:
    from splink import DuckDBAPI, Linker, SettingsCreator, block_on  # noqa: PLC0415

    rules: list[Any] = [block_on(f"block_{n}") for n in range(BLOCKS)]
    rules.append(block_on("named", arrays_to_explode=["named"]))
    settings = SettingsCreator(
        link_type="dedupe_only",
        comparisons=[_comparison(field, chances[field.name]) for field in FIELDS],
        blocking_rules_to_generate_predictions=rules,
        probability_two_random_records_match=odds_before(profiles),
        retain_intermediate_calculation_columns=True,
        # Levels of agreement come along with the values only; those are not read.
        retain_matching_columns=True,
    )
    table = DuckDBAPI(connection=connection).register("profiles")
    return Linker(table, settings, log_level=None)


def _comparison(field: FieldModel, strangers: Sequence[float]) -> CustomComparison:
    from splink import comparison_level_library as levels  # noqa: PLC0415
    from splink.comparison_library import CustomComparison  # noqa: PLC0415

    name = field.name
    if field.likeness is Likeness.NAME:
        alike: Any = levels.JaroWinklerLevel(name, field.similarity_min)
    else:
        alike = levels.DamerauLevenshteinLevel(name, 1)
    exact = levels.ExactMatchLevel(name, term_frequency_adjustments=field.counts_rarity)
    weighed = [
        level.configure(m_probability=same, u_probability=chance)
        for level, same, chance in zip(
            (exact, alike, levels.ElseLevel()), field.same_person, strangers, strict=True
        )
    ]
    return CustomComparison([levels.NullLevel(name), *weighed], output_column_name=name)


def _pair(record: dict[str, Any]) -> FoundPair:
    one, other = sorted((record["unique_id_l"], record["unique_id_r"]))
    evidence = []
    for field in FIELDS:
        level = record[f"gamma_{field.name}"]
        if level < 0:
            continue
        weight = record[f"mw_{field.name}"] + record.get(f"mw_tf_adj_{field.name}", 0.0)
        # Splink counts levels from the least.
        agreement = LEVELS[len(LEVELS) - 1 - level]
        evidence.append(FoundEvidence(field.field, agreement, hundredths(weight)))
    return FoundPair(one, other, hundredths(record["match_weight"]), tuple(evidence))


def read_rows(lines: Iterable[bytes]) -> list[Row]:
    """Reads what `lines_of_rows` wrote."""
    decoder = msgspec.json.Decoder(list[Row])
    return [row for line in lines for row in decoder.decode(line)]


def line_of_rows(rows: Sequence[Row]) -> bytes:
    """Writes some rows as a line."""
    return msgspec.json.encode(rows) + b"\n"


def lines_of(comparison: Comparison) -> Iterator[bytes]:
    """Writes what was found as lines, at the end what was done."""
    for start in range(0, len(comparison.pairs), ROWS_PER_LINE):
        part = tuple(comparison.pairs[start : start + ROWS_PER_LINE])
        yield msgspec.json.encode(Told(pairs=part)) + b"\n"
    _, profiles, compared, found, version = comparison
    told = Told(profiles=profiles, compared=compared, found=found, model_version=version)
    yield msgspec.json.encode(told) + b"\n"


def main(told: IO[bytes], answer: IO[bytes]) -> None:
    """Compares what comes in; a failure is told by its kind alone, for its text may hold values."""
    os.nice(NICENESS)
    # Whoever asked may be gone: then nobody ends this but the system.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S_MAX, CPU_S_MAX))
    try:
        for line in lines_of(compare(read_rows(told))):
            answer.write(line)
    except Exception as error:  # noqa: BLE001, it is told
        is_memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryException"
        failed = OUT_OF_MEMORY if is_memory else BUG
        answer.write(msgspec.json.encode(Told(failed=failed, model_version=type(error).__name__)))
        answer.write(b"\n")
    answer.flush()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
