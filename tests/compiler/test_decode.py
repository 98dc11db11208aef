"""Resources read back."""

from __future__ import annotations

import pytest
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from controlplane.compiler.body_routing import compile_own_resources
from controlplane.compiler.decode import decoded, owner, unpack
from controlplane.compiler.message import packed
from controlplane.compiler.proxyless import compile_proxyless
from controlplane.domain import BodyRouting, Endpoint, Gateway, Model, Protocol, Version
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ORDER, ROUTES, SCOPED_ROUTES, SECRET
from controlplane.snapshot import Resource
from tests.compiler.breaks import base


def test_owner_is_the_object_that_a_person_can_change() -> None:
    snapshot = base()
    owners = {t: {owner(r) for r in snapshot.resources[t].values()} for t in ORDER}
    assert owners[LISTENER] == {"gateways/edge"}
    assert all(owners[t] == {"models/iris"} for t in (CLUSTER, ENDPOINTS))
    # A gateway has scopes and routes of its own.
    assert all(owners[t] == {"models/iris", "gateways/edge"} for t in (SCOPED_ROUTES, ROUTES))


def test_owner_of_a_grpc_clients_listener_is_its_model() -> None:
    version = Version("blue", (Endpoint("10.0.0.1", 80),), Protocol.GRPC)
    listener = compile_proxyless(Model("iris", ("edge",), (version,), {"blue": 10_000}))[0]
    assert owner(listener) == "models/iris"


def test_owner_of_the_routes_of_a_body_gateway_is_the_gateway() -> None:
    for resource in compile_own_resources(Gateway("edge", 80, routing=BodyRouting()), {"iris": "iris"}):
        assert owner(resource) == "gateways/edge"


def test_owner_of_a_secret_is_the_secret() -> None:
    assert owner(Resource.of(SECRET, "ca", b"")) == "secrets/ca"


def test_owner_of_a_listener_without_a_filter_is_its_name() -> None:
    body = listener_pb2.Listener(name="0.0.0.0:80").SerializeToString()
    assert owner(Resource.of(LISTENER, "0.0.0.0:80", body)) == "gateways/0.0.0.0:80"


@pytest.mark.parametrize("type_url", ORDER)
def test_a_body_of_another_type_is_an_error(type_url: str) -> None:
    with pytest.raises(DecodeError):
        decoded(Resource.of(type_url, "x", b"\xff\xff"))


def test_every_compiled_resource_is_read_back() -> None:
    for type_url in ORDER:
        for resource in base().resources[type_url].values():
            assert decoded(resource).SerializeToString(deterministic=True) == resource.body


def test_an_any_is_unpacked_by_its_type() -> None:
    message = listener_pb2.Listener(name="x")
    assert unpack(packed(message)) == message
    with pytest.raises(KeyError):
        unpack(any_pb2.Any(type_url="type.googleapis.com/no.Such"))
    with pytest.raises(DecodeError):
        unpack(any_pb2.Any(type_url=LISTENER, value=b"\xff"))
