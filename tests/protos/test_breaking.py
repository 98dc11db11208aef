"""buf's configuration: it refuses breaking changes of the API, and a comment can't permit one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUF = Path(sys.executable).with_name("buf")
# Programs of this virtual environment come first, as in `make check`.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of the protos that a test may change."""
    copy_protos(tmp_path)
    return tmp_path


def copy_protos(to: Path) -> None:
    subprocess.run([ROOT / "protos" / "googleapis"], env={**os.environ, "PATH": PATH}, check=True)
    for folder in ("protos", "build/googleapis"):
        shutil.copytree(ROOT / folder, to / folder)
    shutil.copy(ROOT / "buf.yaml", to)


def buf(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def edit(folder: Path, name: str, change: Callable[[str], str]) -> None:
    path = folder / "protos" / "turnout" / "v1" / name
    before = path.read_text()
    after = change(before)
    assert after != before
    path.write_text(after)


def breaking(folder: Path) -> str:
    run = buf("breaking", "--against", str(ROOT), folder=folder)
    assert run.returncode in (0, 100), run.stderr
    return run.stdout


def test_the_baseline_is_the_package_and_notices_a_deleted_service(changed: Path) -> None:
    baseline = str(ROOT / "protos" / "baseline.binpb")
    assert buf("breaking", "protos", "--against", baseline, folder=changed).stdout == ""
    edit(changed, "traffic_service.proto", lambda text: re.sub(r"(?ms)^service TrafficService \{.*?^\}\n", "", text))
    assert "TrafficService" in buf("breaking", "protos", "--against", baseline, folder=changed).stdout


def test_an_unchanged_copy_breaks_nothing(changed: Path) -> None:
    assert breaking(changed) == ""


def test_a_deleted_service_is_refused(changed: Path) -> None:
    edit(changed, "traffic_service.proto", lambda text: re.sub(r"(?ms)^service TrafficService \{.*?^\}\n", "", text))
    assert 'Previously present service "TrafficService" was deleted' in breaking(changed)


def test_a_deleted_rpc_is_refused(changed: Path) -> None:
    edit(
        changed,
        "model_service.proto",
        lambda text: re.sub(r"  rpc SwitchTraffic\(.*?\n(?=\}|  //)", "", text, flags=re.DOTALL),
    )
    assert 'Previously present RPC "SwitchTraffic" on service "ModelService" was deleted' in breaking(changed)


def test_a_renamed_field_is_refused_because_json_uses_the_name(changed: Path) -> None:
    edit(changed, "model.proto", lambda text: text.replace("preview_header = 7", "try_header = 7"))
    assert "preview_header" in breaking(changed)


def test_a_new_field_is_no_break(changed: Path) -> None:
    edit(
        changed,
        "gateway.proto",
        lambda text: text.replace("message HostRouting {}", "message HostRouting {\n  bool x = 1;\n}"),
    )
    assert breaking(changed) == ""


def test_a_field_without_a_comment_is_refused(changed: Path) -> None:
    edit(
        changed,
        "gateway.proto",
        lambda text: text.replace("message HostRouting {}", "message HostRouting {\n  bool x = 1;\n}"),
    )
    run = buf("lint", folder=changed)
    assert run.returncode == 100
    assert 'Field "x" should have a non-empty comment' in run.stdout


def test_a_comment_can_not_permit_a_violation(changed: Path) -> None:
    unexplained = "message HostRouting {\n  // buf:lint:ignore FIELD_LOWER_SNAKE_CASE\n  bool nameOfHost = 1;\n}"
    edit(changed, "gateway.proto", lambda text: text.replace("message HostRouting {}", unexplained))
    run = buf("lint", folder=changed)
    assert run.returncode == 100
    assert 'Field name "nameOfHost" should be lower_snake_case' in run.stdout
