from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.sdks.environments import sdk_python


def test_an_environment_that_is_not_installed_skips_the_test_and_fails_it_in_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "sdks" / "clients" / "bin").mkdir(parents=True)  # as `make` leaves it when pip fails
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="make setup-sdks"):
        sdk_python("clients")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="make setup-sdks"):
        sdk_python("clients")
    (tmp_path / "sdks" / "clients" / ".ready").touch()
    assert sdk_python("clients") == str(tmp_path / "sdks" / "clients" / "bin" / "python")


def test_every_package_of_an_environment_is_pinned_once() -> None:
    for file in (Path(__file__).parent / "requirements").glob("*.txt"):
        pins = [line.partition("==") for line in file.read_text().splitlines() if not line.startswith(" ")]
        assert all(version for _, _, version in pins), file
        assert len({name for name, _, _ in pins}) == len(pins), file
