"""Tables of objects: the columns of each noun, and those of a noun without columns of its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from controlplane.cli import output
from controlplane.cli.object_tables import objects_table
from controlplane.domain import Gateway, Model
from controlplane.domain.collections import BY_NOUN, Collection
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2


def printed(capfd: pytest.CaptureFixture[str], row: Collection, *objects: Any) -> list[str]:
    output.show(objects_table(row, objects))
    return [line.rstrip() for line in capfd.readouterr().out.splitlines()]


def test_gateways(capfd: pytest.CaptureFixture[str]) -> None:
    by_header = gateway_pb2.Gateway(name="gateways/a", address="::", port=1, etag="7a0b93c1-2")
    by_header.header.name = "x-model"
    by_header.nodes.clusters.append("edge")
    by_host = gateway_pb2.Gateway(name="gateways/b", address="::", port=2, etag="7a0b93c1-3")
    by_host.host.SetInParent()
    by_path = gateway_pb2.Gateway(name="gateways/c", address="::", port=3, etag="7a0b93c1-4")
    by_path.tls.SetInParent()
    assert printed(capfd, BY_NOUN[Gateway], by_header, by_host, by_path) == [
        "GATEWAY     LISTENS ON  ROUTES BY       NODES  REVISION",
        "gateways/a  :::1        header x-model  edge   2",
        "gateways/b  :::2        host            all    3",
        "gateways/c  :::3 (TLS)  path segment 3  all    4",
    ]


def test_models(capfd: pytest.CaptureFixture[str]) -> None:
    model = model_pb2.Model(name="models/iris", gateways=["gateways/edge"], split={"blue": 10_000}, etag="7a0b93c1-5")
    model.versions.add(name="blue").endpoints.add(host="h", port=1)
    assert printed(capfd, BY_NOUN[Model], model) == [
        "MODEL        TRAFFIC    VERSIONS  GATEWAYS  REVISION",
        "models/iris  blue 100%  blue (1)  edge      5",
    ]


def test_a_noun_without_columns_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    row = Collection(cast("Any", SimpleNamespace(collection="route_owners")), "route_owner")
    assert printed(capfd, row, SimpleNamespace(name="route_owners/ml", etag="7a0b93c1-7")) == [
        "ROUTE OWNER      REVISION",
        "route_owners/ml  7",
    ]
