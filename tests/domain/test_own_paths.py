"""The paths at which a gateway answers itself."""

from __future__ import annotations

from controlplane.domain import Endpoint, Gateway, HeaderRouting, Model, PathRouting, Version
from controlplane.domain.own_paths import OWN_KEYS, health_path_model, path_keys, taken_path


def test_the_keys_of_the_paths_depend_on_the_segment() -> None:
    assert path_keys(3) == {
        "": "/v2",
        "live": "/v2/health/live",
        "ready": "/v2/health/ready",
        "index": "/v2/repository/index",
    }
    assert path_keys(16) == {"": "/v2"}
    assert all(path_keys(segment).keys() <= OWN_KEYS for segment in range(1, 17))


def test_only_path_gateways_find_a_key_there() -> None:
    edge = Gateway("edge", 80, health_path="/v2/models/iris/infer")
    iris = Model("iris", ("edge",), (Version("v1", (Endpoint("127.0.0.1", 1),)),), {"v1": 10_000})
    assert taken_path(edge, "ready") == "/v2/health/ready"
    assert not taken_path(edge, "iris")
    assert health_path_model(edge, iris)
    by_header = Gateway("edge", 80, routing=HeaderRouting("x-model"), health_path=edge.health_path)
    assert not taken_path(by_header, "ready")
    assert not health_path_model(by_header, iris)
    assert not health_path_model(Gateway("edge", 80, routing=PathRouting(4), health_path=edge.health_path), iris)
    assert not health_path_model(Gateway("edge", 80), iris)
