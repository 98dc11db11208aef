"""Conversion of CORS policies to messages and back."""

from __future__ import annotations

from controlplane.api.convert.names import duration, seconds
from controlplane.domain import Cors
from controlplane.generated.turnout.v1 import gateway_pb2


def cors_to_proto(cors: Cors) -> gateway_pb2.Cors:
    """Return the message of a CORS policy."""
    return gateway_pb2.Cors(
        allow_origins=cors.allow_origins,
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        expose_headers=cors.expose_headers,
        allow_credentials=cors.allow_credentials,
        max_age=None if cors.max_age is None else duration(cors.max_age),
    )


def cors_from_proto(proto: gateway_pb2.Cors) -> Cors:
    """Return the CORS policy of a message. Errors: INVALID_ARGUMENT with every wrong field, by its path in the message."""
    return Cors(
        allow_origins=tuple(proto.allow_origins),
        allow_methods=tuple(proto.allow_methods),
        allow_headers=tuple(proto.allow_headers),
        expose_headers=tuple(proto.expose_headers),
        allow_credentials=proto.allow_credentials,
        max_age=seconds(proto.max_age) if proto.HasField("max_age") else None,
    )
