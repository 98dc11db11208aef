"""The server's event loop: uvloop if it is installed."""

from __future__ import annotations

import asyncio
import sys

import pytest

from controlplane.aio import event_loop


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


async def fail() -> None:
    raise KeyError("why")


def test_the_loop_is_uvloop_if_it_is_installed() -> None:
    assert event_loop.run(loop_module()).split(".")[0] == "uvloop"


def test_the_loop_is_asyncio_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # makes the import fail
    assert event_loop.run(loop_module()).split(".")[0] == "asyncio"


def test_an_error_of_the_coroutine_is_raised() -> None:
    with pytest.raises(KeyError, match="why"):
        event_loop.run(fail())
