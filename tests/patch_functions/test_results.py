"""The file with the results of functions: what comes back from it, and what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.patch_functions import results
from controlplane.patch_functions.results import ResultFile

A, B = (b"a" * 16, b"result of a"), (b"b" * 16, b"")


def test_results_come_back_in_their_order(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "r", 1_000)
    assert file.read() == []
    assert file.add(*A)
    assert file.add(*B)
    assert ResultFile(tmp_path / "r", 1_000).read() == [A, B]
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600
    file.replace([B])
    assert file.read() == [B]


@pytest.mark.parametrize("kept", [0, 1])
def test_what_follows_a_damaged_result_is_dropped(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "r"
    file = ResultFile(path, 1_000)
    file.read()
    file.add(*A)
    first = path.stat().st_size
    file.add(*B)
    content = bytearray(path.read_bytes())
    content[first - 1 if kept == 0 else -1] ^= 1
    path.write_bytes(content)
    assert file.read() == [A, B][:kept]
    assert file.add(*B)
    assert file.read() == [*[A][:kept], B]


def test_a_result_whose_writing_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "r"
    file = ResultFile(path, 1_000)
    file.read()
    file.add(*B)
    file.add(*A)
    whole = path.read_bytes()
    for cut in range(1, 40):
        path.write_bytes(whole[:-cut])
        assert file.read() == [B]


def test_results_of_other_libraries_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ResultFile(tmp_path / "r", 1_000)
    file.read()
    file.add(*A)
    monkeypatch.setattr(results, "version", lambda name: "9.9")
    assert ResultFile(tmp_path / "r", 1_000).read() == []
    monkeypatch.undo()
    assert file.read() == []


def test_a_full_file_refuses_results_and_a_disk_that_can_not_be_written_is_no_error(tmp_path: Path) -> None:
    file = ResultFile(tmp_path / "r", 200)
    file.read()
    assert file.add(*A)
    assert not file.add(b"c" * 16, bytes(100))
    assert file.read() == [A]
    nowhere = ResultFile(tmp_path / "none" / "r", 200)
    assert nowhere.read() == []
    assert nowhere.add(*A)
    assert nowhere.read() == []
