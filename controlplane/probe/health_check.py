"""The health check of a version over an open connection, by the protocol of the version."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from controlplane.domain import HealthCheck, Protocol
from controlplane.http2.headers import Headers
from controlplane.probe.http2 import request, settings

_AGENT = "turnout-probe"
# Header fields that the probe sets itself.
_OWN_FIELDS = frozenset({"user-agent", "content-type"})
_GRPC_STATUS = {code.value[0]: code.name for code in grpc.StatusCode}
# Bytes of the longest status line, and of the answer to a gRPC health check.
_STATUS_LINE = 1024
_GRPC_ANSWER = 64


async def failure(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    check: HealthCheck,
    protocol: Protocol,
    host: str,
    scheme: str,
    headers: Headers = (),
) -> str:
    """Return what is wrong with the answer to a health check; "" if it passes. `headers` are sent, too.

    Errors: OSError, EOFError; ValueError, ConnectionFault for an answer that does not follow the protocol.
    """
    match protocol:
        case Protocol.HTTP1:
            status = await _http1(reader, writer, check.path, host, headers)
        case Protocol.HTTP2:
            fields = _fields("GET", scheme, host, check.path, headers)
            status = (await request(reader, writer, fields)).status
        case Protocol.GRPC:
            return await _grpc(reader, writer, host, scheme, headers)
    return "" if status == HTTPStatus.OK else f"health check answered {status}"


async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, protocol: Protocol, host: str) -> None:
    """Return when a server has shown that it speaks a protocol. What it answers does not matter.

    Errors: ValueError if it speaks another one; OSError, EOFError.
    """
    if protocol is Protocol.HTTP1:
        await _http1(reader, writer, "/", host, ())
    else:
        await settings(reader, writer)


async def _http1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, host: str, headers: Headers) -> int:
    """Send a GET, and return the status of its answer. The rest of the answer is not read."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers if name not in _OWN_FIELDS)
    head = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: {_AGENT}\r\n{more}connection: close\r\n\r\n"
    writer.write(head.encode("latin-1"))
    line = await reader.readline()
    version, _, status = line[:_STATUS_LINE].partition(b" ")
    if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
        raise ValueError("not HTTP/1.1")
    return int(status[:3])


async def _grpc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, scheme: str, headers: Headers) -> str:
    fields = _fields("POST", scheme, host, "/grpc.health.v1.Health/Check", headers)
    fields += (("content-type", "application/grpc"), ("te", "trailers"))
    # A request without a service name asks for the health of the whole server. Its message is empty after five bytes of head.
    response = await request(reader, writer, fields, body=bytes(5), max_body=_GRPC_ANSWER)
    if response.status != HTTPStatus.OK:
        return f"health check answered {response.status}"
    if response.grpc_status is None:
        raise ValueError("no grpc-status")
    if response.grpc_status:
        return f"health check answered {_GRPC_STATUS.get(response.grpc_status, response.grpc_status)}"
    try:
        # Five bytes come before the message: its compression and its length.
        health = health_pb2.HealthCheckResponse.FromString(response.body[5:])
    except DecodeError:
        raise ValueError("not a HealthCheckResponse") from None
    serving = health_pb2.HealthCheckResponse.ServingStatus
    if health.status == health_pb2.HealthCheckResponse.SERVING:
        return ""
    has_name = health.status in serving.values()
    return f"health check answered {serving.Name(health.status) if has_name else health.status}"


def _fields(method: str, scheme: str, host: str, path: str, headers: Headers) -> Headers:
    return (
        (":method", method),
        (":scheme", scheme),
        (":authority", host),
        (":path", path),
        ("user-agent", _AGENT),
        *(field for field in headers if field[0] not in _OWN_FIELDS),
    )
