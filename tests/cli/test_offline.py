"""Checks without a server: they have the server's texts, and accept references to objects that may be live."""

from __future__ import annotations

import pytest
from google.protobuf.json_format import ParseDict

from controlplane.cli.offline import check
from controlplane.errors import Error
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

GATEWAY = {"name": "edge", "port": 10000}
BLUE = {"name": "blue", "endpoints": [{"host": "10.0.0.1", "port": 80}]}
MODEL = {"name": "iris", "gateways": ["edge"], "versions": [BLUE]}


def manifest(**objects: object) -> Manifest:
    return ParseDict(objects, Manifest())


def test_objects_that_fit_together() -> None:
    check(manifest(gateways=[GATEWAY], models=[MODEL]))


def test_a_gateway_or_a_secret_that_is_missing_may_be_live() -> None:
    check(manifest(models=[MODEL]))
    check(manifest(gateways=[GATEWAY | {"tls": {"certificate": "secrets/edge"}}], models=[MODEL]))


def test_the_problems_of_all_objects_are_listed() -> None:
    with pytest.raises(Error) as caught:
        check(manifest(gateways=[GATEWAY | {"port": 70_000}], models=[MODEL | {"name": "Iris"}]))
    assert [v.field for v in caught.value.violations] == ["gateways[0].port", "models[0].name"]


def test_objects_that_do_not_fit_together() -> None:
    with pytest.raises(Error, match="'iris' means models/iris"):
        check(manifest(gateways=[GATEWAY], models=[MODEL, MODEL | {"name": "wine", "keys": ["iris"]}]))
