"""Conversion of path rewrites to messages and back."""

from __future__ import annotations

from controlplane.domain import PathRewrite
from controlplane.generated.turnout.v1 import model_pb2


def rewrite_to_proto(rewrite: PathRewrite) -> model_pb2.PathRewrite:
    """Return the message of a rewrite."""
    return model_pb2.PathRewrite(prefix=rewrite.prefix, replacement=rewrite.replacement)


def rewrite_from_proto(proto: model_pb2.PathRewrite) -> PathRewrite:
    """Return the rewrite of a message. Errors: INVALID_ARGUMENT."""
    return PathRewrite(proto.prefix, proto.replacement)
