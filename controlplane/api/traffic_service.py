"""Traffic over gRPC: what each version gets, as clients report it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.aio.latest import Latest
from controlplane.api.convert import label, timestamp
from controlplane.api.progress import live, node_name
from controlplane.api.request import page
from controlplane.domain import Model
from controlplane.errors import invalid
from controlplane.fleet import Fleet
from controlplane.generated.turnout.v1 import traffic_pb2 as pb
from controlplane.generated.turnout.v1 import traffic_service_pb2, traffic_service_pb2_grpc
from controlplane.store import Store
from controlplane.traffic import Rate, Traffic, model_clusters

_DEFAULT_NODES, _MOST_NODES = 100, 10_000


class TrafficService(traffic_service_pb2_grpc.TrafficServiceServicer):
    """Shows what the versions of models get."""

    def __init__(self, store: Store, traffic: Traffic, changed: Latest[Fleet | None]) -> None:
        self._store = store
        self._traffic = traffic
        self._changed = changed

    async def GetTraffic(
        self, request: traffic_service_pb2.GetTrafficRequest, context: Any
    ) -> traffic_service_pb2.GetTrafficResponse:
        model = self._store.head.value.state.require(Model, label(request.name, Model, "name"))
        if request.max_nodes < 0:
            raise invalid("max_nodes", f"{request.max_nodes} is negative")
        return traffic_service_pb2.GetTrafficResponse(
            traffic=to_proto(model, self._traffic),
            nodes=_by_node(model, self._traffic)[: min(request.max_nodes or _DEFAULT_NODES, _MOST_NODES)],
            source=self._source(),
        )

    async def ListTraffic(
        self, request: traffic_service_pb2.ListTrafficRequest, context: Any
    ) -> traffic_service_pb2.ListTrafficResponse:
        models: Mapping[str, Model] = self._store.head.value.state.models
        listed, token = page(models, lambda name: to_proto(models[name], self._traffic), request, "traffic")
        return traffic_service_pb2.ListTrafficResponse(traffic=listed, next_page_token=token, source=self._source())

    def _source(self) -> pb.TrafficSource:
        traffic = self._traffic
        return pb.TrafficSource(
            reporting_nodes=traffic.reporting,
            connected_nodes=live(self._changed).connected,
            last_report_time=timestamp(traffic.last_report) if traffic.last_report else None,
            start_time=timestamp(traffic.since),
        )


def to_proto(model: Model, traffic: Traffic) -> pb.ModelTraffic:
    """Convert the traffic of a model's clusters."""
    message = pb.ModelTraffic(model=model.resource_name)
    for cluster, version, copies in model_clusters(model):
        observed = traffic.cluster(cluster)
        totals = observed.totals
        message.versions.add(
            version=version,
            copies=copies,
            share=0 if copies else model.split.get(version, 0),
            rate=_rate(observed.rate),
            totals=pb.TrafficCounts(
                requests=totals.issued, successes=totals.succeeded, errors=totals.failed, drops=totals.dropped
            ),
            nodes=observed.nodes,
            last_request_time=timestamp(observed.last_request) if observed.last_request else None,
        )
    return message


def _by_node(model: Model, traffic: Traffic) -> list[pb.NodeTraffic]:
    """Who sends what to a model, the most requests first."""
    found = [
        (rate, node, version, copies)
        for cluster, version, copies in model_clusters(model)
        for node, rate in traffic.by_node(cluster).items()
    ]
    found.sort(key=lambda f: (-f[0].issued, -f[0].active, f[1]))
    return [
        pb.NodeTraffic(node=node_name(node), version=version, copies=copies, rate=_rate(rate))
        for rate, node, version, copies in found
    ]


def _rate(rate: Rate) -> pb.TrafficRate:
    return pb.TrafficRate(
        requests_per_second=rate.issued / 1000,
        errors_per_second=rate.failed / 1000,
        drops_per_second=rate.dropped / 1000,
        in_progress=rate.active,
    )
