"""Files that are read again when they change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from controlplane.api.watched_files import MAX_BYTES, WatchedFiles, read_file, read_text
from controlplane.errors import Error, invalid


def load(path: Path) -> int:
    text = read_text(path, "setting")
    if not text.isdigit():
        raise invalid("setting", f"{path} is no number")
    return int(text)


def test_good_content_is_taken_over_and_bad_content_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "number"
    path.write_text("1")
    files = WatchedFiles([path], lambda: load(path), "numbers")
    assert (files.content, files.generation, files.refresh()) == (1, 1, False)
    path.write_text("23")
    assert (files.refresh(), files.content, files.generation) == (True, 23, 2)
    with structlog.testing.capture_logs() as lines:
        path.write_text("x")
        assert not files.refresh()
        path.unlink()
        assert not files.refresh()
        assert not files.refresh()  # it is logged once
    assert (files.content, files.generation) == (23, 2)
    assert [line["error"].split(": ")[1].split(" ", 1)[1] for line in lines] == ["is no number", "can't be read"]


def test_a_symlink_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    for name in ("1", "2"):
        (tmp_path / name).write_text(name)
    link = tmp_path / "link"
    link.symlink_to("1")
    files = WatchedFiles([link], lambda: load(link), "numbers")
    (tmp_path / "new").symlink_to("2")
    os.replace(tmp_path / "new", link)
    assert files.refresh()
    assert files.content == 2


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"setting: .*/none can't be read: no such file or directory"):
        read_file(tmp_path / "none", "setting")
    (tmp_path / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    with pytest.raises(Error, match="is larger than"):
        read_file(tmp_path / "large", "setting")
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(Error, match="is not UTF-8"):
        read_text(tmp_path / "latin", "setting")
