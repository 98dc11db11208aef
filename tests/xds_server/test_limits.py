"""Admission of clients, their limits, and the options of connections."""

from __future__ import annotations

import resource

import pytest
from envoy.config.core.v3 import base_pb2

from controlplane.errors import Code, Error
from controlplane.xds_server.limits import MAX_NODE_BYTES, StreamLimits, client_limits, connection_limits, server_options


def refusal(limits: StreamLimits, node: object, streams: int = 0) -> tuple[Code, str]:
    with pytest.raises(Error) as caught:
        limits.admit(node, streams)
    return caught.value.code, caught.value.reason


def test_a_node_is_admitted_within_its_limits() -> None:
    limits = StreamLimits(streams_per_node=2, names_per_stream=10)
    node = base_pb2.Node(id="n", cluster="c")
    limits.admit(node, 1)
    assert refusal(limits, node, 2) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert refusal(limits, base_pb2.Node(cluster="c")) == (Code.INVALID_ARGUMENT, "NODE_REQUIRED")
    node.metadata.update({"a": "x" * MAX_NODE_BYTES})
    assert refusal(limits, node) == (Code.RESOURCE_EXHAUSTED, "NODE_TOO_LARGE")
    # Envoy's list of its extensions is not stored and does not count.
    many = base_pb2.Node(id="n", extensions=[base_pb2.Extension(name="x" * 100) for _ in range(2_000)])
    limits.admit(many, 0)
    limits.check_names(10)
    with pytest.raises(Error) as caught:
        limits.check_names(11)
    assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, "TOO_MANY_NAMES")


def test_a_connection_refuses_new_streams_before_its_streams_end() -> None:
    assert "grpc.max_connection_age_ms" not in dict(server_options(StreamLimits()))
    age = dict(server_options(StreamLimits(max_stream_age=100.0)))["grpc.max_connection_age_ms"] / 1000
    assert age * 1.1 < 100 * 0.9


def test_both_transports_have_the_same_limits() -> None:
    limits = StreamLimits(max_stream_age=100.0)
    ours, options = connection_limits(limits), dict(server_options(limits))
    assert ours.max_message_bytes == options["grpc.max_receive_message_length"]
    assert ours.max_age * 1000 == options["grpc.max_connection_age_ms"]
    assert ours.keepalive_interval * 1000 == options["grpc.keepalive_time_ms"]
    assert ours.keepalive_timeout * 1000 == options["grpc.keepalive_timeout_ms"]
    assert connection_limits(StreamLimits()).max_age == 0


@pytest.mark.parametrize(
    ("soft", "hard", "set_to", "total", "one"),
    [
        (1_024, 4_096, 4_096, 3_584, 2_688),  # some files are left for everything else
        (256, 256, None, 128, 96),
        (1_024, 1_000_000, 32_768, 30_000, 15_000),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None, 30_000, 15_000),
    ],
)
def test_connections_leave_files_for_everything_else(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, set_to: int | None, total: int, one: int
) -> None:
    changes: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: changes.append(limits[0]))
    limits = client_limits()
    assert (limits.total_connections, limits.connections) == (total, one)
    assert changes == ([] if set_to is None else [set_to])
