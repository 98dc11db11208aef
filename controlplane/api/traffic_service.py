"""The gRPC service for observed traffic: the tries that each version gets, as xDS clients report them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from controlplane.aio.latest import Latest
from controlplane.api.convert import label, timestamp
from controlplane.api.convert.traffic import node_traffic_to_proto, traffic_to_proto
from controlplane.api.pages import max_items, page
from controlplane.api.watch import current_fleet
from controlplane.domain import Model
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import traffic_pb2, traffic_service_pb2_grpc
from controlplane.generated.turnout.v1 import traffic_service_pb2 as pb
from controlplane.store import Store
from controlplane.traffic import Traffic


class TrafficService(traffic_service_pb2_grpc.TrafficServiceServicer):
    """Reports the traffic of models."""

    def __init__(
        self, store: Store, traffic: Traffic, changed: Latest[Fleet | None], clock: Callable[[], float] = time.time
    ) -> None:
        """Make the service. `changed` holds the fleet; `clock` returns seconds since the epoch."""
        self._store = store
        self._traffic = traffic
        self._changed = changed
        self._clock = clock

    async def GetTraffic(self, request: pb.GetTrafficRequest, context: Any) -> pb.GetTrafficResponse:
        model = self._store.head.value.state.require(Model, label(request.name, Model, "name"))
        max_nodes = max_items(request.max_nodes, "max_nodes")
        return pb.GetTrafficResponse(
            traffic=traffic_to_proto(model, self._traffic, self._clock()),
            nodes=node_traffic_to_proto(model, self._traffic, max_nodes),
            source=self._source(),
        )

    async def ListTraffic(self, request: pb.ListTrafficRequest, context: Any) -> pb.ListTrafficResponse:
        models = self._store.head.value.state.models
        now = self._clock()
        messages, token = page(models, lambda name: traffic_to_proto(models[name], self._traffic, now), request, "traffic")
        return pb.ListTrafficResponse(traffic=messages, next_page_token=token, source=self._source())

    def _source(self) -> traffic_pb2.TrafficSource:
        traffic = self._traffic
        return traffic_pb2.TrafficSource(
            reporting_nodes=traffic.reporting,
            connected_nodes=current_fleet(self._changed).connected,
            last_report_time=timestamp(traffic.last_report) if traffic.last_report else None,
            start_time=timestamp(traffic.since),
        )
