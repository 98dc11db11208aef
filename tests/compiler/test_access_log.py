"""Access logs: the sink, and the fields of an entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.compiler.access_log import access_log, compile_collector
from controlplane.compiler.decode import decoded, owner, unpack
from controlplane.compiler.listeners import compile_listener
from controlplane.domain import AccessLog, FileSink, Gateway, GrpcSink
from controlplane.envoy_types import CLUSTER
from tests.compiler.cases import check

EDGE = Gateway("edge", 80, access_log=AccessLog())


@pytest.mark.parametrize("log", [AccessLog(), AccessLog(file=FileSink("/var/log/a.log"))])
def test_lines_are_json_without_secrets(log: AccessLog) -> None:
    gateway = replace(EDGE, access_log=log)
    config = unpack(access_log(gateway).typed_config)
    fields = dict(config.log_format.json_format)
    assert fields["path"] == "%PATH(NQ)%"
    read = {value for value in fields.values() if "REQ(" in value}
    assert read == {"%REQ(:METHOD)%", "%REQ(:AUTHORITY)%", "%REQ(USER-AGENT)%", "%REQ(X-REQUEST-ID)%", "%REQ(TRACEPARENT)%"}
    assert compile_collector(gateway) == []
    check([compile_listener(gateway)])


@pytest.mark.parametrize(("host", "kind"), [("10.0.0.9", "STATIC"), ("logs.svc", "STRICT_DNS")])
def test_a_collector_is_a_cluster_that_the_listener_waits_for(host: str, kind: str) -> None:
    gateway = replace(EDGE, access_log=AccessLog(grpc=GrpcSink(host, 4317)))
    (cluster,) = compile_collector(gateway)
    check([cluster, compile_listener(gateway)])
    assert owner(cluster) == "gateways/edge"
    assert (CLUSTER, cluster.name) in compile_listener(gateway).refs
    assert decoded(cluster).type == getattr(decoded(cluster), kind)
    common = unpack(access_log(gateway).typed_config).common_config
    assert (common.log_name, common.grpc_service.envoy_grpc.cluster_name) == ("edge", cluster.name)
    assert [tag.tag for tag in common.custom_tags] == ["model", "version", "fallback"]
    named = replace(EDGE, access_log=AccessLog(grpc=GrpcSink(host, 4317, "mine")))
    assert unpack(access_log(named).typed_config).common_config.log_name == "mine"
