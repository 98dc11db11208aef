"""`upgrade`: the page, and an upgrade from the first supported version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.upgrade import changes_of, older_command, page_of, run

REPOSITORY = Path(__file__).parents[2]
OLDEST = "bddd395"  # docs/upgrade.md speaks of it


def test_a_folder_without_a_virtual_environment_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"\.venv/bin/turnout does not exist: set up that checkout first"):
        older_command(tmp_path)


def test_the_page_has_the_requests_of_each_group_and_the_changes_of_each_envoy() -> None:
    before = {"listener_manager.listener_modified": 1, "http.edge.downstream_cx_drain_close": 3}
    after = {"listener_manager.listener_modified": 2, "http.edge.downstream_cx_drain_close": 8}
    after["cluster_manager.cluster_modified"] = 60
    changes = changes_of(["newest"], [before], [after])
    page = page_of({"newest, HTTP/2": {"requests": 1_000, "failed": 0}}, changes, 2.5)
    assert "| newest, HTTP/2 | 1,000 | 0 |" in page
    assert "| newest | 1 | 60 | 5 |" in page


@pytest.fixture
def oldest(tmp_path: Path) -> Path:
    """The folder of a checkout of the oldest supported version, which uses this checkout's libraries."""
    archive = subprocess.run(["git", "archive", OLDEST], cwd=REPOSITORY, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"git has no commit {OLDEST}: {archive.stderr.decode().strip()}")
    subprocess.run(["tar", "-x", "-C", str(tmp_path)], input=archive.stdout, check=True)
    command = tmp_path / ".venv" / "bin" / "turnout"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\ncd "{tmp_path}" && exec "{sys.executable}" -m controlplane.cli.main "$@"\n')
    command.chmod(0o755)
    return tmp_path


@pytest.mark.slow
@pytest.mark.envoy
@pytest.mark.timeout(300)
async def test_no_request_fails_while_the_oldest_supported_version_is_upgraded(oldest: Path) -> None:
    results, _ = await run(quick=True, checkout=str(oldest))
    assert {group["failed"] for group in results["groups"].values()} == {0}
    assert results["changes"]["newest"]["listeners"] == 1
    assert results["changes"]["newest"]["drained"] > 10
