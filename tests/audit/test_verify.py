"""The check finds edits, gaps, a cut end, a log that was replaced or written anew."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.audit.entries import Head
from controlplane.audit.files import AuditFiles, paths
from controlplane.audit.verify import Report, verify


def written(directory: Path, entries: int = 5) -> tuple[Path, Head]:
    files = AuditFiles(directory, 1_000_000, lambda: "t")
    for number in range(entries):
        files.append("call", {"identity": f"user-{number}"})
    files.close()
    return paths(directory)[0], files.head


def test_a_whole_log(tmp_path: Path) -> None:
    _, head = written(tmp_path)
    assert verify(tmp_path, [head]) == Report(head.chain, 1, 5, 5, ())
    assert verify(tmp_path, [replace(head, seq=3, hash=_hash(tmp_path, 3))]).problems == ()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([0, 1, 3, 4], "audit-000000000001.jsonl:3: has the number 4 after 2"),
        ([1, 2, 3, 4], "entries 1 to 1 are missing"),
        ([0, 1, 2], "entries 4 to 5 are missing: the store knows the log up to 5"),
        ([0, 1, 1, 2, 3, 4], "has the number 2 after 2"),
        ([0, 2, 1, 3, 4], "has the number 3 after 1"),
        ([], "is missing: the store knows 5 entries"),
    ],
)
def test_removed_added_and_moved_entries(tmp_path: Path, lines: list[int], problem: str) -> None:
    path, head = written(tmp_path)
    content = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(content[number] for number in lines))
    assert problem in verify(tmp_path, [head]).problems[0]


def test_an_edited_entry(tmp_path: Path) -> None:
    path, head = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"user-2", b"user-9"))
    assert verify(tmp_path, [head]).problems[0].startswith("audit-000000000001.jsonl:3: was changed")


def test_a_log_that_was_written_anew_differs_from_what_the_store_knows(tmp_path: Path) -> None:
    """Its hashes fit, because whoever wrote it computed them."""
    path, head = written(tmp_path / "one")
    path.unlink()
    files = AuditFiles(tmp_path / "two", 1_000_000, lambda: "t")
    files.head = replace(files.head, chain=head.chain)
    for number in range(6):
        files.append("call", {"identity": f"nobody-{number}"})
    files.close()
    assert verify(tmp_path / "two").problems == ()
    assert "is not the entry 5 that the store knows" in verify(tmp_path / "two", [head]).problems[0]


def test_a_replaced_log_is_a_problem_unless_the_new_one_names_it(tmp_path: Path) -> None:
    _, old = written(tmp_path / "old")
    files = AuditFiles(tmp_path / "new", 1_000_000, lambda: "t")
    files.append("call", {})
    files.close()
    assert f"the log {old.chain} is missing" in verify(tmp_path / "new", [old, files.head]).problems[0]
    files = AuditFiles(tmp_path / "named", 1_000_000, lambda: "t")
    files.append("begin", {"earlier": [f"{old.chain}:5"]})
    files.close()
    assert verify(tmp_path / "named", [old, files.head]).problems == ()


def test_a_cut_that_the_server_noticed_stays_a_problem(tmp_path: Path) -> None:
    files = AuditFiles(tmp_path, 1_000_000, lambda: "t")
    files.append("begin", {})
    files.append("start", {"cut": 3})
    files.close()
    assert "3 entries before it were missing" in verify(tmp_path).problems[0]


def test_many_problems_are_cut(tmp_path: Path) -> None:
    path, _ = written(tmp_path, 20)
    path.write_bytes(path.read_bytes().replace(b"user", b"USER"))
    problems = verify(tmp_path).problems
    assert (len(problems), problems[-1]) == (6, "and 15 more")


def _hash(directory: Path, seq: int) -> str:
    from controlplane.audit.entries import parse
    from controlplane.audit.files import lines

    return next(str(e["hash"]) for _, _, line in lines(directory) if (e := parse(line))["seq"] == seq)
