"""What is compared is bounded and told line by line; who does not ask for it pays nothing."""

import io
from pathlib import Path

import msgspec

import services
from services.identity import matching
from services.identity.match_rows import Compared, Row, blocks_of
from services.identity.matching import (
    BLOCK_PROFILES_MAX,
    Comparison,
    FoundPair,
    Told,
    compare,
    line_of_rows,
    lines_of,
    read_rows,
)

PHONE_BLOCK = blocks_of(Compared(phone="1")).index("1")


def in_blocks(rows):
    """How many of the rows are in a block of those who share a phone number."""
    connection = matching._loaded(rows)
    [[count]] = connection.sql(f"select count(block_{PHONE_BLOCK}) from profiles").fetchall()
    return count


def sharing(count):
    return [Row(f"{number:032x}", Compared(phone="079460001")) for number in range(count)]


def test_what_too_many_share_is_no_clue():
    assert BLOCK_PROFILES_MAX == in_blocks(sharing(BLOCK_PROFILES_MAX))
    assert 0 == in_blocks(sharing(BLOCK_PROFILES_MAX + 1))


def test_nobody_is_compared_with_themselves():
    assert ([], 1, 0, 0) == compare(sharing(1))[:4]
    assert ([], 0, 0, 0) == compare([])[:4]


def test_rows_are_read_as_they_were_written():
    rows = [
        Row("a", Compared(given_name="ada", email="ada@x.com"), ("a|b",)),
        Row("b", Compared(birth_date="1815-12-10")),
    ]

    assert rows == read_rows([line_of_rows(rows[:1]), line_of_rows(rows[1:])])


def test_pairs_are_told_some_at_a_time_and_then_what_was_done(monkeypatch):
    monkeypatch.setattr(matching, "ROWS_PER_LINE", 2)
    pairs = [FoundPair("a", other, 5, ()) for other in "bcd"]

    told = [
        msgspec.json.decode(line, type=Told)
        for line in lines_of(Comparison(pairs, profiles=4, compared=6, found=3, model_version="1"))
    ]

    assert [2, 1, 0] == [len(each.pairs) for each in told]
    assert pairs == [pair for each in told for pair in each.pairs]
    assert (4, 6, 3, "1") == (
        told[-1].profiles,
        told[-1].compared,
        told[-1].found,
        told[-1].model_version,
    )


def test_a_failure_is_told_by_its_kind_and_never_by_its_text(monkeypatch):
    monkeypatch.setattr(matching.os, "nice", lambda _: None)
    monkeypatch.setattr(matching.resource, "setrlimit", lambda *_: None)
    answer = io.BytesIO()

    matching.main(io.BytesIO(b'[["ada lovelace"]]\n'), answer)

    told = msgspec.json.decode(answer.getvalue(), type=Told)
    assert ("BUG", "ValidationError") == (told.failed, told.model_version)
    assert b"ada" not in answer.getvalue()


def test_memory_that_is_not_there_is_told_as_such(monkeypatch):
    monkeypatch.setattr(matching.os, "nice", lambda _: None)
    monkeypatch.setattr(matching.resource, "setrlimit", lambda *_: None)

    def full(_):
        raise MemoryError

    monkeypatch.setattr(matching, "compare", full)
    answer = io.BytesIO()

    matching.main(io.BytesIO(), answer)

    assert "OUT_OF_MEMORY" == msgspec.json.decode(answer.getvalue(), type=Told).failed


def test_nobody_imports_splink_but_the_process_that_compares():
    folder = Path(services.__path__[0])
    importing = {
        (path.relative_to(folder).as_posix(), line.startswith(" "))
        for path in folder.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("import splink", "from splink", "import duckdb", "from duckdb"))
    }

    # Within functions, or for types: not when it is imported itself.
    assert {("identity/matching.py", True)} == importing
