"""The event loop of the server: uvloop if it is installed, because it needs less CPU, and otherwise asyncio's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does."""
    try:
        from uvloop import new_event_loop
    except ImportError:  # not available for this platform
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
