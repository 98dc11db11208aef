"""The port for Prometheus: its answers, and the thread that reads the metrics."""

from __future__ import annotations

import asyncio
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families

from controlplane.observers.metrics_server import MetricsServer


@pytest.fixture
def registry() -> CollectorRegistry:
    filled = CollectorRegistry()
    Gauge("turnout_first", "The first.", registry=filled).set(1)
    Gauge("turnout_second", "The second.", registry=filled).set(2)
    return filled


@pytest.fixture
async def server(registry: CollectorRegistry) -> AsyncIterator[MetricsServer]:
    running = MetricsServer(registry, "127.0.0.1", 0)
    yield running
    await running.stop()


async def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    def read() -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://{host}:{port}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(read)


def samples(text: str) -> dict[str, float]:
    return {s.name: s.value for family in text_string_to_metric_families(text) for s in family.samples}


async def test_other_paths_than_metrics_are_not_found(server: MetricsServer) -> None:
    status, text = await get(server.port, "/metrics")
    assert (status, samples(text)) == (200, {"turnout_first": 1.0, "turnout_second": 2.0})
    for path in ("/", "/metrics/", "/favicon.ico"):
        assert await get(server.port, path) == (404, "Metrics are at /metrics.\n")


async def test_a_scrape_may_ask_for_some_metrics(server: MetricsServer) -> None:
    _, text = await get(server.port, "/metrics?name[]=turnout_second")
    assert samples(text) == {"turnout_second": 2.0}


async def test_metrics_are_read_on_the_event_loop(registry: CollectorRegistry, server: MetricsServer) -> None:
    threads: list[threading.Thread] = []

    def value() -> float:
        threads.append(threading.current_thread())
        return 3.0

    Gauge("turnout_third", "The third.", registry=registry).set_function(value)
    _, text = await get(server.port, "/metrics")
    assert samples(text)["turnout_third"] == 3.0
    assert set(threads) == {threading.current_thread()}


async def test_the_host_is_not_looked_up_in_dns(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str = "") -> str:
        raise AssertionError(f"looked up {name}")

    monkeypatch.setattr("socket.getfqdn", fail)
    server = MetricsServer(registry, "127.0.0.1", 0)
    assert (await get(server.port, "/metrics"))[0] == 200
    await server.stop()


async def test_a_port_is_free_again_after_the_stop(registry: CollectorRegistry) -> None:
    first = MetricsServer(registry, "localhost", 0)
    with pytest.raises(OSError, match="in use"):
        MetricsServer(registry, "localhost", first.port)
    await first.stop()
    second = MetricsServer(registry, "localhost", first.port)
    assert (await get(second.port, "/metrics", "localhost"))[0] == 200
    await second.stop()
