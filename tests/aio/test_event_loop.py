"""The server's event loop: uvloop where it is installed."""

from __future__ import annotations

import asyncio
import sys

import pytest

from controlplane.aio import event_loop


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


async def fail() -> None:
    raise KeyError("why")


def test_the_loop_is_uvloops() -> None:
    assert event_loop.run(loop_module()).split(".")[0] == "uvloop"


def test_the_loop_is_asyncios_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # makes the import fail
    assert event_loop.run(loop_module()).split(".")[0] == "asyncio"


def test_errors_are_those_of_the_coroutine() -> None:
    with pytest.raises(KeyError, match="why"):
        event_loop.run(fail())
