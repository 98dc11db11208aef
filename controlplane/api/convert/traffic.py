"""Conversion of observed traffic to messages."""

from __future__ import annotations

from controlplane.api.convert.names import timestamp
from controlplane.api.convert.node import node_name
from controlplane.domain import Model
from controlplane.generated.turnout.v1 import traffic_pb2 as pb
from controlplane.traffic import Rate, Traffic, model_clusters


def traffic_to_proto(model: Model, traffic: Traffic, now: float) -> pb.ModelTraffic:
    """Return the message of a model's traffic. `now` is in seconds since the epoch."""
    message = pb.ModelTraffic(model=model.resource_name)
    for cluster, receiver in model_clusters(model):
        observed = traffic.cluster(cluster)
        totals = observed.totals
        message.versions.add(
            version=receiver.version,
            copies=receiver.copies,
            fallback_for=receiver.fallback_for,
            share=0 if receiver.copies or receiver.fallback_for else model.split.get(receiver.version, 0),
            rate=_rate_to_proto(observed.rate, observed.recent(now).gone_per_second),
            totals=pb.TrafficCounts(
                requests=totals.tries,
                tries=totals.tries,
                successes=totals.succeeded,
                errors=totals.failed,
                gone=totals.gone,
                drops=totals.dropped,
            ),
            nodes=observed.nodes,
            last_request_time=timestamp(observed.last_try) if observed.last_try else None,
        )
    return message


def node_traffic_to_proto(model: Model, traffic: Traffic, max_nodes: int) -> list[pb.NodeTraffic]:
    """Return the messages of a model's traffic by node, the most tries first, at most `max_nodes`."""
    entries = [
        (rate, node, receiver)
        for cluster, receiver in model_clusters(model)
        for node, rate in traffic.by_node(cluster).items()
    ]
    entries.sort(key=lambda entry: (-entry[0].tries, -entry[0].active, entry[1]))
    return [
        pb.NodeTraffic(
            node=node_name(node),
            version=receiver.version,
            copies=receiver.copies,
            fallback_for=receiver.fallback_for,
            rate=_rate_to_proto(rate),
        )
        for rate, node, receiver in entries[:max_nodes]
    ]


def _rate_to_proto(rate: Rate, gone: float = 0.0) -> pb.TrafficRate:
    return pb.TrafficRate(
        requests_per_second=rate.tries / 1000,
        tries_per_second=rate.tries / 1000,
        successes_per_second=rate.succeeded / 1000,
        errors_per_second=rate.failed / 1000,
        drops_per_second=rate.dropped / 1000,
        gone_per_second=gone,
        in_progress=rate.active,
    )
