"""The log and the metric of refused access."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from controlplane.observers.rate_limited_log import LINES_PER_SECOND
from controlplane.observers.refused_access import RefusedAccess
from controlplane.xds.events import AccessRefused


def test_refused_access_is_counted_and_logged_at_a_limited_rate() -> None:
    registry = CollectorRegistry()
    observer = RefusedAccess(registry)
    with capture_logs() as lines:
        observer.handlers()[AccessRefused](0, AccessRefused("claim", "10.0.0.1:5", "no"), 1.0)
    assert lines == [
        {"event": "access refused", "log_level": "warning", "client": "10.0.0.1:5", "cause": "claim", "reason": "no"}
    ]
    assert registry.get_sample_value("turnout_xds_refused_total", {"cause": "claim"}) == 1
    observer.close()


async def test_a_flood_writes_few_lines() -> None:
    registry = CollectorRegistry()
    observer = RefusedAccess(registry)
    with capture_logs() as lines:
        for _ in range(1_000):
            observer.handlers()[AccessRefused](0, AccessRefused("handshake", "10.0.0.1:5", "no"), 1.0)
        observer.close()
    assert len(lines) == LINES_PER_SECOND + 1
    assert registry.get_sample_value("turnout_xds_refused_total", {"cause": "handshake"}) == 1_000
