"""`turnout demo`, `schema`, `version` and `completion`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from controlplane.cli import schema
from controlplane.cli.exits import Exit
from tests.cli.conftest import Run


def test_schema_and_version(run: Run) -> None:
    assert run("schema").out == schema.text()
    assert run("version").out.startswith("turnout ")
    assert set(run("version", "-o", "json").json) == {"turnout", "python", "grpcio"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(run: Run, shell: str) -> None:
    assert "_TURNOUT_COMPLETE" in run("completion", shell).out


def test_a_missing_package_of_the_demo_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="sklearn")

    monkeypatch.setattr("controlplane.cli.setup.import_module", missing)
    result = run("demo")
    assert result.code == Exit.CONFLICT
    assert result.err == "Error: the demo needs `sklearn`: pip install 'turnout[demo]'\n"
    assert run("demo", "-o", "yaml").code == Exit.USAGE


def test_the_demo_gets_its_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    options_: dict[str, object] = {}

    def main(**options: object) -> int:
        options_.update(options)
        return 1

    monkeypatch.setattr("controlplane.cli.setup.import_module", lambda name: SimpleNamespace(main=main))
    assert run("demo", "--keep", "--users", "7", "--envoys", "2", "--seed", "3", "-o", "json").code == 1
    assert options_ == {"keep": True, "users": 7, "envoys": 2, "seed": 3, "form": "json"}
