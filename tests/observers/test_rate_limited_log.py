"""Log lines of a whole fleet: a few each second, and a summary of the others."""

import asyncio
import logging

import pytest
from structlog.testing import capture_logs

from controlplane.observers.rate_limited_log import LINES_PER_SECOND, RateLimitedLog


async def test_nodes_above_the_limit_are_summed_up_after_a_second() -> None:
    limited = RateLimitedLog("node connected", "more nodes connected", logging.WARNING, example=("peer",))
    with capture_logs() as lines:
        for i in range(LINES_PER_SECOND + 500):
            limited.log(f"edge-{i}", peer=f"10.0.0.1:{i}", cluster="edge")
        assert lines == [
            {
                "event": "node connected",
                "log_level": "warning",
                "node": f"edge-{i}",
                "peer": f"10.0.0.1:{i}",
                "cluster": "edge",
            }
            for i in range(LINES_PER_SECOND)
        ]
        async with asyncio.timeout(10):
            while len(lines) == LINES_PER_SECOND:  # noqa: ASYNC110  a log line wakes nobody
                await asyncio.sleep(0.05)
        assert lines[LINES_PER_SECOND:] == [
            {
                "event": "more nodes connected",
                "log_level": "warning",
                "count": 500,
                "first": f"edge-{LINES_PER_SECOND}",
                "peer": f"10.0.0.1:{LINES_PER_SECOND}",
            }
        ]
        limited.log("late")
        assert lines[-1] == {"event": "node connected", "log_level": "warning", "node": "late"}
    limited.close()


async def test_closing_writes_the_pending_summary_once() -> None:
    limited = RateLimitedLog("node connected", "more nodes connected")
    with capture_logs() as lines:
        for i in range(LINES_PER_SECOND + 1):
            limited.log(f"edge-{i}")
        limited.close()
        assert lines[-1] == {
            "event": "more nodes connected",
            "log_level": "info",
            "count": 1,
            "first": f"edge-{LINES_PER_SECOND}",
        }
        limited.close()
        limited.log("late")
        limited.close()
    assert [line["event"] for line in lines[LINES_PER_SECOND:]] == ["more nodes connected", "node connected"]


async def test_closing_writes_no_summary_of_few() -> None:
    limited = RateLimitedLog("node connected", "more nodes connected")
    with capture_logs() as lines:
        limited.log("edge-1")
        limited.close()
    assert [line["event"] for line in lines] == ["node connected"]


@pytest.mark.parametrize("nodes", [1, LINES_PER_SECOND + 5])
def test_without_an_event_loop_every_node_has_a_line(nodes: int) -> None:
    limited = RateLimitedLog("node connected", "more nodes connected")
    with capture_logs() as lines:
        for i in range(nodes):
            limited.log(f"edge-{i}")
    limited.close()
    assert [line["node"] for line in lines] == [f"edge-{i}" for i in range(nodes)]
