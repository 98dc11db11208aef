"""Conversion of access logs to messages and back."""

from __future__ import annotations

from controlplane.api.convert.names import collected
from controlplane.domain import AccessLog, FileSink, GrpcSink
from controlplane.errors import Collector
from controlplane.generated.turnout.v1 import gateway_pb2


def access_log_to_proto(log: AccessLog) -> gateway_pb2.AccessLog:
    """Return the message of an access log."""
    proto = gateway_pb2.AccessLog()
    if log.file is not None:
        proto.file.path = log.file.path
    elif log.grpc is not None:
        proto.grpc.CopyFrom(gateway_pb2.GrpcSink(host=log.grpc.host, port=log.grpc.port, log_name=log.grpc.log_name))
    else:
        proto.stdout.SetInParent()
    return proto


def access_log_from_proto(proto: gateway_pb2.AccessLog) -> AccessLog:
    """Return the access log of a message. Errors: INVALID_ARGUMENT with every wrong field, by its path in the message."""
    c = Collector()
    log: AccessLog | None
    match proto.WhichOneof("sink"):
        case "file":
            log = collected(c, "file", lambda: AccessLog(file=FileSink(proto.file.path)))
        case "grpc":
            sink = proto.grpc
            log = collected(c, "grpc", lambda: AccessLog(grpc=GrpcSink(sink.host, sink.port, sink.log_name)))
        case _:
            log = AccessLog()
    c.check()
    assert log is not None
    return log
