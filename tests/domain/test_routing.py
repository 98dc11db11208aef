"""The keys by which a request names its model."""

from __future__ import annotations

import pytest

from controlplane.domain import (
    BodyRouting,
    Endpoint,
    Gateway,
    HeaderRouting,
    HostRouting,
    Model,
    PathRouting,
    Routing,
    Version,
)
from controlplane.domain.routing import carries_grpc, scope_keys

IRIS = Model("iris", ("g",), (Version("blue", (Endpoint("10.0.0.1", 80),)),), {"blue": 10_000}, ("Iris", "iris2"))


@pytest.mark.parametrize(
    ("routing", "keys"),
    [
        (PathRouting(verbs=("predict",)), ["Iris", "Iris:predict", "iris2", "iris2:predict"]),
        (PathRouting(verbs=()), ["Iris", "iris2"]),
        (HeaderRouting("x-model"), ["Iris", "iris2"]),
        (HostRouting(), ["iris", "iris2"]),
        (BodyRouting(), ["Iris", "iris2"]),
    ],
)
def test_keys_follow_the_gateways_routing(routing: Routing, keys: list[str]) -> None:
    assert scope_keys(Gateway("g", 1, routing=routing), IRIS) == keys


def test_a_key_in_a_path_may_be_encoded() -> None:
    model = Model("m", ("g",), IRIS.versions, {"blue": 10_000}, ("llama3.1:8b",))
    keys = ["llama3.1:8b", "llama3.1:8b:predict", "llama3.1%3A8b", "llama3.1%3A8b:predict"]
    assert scope_keys(Gateway("g", 1, routing=PathRouting(verbs=("predict",))), model) == keys
    assert scope_keys(Gateway("g", 1, routing=HeaderRouting("x-model")), model) == ["llama3.1:8b"]


def test_hosts_that_differ_only_in_case_are_one_key() -> None:
    model = Model("m", ("g",), IRIS.versions, {"blue": 10_000}, ("A.example", "a.example"))
    assert scope_keys(Gateway("g", 1, routing=HostRouting()), model) == ["a.example"]


@pytest.mark.parametrize(
    ("routing", "carries"),
    [
        (PathRouting(), False),
        (PathRouting(segment=3), False),
        (PathRouting(segment=2), True),
        (PathRouting(segment=1), True),
        (HeaderRouting("x-model"), True),
        (HostRouting(), True),
        (BodyRouting(), True),
    ],
)
def test_the_path_of_a_grpc_call_has_two_segments(routing: Routing, carries: bool) -> None:
    assert carries_grpc(Gateway("g", 1, routing=routing)) is carries
