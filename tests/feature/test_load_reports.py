"""Load reports to worker processes, and the traffic that the main process shows operators."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import grpc
from envoy.service.load_stats.v3 import lrs_pb2

from controlplane.generated.turnout.v1 import traffic_service_pb2, traffic_service_pb2_grpc
from controlplane.xds.lrs import SEND_ALL
from controlplane.xds_server.lrs_pump import LOAD_REPORTS
from tests.feature.test_workers import running, until
from tests.xds.test_lrs import hello, report, stats


async def test_reports_to_workers_are_shown_to_operators_and_end_with_the_worker(tmp_path: Path) -> None:
    async with running(tmp_path) as several, grpc.aio.insecure_channel(f"127.0.0.1:{several.app.xds_port}") as channel:
        open_stream: Any = channel.stream_stream(
            LOAD_REPORTS,
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=lrs_pb2.LoadStatsResponse.FromString,
        )
        traffic = several.app.traffic
        call = open_stream()
        await call.write(hello(SEND_ALL))
        assert (await call.read()).send_all_clusters
        await call.write(report(stats(issued=10, succeeded=10)))
        await until(lambda: traffic.cluster("iris/blue").nodes)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{several.app.api_port}") as api:
            stub: Any = traffic_service_pb2_grpc.TrafficServiceStub(api)
            seen = await stub.GetTraffic(traffic_service_pb2.GetTrafficRequest(name="models/iris"))
        assert {v.version: v.rate.requests_per_second for v in seen.traffic.versions} == {"blue": 1.0, "green": 0.0}
        assert [n.node for n in seen.nodes] == ["nodes/edge-1"]

        for worker in several.workers:
            os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: not traffic.reporting)
        assert (traffic.cluster("iris/blue").nodes, traffic.cluster("iris/blue").totals.tries) == (0, 10)
