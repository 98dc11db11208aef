"""Conversion of the changes that a version makes to its requests."""

from __future__ import annotations

from controlplane.api.convert.names import collected, label
from controlplane.api.convert.rewrite import rewrite_to_proto
from controlplane.domain import Credential, RequestHeaders, Secret, Version
from controlplane.domain.collections import resource_name
from controlplane.domain.upstream_request import AUTHORIZATION
from controlplane.errors import Collector
from controlplane.generated.turnout.v1 import model_pb2


def set_requests(proto: model_pb2.Version, version: Version) -> None:
    """Set the fields in the message of a version that are about its requests."""
    proto.host, proto.upstream_model = version.host, version.upstream_model
    if version.rewrite is not None:
        proto.rewrite.CopyFrom(rewrite_to_proto(version.rewrite))
    if version.request_headers is not None:
        headers = version.request_headers
        proto.request_headers.CopyFrom(model_pb2.RequestHeaders(set=headers.set, remove=headers.remove))
    if version.credential is not None:
        secret, header = resource_name(Secret, version.credential.secret), version.credential.header
        proto.credential.CopyFrom(model_pb2.Credential(secret=secret, header=header, scheme=version.credential.scheme))


def request_headers_from_proto(proto: model_pb2.RequestHeaders) -> RequestHeaders | None:
    """Return the headers of a message; None if it names none. Errors: INVALID_ARGUMENT."""
    return RequestHeaders(dict(proto.set), tuple(proto.remove)) or None


def credential_from_proto(proto: model_pb2.Credential) -> Credential:
    """Return the credential of a message. Errors: INVALID_ARGUMENT with every wrong field."""
    c = Collector()
    secret = collected(c, "", lambda: label(proto.secret, Secret, "secret"))
    header, scheme = proto.header or AUTHORIZATION, proto.scheme if proto.HasField("scheme") else None
    credential = collected(c, "", lambda: Credential(secret or "placeholder", header, scheme))
    c.check()
    assert credential is not None
    return credential
