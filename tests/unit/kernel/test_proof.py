"""A text that is in a file is found, wherever it lies."""

import pytest

from services.kernel.erasing import proof
from services.kernel.erasing.proof import Found, find_in_files


@pytest.mark.parametrize("begins_at", range(12, 18))
def test_a_text_across_the_edge_of_a_chunk_is_found_once(tmp_path, monkeypatch, begins_at):
    monkeypatch.setattr(proof, "CHUNK_BYTES", 16)
    file = tmp_path / "deep" / "file"
    file.parent.mkdir()
    file.write_bytes(b"\0" * begins_at + b"marker" + b"\xff" * 9 + b"marker")

    assert [Found(file, 2)] == list(find_in_files("marker", [tmp_path]))


def test_utf_16_is_looked_for_too_and_what_is_not_there_is_not_found(tmp_path):
    (tmp_path / "wide").write_text("the märker", encoding="utf-16-le")
    (tmp_path / "empty").touch()

    assert [Found(tmp_path / "wide", 1)] == list(find_in_files("märker", [tmp_path]))
    assert [] == list(find_in_files("other", [tmp_path, tmp_path / "gone", tmp_path / "empty"]))
