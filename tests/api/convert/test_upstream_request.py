"""Conversion of the changes that a version makes to its requests."""

from __future__ import annotations

import pytest

from controlplane.api.convert.upstream_request import credential_from_proto, request_headers_from_proto
from controlplane.api.convert.version import version_from_proto, version_to_proto
from controlplane.domain import Credential, PathRewrite, RequestHeaders, Version
from controlplane.errors import Error
from controlplane.generated.turnout.v1 import model_pb2


def test_all_changes_survive_both_conversions() -> None:
    version = Version(
        "blue",
        host="a.b:80",
        rewrite=PathRewrite("/a", "/b"),
        request_headers=RequestHeaders({"x-a": "1"}, ("x-b",)),
        credential=Credential("key", "x-api-key", ""),
        upstream_model="llama-3.3",
    )
    message = version_to_proto(version)
    assert message.credential.secret == "secrets/key"
    assert version_from_proto(model_pb2.Version.FromString(message.SerializeToString())) == version


def test_an_unset_field_has_its_default() -> None:
    assert credential_from_proto(model_pb2.Credential(secret="secrets/key")) == Credential("key", "authorization", None)
    assert credential_from_proto(model_pb2.Credential(secret="key", scheme="")).scheme == ""
    assert request_headers_from_proto(model_pb2.RequestHeaders()) is None


@pytest.mark.parametrize(
    ("proto", "fields"),
    [
        (model_pb2.Credential(), ["secret"]),
        (model_pb2.Credential(secret="models/key", header="X"), ["secret", "header"]),
    ],
)
def test_every_wrong_field_is_named(proto: model_pb2.Credential, fields: list[str]) -> None:
    with pytest.raises(Error) as caught:
        credential_from_proto(proto)
    assert [v.field for v in caught.value.violations] == fields
