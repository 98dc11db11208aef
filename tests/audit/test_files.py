"""The files of the log: appended, rotated, bounded, repaired after a crash, and whole after a full disk."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from controlplane.audit.entries import parse
from controlplane.audit.files import AuditFiles, lines, paths, unwritable
from controlplane.audit.verify import verify
from controlplane.errors import Error

BOUND = 40_000


def opened(directory: Path, bound: int = BOUND) -> AuditFiles:
    clock: Iterator[int] = count()
    return AuditFiles(directory, bound, lambda: f"t{next(clock)}")


def numbers(directory: Path) -> list[int]:
    return [parse(line)["seq"] for _, _, line in lines(directory)]


def test_entries_are_appended_also_after_a_restart(tmp_path: Path) -> None:
    files = opened(tmp_path / "audit")
    assert files.created
    files.append("begin", {})
    files.append("call", {"identity": "a"}, sync=False)
    files.close()
    again = opened(tmp_path / "audit")
    assert (again.created, again.head) == (False, files.head)
    again.append("start", {})
    again.close()
    assert numbers(tmp_path / "audit") == [1, 2, 3]
    assert verify(tmp_path / "audit").problems == ()
    assert stat.S_IMODE((tmp_path / "audit").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths(tmp_path / "audit")} == {0o600}


def test_the_log_has_a_bound_and_says_what_was_dropped(tmp_path: Path) -> None:
    files = opened(tmp_path)
    for _ in range(1_000):
        files.append("call", {"identity": "x" * 50}, sync=False)
    assert sum(path.stat().st_size for path in paths(tmp_path)) <= BOUND
    assert len(paths(tmp_path)) >= 4
    assert files.head.first == numbers(tmp_path)[0] > 1
    files.close()
    report = verify(tmp_path, [files.head])
    assert (report.problems, report.first, report.last) == ((), files.head.first, files.head.seq)
    again = opened(tmp_path)
    assert again.head == files.head
    again.close()
    paths(tmp_path)[0].unlink()
    assert "are missing" in verify(tmp_path).problems[0]


def test_an_incomplete_last_line_is_removed_and_said(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append("call", {})
    files.close()
    with paths(tmp_path)[0].open("ab") as file:
        file.write(b'{"chain":"' + b"x" * 9_000)
    again = opened(tmp_path)
    again.close()
    newest = [parse(line) for _, _, line in lines(tmp_path)][-1]
    assert (newest["event"], newest["bytes"], newest["seq"]) == ("repaired", 9_010, 2)
    assert verify(tmp_path).problems == ()


def test_a_crash_between_two_files_is_no_damage(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append("call", {})
    files.close()
    (tmp_path / "audit-000000000002.jsonl").touch()
    again = opened(tmp_path)
    again.append("start", {})
    again.close()
    assert verify(tmp_path).problems == ()


def test_a_damaged_last_entry_and_a_log_in_use_are_refused(tmp_path: Path) -> None:
    files = opened(tmp_path)
    files.append("call", {"identity": "anna"})
    with pytest.raises(Error, match="is in use by another server"):
        opened(tmp_path)
    files.close()
    path = paths(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"anna", b"hugo"))
    with pytest.raises(Error, match="its hash does not fit") as caught:
        opened(tmp_path)
    assert caught.value.reason == "AUDIT_DAMAGED"


def test_a_full_disk_leaves_the_chain_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = opened(tmp_path)
    files.append("call", {})
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:20]))
        with pytest.raises(Error, match="there is no space left for the audit log") as caught:
            files.append("call", {})
        assert caught.value.reason == "AUDIT_FULL"
    files.append("call", {})
    files.close()
    assert numbers(tmp_path) == [1, 2]
    assert verify(tmp_path, [files.head]).problems == ()


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "audit").write_text("a file")
    with pytest.raises(Error) as caught:
        opened(tmp_path / "audit")
    assert caught.value.reason == "AUDIT_UNWRITABLE"
    assert unwritable(OSError(errno.EDQUOT, "quota"), tmp_path).reason == "AUDIT_FULL"
