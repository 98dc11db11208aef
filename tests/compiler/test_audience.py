"""Audiences of nodes, and the notes on what they do not get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest

from controlplane.compiler.audience import AudienceResolver, audience, audiences, left_out, unselected
from controlplane.domain import Endpoint, Gateway, Locality, Model, NodeSelector, Protocol, Version
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Client


@dataclass(frozen=True)
class Node:
    id: str = "n"
    cluster: str = "x"
    metadata: Mapping[str, object] = field(default_factory=dict)
    user_agent: str = "envoy 1.40.0"
    locality: Locality = Locality()


def state(*gateways: Gateway, models: tuple[Model, ...] = ()) -> State:
    return State({g.name: g for g in gateways}, {m.name: m for m in models})


def model(name: str, gateway: str = "edge", protocol: Protocol = Protocol.HTTP1) -> Model:
    version = Version("blue", (Endpoint("10.0.0.1", 80),), protocol)
    return Model(name, (gateway,), (version,), {"blue": 10_000})


EDGE = Gateway("edge", 1)


def test_every_part_of_a_selector_must_hold() -> None:
    desired = state(
        Gateway("b", 1, nodes=NodeSelector(clusters=("x",))),
        Gateway("a", 2),
        Gateway("c", 3, nodes=NodeSelector(ids=("n",), metadata={"tier": "1"})),
        Gateway("d", 4, nodes=NodeSelector(regions=("eu",), zones=("eu-1", "eu-2"))),
        Gateway("e", 5, nodes=NodeSelector(sub_zones=("rack-7",))),
    )
    assert audience(desired, Node()).gateways == ("a", "b")
    assert audience(desired, Node("m", "y")).gateways == ("a",)
    assert audience(desired, Node(metadata={"tier": "1"})).gateways == ("a", "b", "c")
    assert audience(desired, Node(cluster="", locality=Locality("eu", "eu-2"))).gateways == ("a", "d")
    assert audience(desired, Node(cluster="", locality=Locality("us", "eu-2"))).gateways == ("a",)
    assert audience(desired, Node(cluster="", locality=Locality("", "", "rack-7"))).gateways == ("a", "e")


@pytest.mark.parametrize(
    ("user_agent", "metadata", "client"),
    [
        ("envoy 1.40.0", {}, Client.ENVOY),
        ("gRPC C-core linux 1.85.1", {}, Client.GRPC),
        ("gRPC Node Pure JS 1.14.1", {}, Client.GRPC),
        ("grpc-java 1.70.0", {}, Client.GRPC),
        ("", {}, Client.ENVOY),
        ("somebody 1", {}, Client.ENVOY),
        ("somebody 1", {"turnout.client": "grpc"}, Client.GRPC),
        ("gRPC Go 1.70", {"turnout.client": "envoy"}, Client.ENVOY),
        ("gRPC Go 1.70", {"turnout.client": "other"}, Client.GRPC),
        ("envoy 1.40.0", {"turnout.client": ["grpc"]}, Client.ENVOY),
    ],
)
def test_kinds_of_clients(user_agent: str, metadata: Mapping[str, object], client: Client) -> None:
    assert audience(State(), Node(user_agent=user_agent, metadata=metadata)).client is client


@pytest.mark.parametrize(
    ("named", "models"),
    [
        (["iris", "wine", "iris"], {"iris", "wine"}),
        ("iris, wine", {"iris", "wine"}),
        (["iris", 7.0, None, ""], {"iris"}),
        ([], set()),
        ("", set()),
        (7.0, None),
        ({"iris": True}, None),
    ],
)
def test_models_that_a_node_names(named: object, models: set[str] | None) -> None:
    assert audience(State(), Node(metadata={"turnout.models": named})).models == models


def test_nodes_with_the_same_gateways_client_and_models_are_one_audience() -> None:
    a, b = (Node(i, metadata={"turnout.models": m}) for i, m in (("a", ["iris", "wine"]), ("b", "wine,iris")))
    assert audience(state(EDGE), a) == audience(state(EDGE), b)
    assert hash(audience(state(EDGE), a)) == hash(audience(state(EDGE), b))


def test_nodes_of_one_audience_get_the_same_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AudienceResolver, "_BOUND", 2)
    resolver, desired = AudienceResolver(), state(EDGE)
    first = resolver.resolve(desired, Node("a"))
    assert resolver.resolve(desired, Node("b")) is first
    assert first == audience(desired, Node("a"))
    # At the bound all are forgotten; the audience stays equal.
    for name in ("iris", "wine", "rose"):
        resolver.resolve(desired, Node(metadata={"turnout.models": name}))
    assert len(resolver._audiences) <= 2
    assert resolver.resolve(desired, Node("a")) == first


def test_audiences_are_each_gateway_and_those_that_can_be_on_one_node() -> None:
    def of_envoys(*gateways: Gateway) -> set[tuple[str, ...]]:
        every = audiences(state(*gateways))
        assert {a for a in every if a.client is Client.GRPC} == {Audience(tuple(g.name for g in gateways), Client.GRPC)}
        return {a.gateways for a in every if a.client is Client.ENVOY}

    assert audiences(State()) == {Audience()}
    assert of_envoys(Gateway("a", 1), Gateway("b", 2)) == {("a",), ("b",), ("a", "b")}
    east, west = (Gateway(n, 8080, nodes=NodeSelector(clusters=(n,))) for n in ("east", "west"))
    assert of_envoys(east, Gateway("lab", 1), west) == {("east",), ("west",), ("lab",), ("east", "lab")}
    assert of_envoys(east, replace(west, address="10.0.0.1")) == {("east",), ("west",)}


def test_the_reason_why_no_gateway_selects_a_node() -> None:
    assert unselected(State()) == "there are no gateways yet"
    a = Gateway("a", 1, nodes=NodeSelector(("x", "y"), ("n",), {"tier": "1"}, ("eu",), ("eu-1",), ("rack",)))
    assert unselected(state(a)) == (
        "no gateway selects it: a wants cluster in [x, y] and id in [n] and region in [eu] and zone in [eu-1] "
        "and sub-zone in [rack] and metadata tier = 1"
    )
    more = (Gateway(n, 1, nodes=NodeSelector(clusters=(n,))) for n in "dcbea")
    assert unselected(state(*more)) == (
        "no gateway selects it: a wants cluster in [a]; b wants cluster in [b]; c wants cluster in [c] and 2 more"
    )


def test_models_that_a_node_names_and_does_not_get() -> None:
    desired = state(EDGE, Gateway("inner", 2), models=(model("iris"), model("wine", "inner")))
    at_edge = Audience(("edge",))
    assert left_out(desired, at_edge) == ""
    assert left_out(desired, replace(at_edge, models=frozenset(("iris",)))) == ""
    assert left_out(desired, replace(at_edge, models=frozenset(("iris", "wine", "nosuch")))) == (
        "it names models that its gateways don't have: nosuch, wine"
    )
    assert left_out(desired, replace(at_edge, models=frozenset())) == "its metadata turnout.models names no model"


def test_models_that_grpc_clients_do_not_get() -> None:
    desired = state(EDGE, models=(model("iris"), model("rose", protocol=Protocol.GRPC), model("wine")))
    everything = Audience(("edge",), Client.GRPC)
    assert left_out(desired, everything) == (
        "not given to gRPC clients: iris (its version blue speaks HTTP/1), wine (its version blue speaks HTTP/1)"
    )
    assert left_out(desired, replace(everything, models=frozenset(("rose",)))) == ""
    assert left_out(desired, replace(everything, models=frozenset(("iris",)))).endswith(
        "iris (its version blue speaks HTTP/1)"
    )
    assert left_out(desired, replace(everything, gateways=())) == ""
