"""Each installed package is pinned with its hashes, the pins agree and are complete, and licences are accepted."""

from __future__ import annotations

import importlib.util
import json
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = ("constraints.txt", "deploy/requirements.txt", "deploy/requirements-demo.txt", ".ci/supply.txt")
SDKS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests/sdks/requirements").glob("*.txt"))
# Markers of packages that only other platforms or older Pythons need.
_ELSEWHERE = re.compile(r"win32|Windows|emscripten|python_version < ['\"]3\.1[01]|implementation_name")


def pins(file: str) -> dict[str, str]:
    """Return the version by name. Each pin must have a hash."""
    found = {}
    for block in re.split(r"\n(?=\S)", (ROOT / file).read_text().strip()):
        name, _, pinned = block.split()[0].partition("==")
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", block), f"{file}: {name} has no hash"
        found[normal(name)] = pinned
    return found


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(name: str, extras: tuple[str, ...]) -> set[str]:
    """Return the names of all packages that an installed package needs, as its metadata says."""
    result: set[str] = set()
    waiting = [(name, extras)]
    while waiting:
        package, wanted = waiting.pop()
        for line in requires(package) or ():
            requirement, _, marker = line.partition(";")
            extra = re.search(r"""extra == ['"]([\w-]+)['"]""", marker)
            if (extra and extra[1] not in wanted) or _ELSEWHERE.search(marker):
                continue
            match = re.match(r"([\w.-]+)\s*(?:\[([\w,\s-]+)\])?", requirement)
            assert match is not None
            other, more = normal(match[1]), tuple((match[2] or "").replace(" ", "").split(","))
            try:
                version(other)
            except PackageNotFoundError:
                continue  # not for this platform
            if other not in result:
                result.add(other)
                waiting.append((other, more))
    return result


@pytest.mark.parametrize("file", [*LOCKS, *SDKS])
def test_each_package_is_pinned_with_its_hashes(file: str) -> None:
    assert len(pins(file)) > 10


@pytest.mark.parametrize(
    ("file", "extras"),
    [("deploy/requirements.txt", ()), ("deploy/requirements-demo.txt", ("demo",)), ("constraints.txt", ("demo", "dev"))],
)
def test_the_pins_are_complete_and_agree(file: str, extras: tuple[str, ...]) -> None:
    pinned = pins(file)
    assert needed("turnout", extras) <= pinned.keys(), "run `make lock`"
    everything = pins("constraints.txt")
    assert {name: everything[name] for name in pinned} == pinned


def test_older_envoys_have_hashes() -> None:
    for pin in (ROOT / "tests/envoy/versions.txt").read_text().split():
        name, _, number = pin.partition("==")
        assert pins(f"tests/envoy/hashes/{number}.txt") == {name: number}


@pytest.mark.parametrize("name", ["Containerfile", "Containerfile.demo"])
def test_a_container_is_built_from_a_digest_and_from_hashes(name: str) -> None:
    text = (ROOT / "deploy" / name).read_text()
    images = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert images
    assert all(image.endswith("@${PYTHON_DIGEST}") for image in images)
    assert "ARG PYTHON_DIGEST\n" in text  # without a default
    installs = re.findall(r"pip install ([^&\n]*)", text)
    assert len(installs) == 2
    assert all("--no-deps" in i and ("--require-hashes" in i or "--no-build-isolation" in i) for i in installs)


def test_make_and_ci_use_them() -> None:
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci/run").read_text()
    assert all("--require-hashes" in line for line in makefile.splitlines() if " install " in line and "-r " in line)
    assert all(f"make {target}\n" in ci for target in ("setup", "sbom", "advisories"))


def ci_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ([{"license": {"id": "MIT"}}], 0),
        ([{"expression": "Apache-2.0 OR BSD-3-Clause"}], 0),
        ([{"license": {"name": "License :: OSI Approved :: MIT License"}}], 0),
        ([{"license": {"id": "GPL-3.0-only"}}], 1),
        ([], 1),
    ],
)
def test_a_licence_that_nobody_accepted_is_refused(tmp_path: Path, entries: list[dict[str, Any]], code: int) -> None:
    file = tmp_path / "sbom.json"
    file.write_text(json.dumps({"components": [{"name": "some", "version": "1", "licenses": entries}]}))
    assert ci_module("licences").main(str(file)) == code


@pytest.mark.parametrize(
    ("report", "code", "text"),
    [
        ("", 0, "NOT CHECKED, the advisory service did not answer: no route"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 of 1 packages checked, 0 with"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 0, "NOT CHECKED: 1 packages, for example not found"),
        (
            '{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "a 1: CVE-1, fixed in 2",
        ),
    ],
)
def test_advisories_fail_for_a_vulnerability_and_say_what_was_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], report: str, code: int, text: str
) -> None:
    (tmp_path / "report").write_text(report)
    (tmp_path / "log").write_text("trying\nno route\n")
    assert ci_module("advisories").main("some.txt", str(tmp_path / "report"), str(tmp_path / "log")) == code
    assert text in capsys.readouterr().out
