"""The filter of body gateways that keeps a request's body until it is complete.

The script that finds the model (`body_script.py`) waits for the whole body, too. But then Envoy's limit for it is that of the
connection, which is also how much Envoy reads from a socket before it does anything else. With 64 MiB, a fast client gets its
whole upload into memory before Envoy looks at the overload manager's limit (`bootstrap.py`): 200 uploads took 9 GB where 2 GiB
were allowed. This filter sets a limit for the body alone, and Envoy reads 1 MiB of a connection at a time.

It runs for JSON, forms and gRPC-Web. Over HTTP/2 the stream's window would be a sufficient limit. The first message of gRPC is
read by another filter (`grpc_models.py`).
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.filters.http.buffer.v3 import buffer_pb2

from controlplane.compiler.body_script import METHODS
from controlplane.compiler.matching import either, every, filter_if, negated, request_header
from controlplane.compiler.message import packed
from controlplane.domain import BodyRouting

_PRESENT = ".*"
# Matches an empty content type, too. A request without the header has a predicate of its own.
_JSON = "(?i)|.*json.*|text/plain.*|application/x-www-form-urlencoded.*"
_FORM = "(?i)multipart/form-data.*"
# A message of gRPC-Web over HTTP/1 is held back until its name is read. Such a request has one message.
_GRPC_WEB = "(?i)application/grpc-web.*"


def buffer_filter(manager: Any, routing: BodyRouting) -> None:
    """Add the filter to a connection manager, in front of those that change a request's content type."""
    config = buffer_pb2.Buffer()
    config.max_request_bytes.value = routing.max_body_bytes
    delegate = filter_if(_is_read(), "buffer", config)
    manager.http_filters.add(name="turnout.body", typed_config=packed(delegate))


def _is_read() -> Any:
    content_type = [request_header("content-type", kinds) for kinds in (_JSON, _GRPC_WEB)]
    part_of_file = request_header(":path", r"[^?]*/(files|parts)(\?.*)?")
    form = every((request_header("content-type", _FORM), negated(part_of_file)))
    without_type = negated(request_header("content-type", _PRESENT))
    compressed = every(
        (request_header("content-encoding", _PRESENT), negated(request_header("content-encoding", "(?i)(identity)?")))
    )
    return every(
        (request_header(":method", "|".join(METHODS)), negated(compressed), either((without_type, form, *content_type)))
    )
