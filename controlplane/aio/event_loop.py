"""The event loop that the server runs on: uvloop's where there is one, since it costs less."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`."""
    try:
        from uvloop import new_event_loop
    except ImportError:  # there is none for this platform
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
