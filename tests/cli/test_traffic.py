"""`turnout traffic`, on a real control plane to which a client reports its load."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.cli.traffic import _number, _percent
from controlplane.xds.lrs import SEND_ALL
from controlplane.xds_server.lrs_pump import LOAD_REPORTS
from tests.cli.conftest import Run, Server
from tests.xds.test_lrs import hello, report, stats


class Reporter:
    """A client that sends load reports."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._requests: queue.Queue[Any] = queue.Queue()
        call: Any = self._channel.stream_stream(
            LOAD_REPORTS,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
        )
        self._answers = call(iter(self._requests.get, None))
        self.report(hello(SEND_ALL))
        next(self._answers)

    def report(self, request: Any) -> None:
        self._requests.put(request)

    def close(self) -> None:
        self._requests.put(None)
        self._channel.close()


@pytest.fixture
def reporter(applied: Server) -> Iterator[Reporter]:
    reporter_ = Reporter(applied.app.xds_port)
    yield reporter_
    reporter_.close()


def until(run: Run, holds: Callable[[Any], bool], *args: str) -> Any:
    """Return the command's JSON as soon as the condition holds."""
    deadline = time.monotonic() + 10
    while not holds(answer := run("traffic", *args, "-o", "json").json):
        assert time.monotonic() < deadline, answer
    return answer


def test_the_page_says_why_no_node_reports(run: Run, applied: Server) -> None:
    result = run("traffic")
    assert (result.code, result.err) == (0, "")
    assert "No node reports its load: none is connected." in result.out
    assert "models/iris" in result.out
    assert "never" in result.out
    applied.connect("edge-1")
    assert "Nodes report if their bootstrap is from `turnout bootstrap`." in run("traffic").out


def test_each_version_with_its_nodes(run: Run, applied: Server, reporter: Reporter) -> None:
    applied.connect("edge-1")
    reporter.report(report(stats(issued=250, succeeded=200, failed=50, active=3)))
    answer = until(run, lambda answer: answer["traffic"]["versions"][1]["nodes"], "iris")
    green, blue = answer["traffic"]["versions"]
    assert (blue["version"], blue["share"], green["version"], green["share"]) == ("blue", 10_000, "green", 0)
    assert blue["rate"] == {
        "requestsPerSecond": 25.0,
        "triesPerSecond": 25.0,
        "successesPerSecond": 20.0,
        "errorsPerSecond": 5.0,
        "dropsPerSecond": 0.0,
        "inProgress": "3",
        "gonePerSecond": 0.0,
    }
    totals = {"requests": 250, "tries": 250, "successes": 200, "errors": 50, "drops": 0, "gone": 0}
    assert blue["totals"] == {name: str(count) for name, count in totals.items()}
    assert (green["nodes"], green["rate"]["requestsPerSecond"]) == (0, 0)
    assert [(n["node"], n["version"]) for n in answer["nodes"]] == [("nodes/edge-1", "blue")]
    assert (answer["source"]["reportingNodes"], answer["source"]["connectedNodes"]) == (1, 1)
    table = run("traffic", "models/iris").out
    assert "As reported by 1 of 1 node, " in table
    blue_line = next(line for line in table.splitlines() if line.startswith("models/iris  blue"))
    assert blue_line.split()[2:7] == ["100%", "25.0", "20%", "0", "3"]
    assert "nodes/edge-1  blue" in table


def test_after_a_switch_the_old_version_gets_no_requests(run: Run, applied: Server, reporter: Reporter) -> None:
    reporter.report(report(stats(issued=250, succeeded=250)))
    until(run, lambda answer: answer["traffic"][0]["versions"][1]["nodes"])
    assert run("switch", "iris", "--to", "green", "--no-wait").code == 0
    reporter.report(report(stats("iris/green", issued=100, succeeded=100)))
    answer = until(run, lambda answer: answer["traffic"][0]["versions"][0]["nodes"])
    green, blue = answer["traffic"][0]["versions"]
    assert (green["share"], green["rate"]["requestsPerSecond"]) == (10_000, 10.0)
    assert (blue["share"], blue["nodes"], blue["rate"]["requestsPerSecond"]) == (0, 0, 0.0)
    assert blue["totals"]["requests"] == "250"


def test_a_version_that_refuses_connections(run: Run, applied: Server, reporter: Reporter) -> None:
    """Envoy issues no try without a connection. The page showed `0 req/s`, `never`, and a total of 0 requests."""
    reporter.report(report(stats(issued=0, failed=2_490)))
    answer = until(run, lambda answer: answer["traffic"][0]["versions"][1]["nodes"])
    blue = answer["traffic"][0]["versions"][1]
    assert (blue["totals"]["tries"], blue["totals"]["errors"], blue["totals"]["gone"]) == ("2490", "2490", "0")
    row = next(line for line in run("traffic").out.splitlines() if line.startswith("models/iris  blue")).split()
    assert row[2:] == ["100%", "249", "100%", "0", "0", "1", row[8], "2,490"]
    assert row[8] != "never"


def test_traffic_as_names_and_its_errors(run: Run, applied: Server) -> None:
    assert run("traffic", "-o", "name").out == "models/iris\n"
    result = run("traffic", "wine")
    assert (result.code, result.out) == (4, "")
    assert "models/wine does not exist" in result.err


@pytest.mark.parametrize(
    ("rate", "answer"), [(0, "0"), (0.01, "<0.1"), (0.25, "0.2"), (99.94, "99.9"), (100, "100"), (12_345.6, "12,346")]
)
def test_rates_as_people_read_them(rate: float, answer: str) -> None:
    assert _number(rate) == answer


@pytest.mark.parametrize(("part", "answer"), [(1, "100%"), (0.125, "12.5%"), (0.0004, "<0.1%"), (0.001, "0.1%")])
def test_shares_of_errors(part: float, answer: str) -> None:
    assert _percent(part) == answer
