"""Changes, and what connected nodes lose by them: values in, values out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from controlplane.compiler import Compiler, audience
from controlplane.compiler.reach import (
    NOTHING_HELD,
    NOTHING_SILENT,
    Claim,
    Transition,
    losses_of,
    opened_addresses,
    replaced_versions,
)
from controlplane.domain import (
    BodyRouting,
    Cors,
    Endpoint,
    Gateway,
    GatewayTls,
    HeaderRouting,
    HostRouting,
    Model,
    NodeSelector,
    Patch,
    PatchTarget,
    PathRouting,
    Protocol,
    Secret,
    Version,
)
from controlplane.domain.cuts import in_order
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import LISTENER, SCOPED_ROUTES
from controlplane.fleet import Node
from controlplane.snapshot import Audience, Diff, DiffCache, Resources, Snapshot
from tests.pki import authority, pair

BLUE, GREEN = (Version(n, (Endpoint(f"10.0.0.{i}", 80),)) for i, n in enumerate(("blue", "green"), 1))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
WINE = replace(IRIS, name="wine")
EDGE = Gateway("edge", 80)
INNER = Gateway("inner", 81)
NODES = [Node("edge-1", "front"), Node("edge-2", "back"), Node("py-1", "front", user_agent="grpc-python 1.85")]

AUTHZ = {
    "type": "STRICT_DNS",
    "load_assignment": {
        "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "authz", "port_value": 9191}}}}]}
        ]
    },
}
ASK = {
    "name": "envoy.filters.http.ext_authz",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "gateways/edge/patches/authz"}},
    },
}
PATCHED = replace(
    EDGE,
    patches=(
        Patch("authz", PatchTarget.ADD_CLUSTER, json.dumps(AUTHZ)),
        Patch("ask", PatchTarget.HTTP_FILTER, json.dumps(ASK)),
    ),
)


class Compiled:
    """A state, compiled when asked."""

    def __init__(self, *objects: Gateway | Model | Secret) -> None:
        self.state = State(
            {o.name: o for o in objects if isinstance(o, Gateway)},
            {o.name: o for o in objects if isinstance(o, Model)},
            {o.name: o for o in objects if isinstance(o, Secret)},
        )
        self._compiler = Compiler()

    def snapshot(self, audience: Audience) -> Snapshot:
        return self._compiler.compile(self.state, NO_LIVE_ENDPOINTS, audience, 1)


def lost(
    before: Compiled,
    after: Compiled,
    nodes: list[Node] = NODES[:2],
    claims: dict[str, Claim] | None = None,
    silent: Mapping[tuple[str, str], str] = NOTHING_SILENT,
) -> list[str]:
    """Return the losses of these nodes in words."""
    transitions: dict[Transition, list[str]] = {}
    for node in nodes:
        held = (claims or {}).get(node.id) or audience(before.state, node)
        transitions.setdefault((held, audience(after.state, node)), []).append(node.id)
    ids: dict[object, list[str]] = {}
    for transition, losses in losses_of(before, after, transitions, DiffCache(), silent).items():
        for loss in losses:
            ids.setdefault(loss, []).extend(transitions[transition])
    return [loss.text(names) for loss, names in in_order(ids).items()]  # type: ignore[arg-type]


def only(**fields: tuple[str, ...]) -> NodeSelector:
    return NodeSelector(**fields)  # type: ignore[arg-type]


ON_ONE, ON_TYPO = (replace(EDGE, nodes=only(ids=(name,))) for name in ("edge-1", "egde-1"))
BY_HEADER, BY_HOST = (replace(EDGE, routing=routing) for routing in (HeaderRouting("x-model"), HostRouting()))
BY_BODY, DEFAULT_IRIS = (replace(EDGE, routing=BodyRouting(default_model=key)) for key in ("", "iris"))
ON_BOTH = replace(IRIS, gateways=("edge", "inner"))
RENAMED, MOVED = replace(EDGE, name="front"), replace(EDGE, port=8080)
BOTH = replace(IRIS, versions=tuple(replace(v, endpoints=(replace(v.endpoints[0], grpc_port=90),)) for v in (BLUE, GREEN)))
KEYS = replace(IRIS, keys=("iris", "flower", "rose"))

BASE = (EDGE, IRIS, WINE)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        # Changes that cut nothing.
        ((), BASE, []),
        (BASE, (*BASE, INNER, replace(IRIS, name="rose")), []),
        (BASE, (EDGE, replace(IRIS, split={"green": 10_000}), WINE), []),
        (BASE, (EDGE, replace(IRIS, versions=(BLUE,)), WINE), []),
        (BASE, (EDGE, replace(IRIS, keys=("iris", "flower")), WINE), []),
        (BASE, (RENAMED, replace(IRIS, gateways=("front",)), replace(WINE, gateways=("front",))), []),
        ((ON_ONE, IRIS), (EDGE, IRIS), []),
        ((EDGE,), (BY_HEADER,), []),
        ((BY_BODY, IRIS), (BY_BODY, IRIS, WINE), []),
        ((BY_BODY, IRIS), (DEFAULT_IRIS, IRIS), []),
        ((BY_BODY,), (EDGE,), []),
        # A body gateway: it is turned off, it loses a name of a model, or its default model.
        (
            (BY_BODY, IRIS, WINE),
            (EDGE, IRIS, WINE),
            [
                "models iris, wine can't be reached by field `model` of the body at 0.0.0.0:80 any more, only by path segment "
                "3, on edge-1 and edge-2"
            ],
        ),
        (
            (BY_BODY, replace(IRIS, keys=("iris", "meta/iris:8b")), WINE),
            (BY_BODY, replace(IRIS, keys=("iris",)), WINE),
            ["model iris loses its name 'meta/iris:8b' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        ((BY_BODY, IRIS, WINE), (BY_BODY, IRIS), ["model wine loses its name at 0.0.0.0:80 on edge-1 and edge-2"]),
        (
            (DEFAULT_IRIS, IRIS),
            (BY_BODY, IRIS),
            ["model iris loses its requests that name no model at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        (
            (DEFAULT_IRIS, IRIS, WINE),
            (replace(EDGE, routing=BodyRouting(default_model="wine")), IRIS, WINE),
            ["model iris loses its requests that name no model at 0.0.0.0:80 to model wine on edge-1 and edge-2"],
        ),
        # A typo in a selector.
        ((ON_ONE, IRIS), (ON_TYPO, IRIS), ["edge-1 loses its only listener 0.0.0.0:80 with model iris"]),
        ((EDGE, IRIS), (ON_ONE, IRIS), ["edge-2 loses its only listener 0.0.0.0:80 with model iris"]),
        (
            (EDGE, INNER, ON_BOTH),
            (replace(EDGE, nodes=only(clusters=("front",))), INNER, ON_BOTH),
            ["edge-2 loses its listener 0.0.0.0:80 with model iris"],
        ),
        # A gateway is removed from a model, or a model or a gateway is deleted.
        (
            (EDGE, INNER, ON_BOTH, WINE),
            (EDGE, INNER, replace(IRIS, gateways=("inner",)), WINE),
            ["model iris loses its path at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        (BASE, (EDGE, WINE), ["model iris loses its path at 0.0.0.0:80 on edge-1 and edge-2"]),
        (BASE, (EDGE,), ["models iris, wine lose their path at 0.0.0.0:80 on edge-1 and edge-2"]),
        (BASE, (), ["edge-1 and edge-2 lose their only listener 0.0.0.0:80 with models iris, wine"]),
        # The address changes: clients of the old one find nothing there.
        (
            BASE,
            (MOVED, IRIS, WINE),
            ["edge-1 and edge-2 lose their listener 0.0.0.0:80 (gateway edge moves to 0.0.0.0:8080) with models iris, wine"],
        ),
        # Two gateways swap their ports. Each keeps its scope, so only the listeners change.
        (
            (EDGE, INNER, IRIS, replace(WINE, gateways=("inner",))),
            (
                replace(EDGE, port=81, scope_id="0.0.0.0:80"),
                replace(INNER, port=80, scope_id="0.0.0.0:81"),
                IRIS,
                replace(WINE, gateways=("inner",)),
            ),
            [
                "model iris loses its path at 0.0.0.0:80 on edge-1 and edge-2",
                "model wine loses its path at 0.0.0.0:81 on edge-1 and edge-2",
            ],
        ),
        # The way in changes.
        (
            BASE,
            (BY_HEADER, IRIS, WINE),
            [
                "models iris, wine can't be reached by path segment 3 at 0.0.0.0:80 any more, only by header x-model, "
                "on edge-1 and edge-2"
            ],
        ),
        (
            (EDGE, IRIS),
            (replace(EDGE, routing=PathRouting(segment=2)), IRIS),
            [
                "model iris can't be reached by path segment 3 at 0.0.0.0:80 any more, only by path segment 2, "
                "on edge-1 and edge-2"
            ],
        ),
        (
            (BY_HEADER, IRIS),
            (replace(EDGE, routing=HeaderRouting("x-other")), IRIS),
            [
                "model iris can't be reached by header x-model at 0.0.0.0:80 any more, only by header x-other, "
                "on edge-1 and edge-2"
            ],
        ),
        (
            (EDGE, IRIS),
            (replace(EDGE, routing=PathRouting(verbs=("predict", "classify"))), IRIS),
            ["model iris loses its verbs 'explain', 'regress' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        # Browsers and load balancers.
        (
            (replace(EDGE, cors=Cors(("https://a.example",)), health_path="/healthz"), IRIS),
            (EDGE, IRIS),
            [
                "model iris can't be reached by load balancers that check /healthz at 0.0.0.0:80 any more "
                "on edge-1 and edge-2",
                "model iris can't be reached by web pages of https://a.example at 0.0.0.0:80 any more on edge-1 and edge-2",
            ],
        ),
        (
            (EDGE, IRIS),
            (replace(EDGE, hide_models=True), IRIS),
            ["model iris can't be reached by clients that list the models first at 0.0.0.0:80 any more on edge-1 and edge-2"],
        ),
        (
            (BY_BODY, IRIS),
            (replace(BY_BODY, routing=BodyRouting(1 << 20)), IRIS),
            [
                "model iris can't be reached by requests with bodies above 1,048,576 bytes at 0.0.0.0:80 any more "
                "on edge-1 and edge-2"
            ],
        ),
        # A filter and the cluster that it uses go together, one after the other, or only a cluster that nothing uses.
        (
            (PATCHED, IRIS),
            (EDGE, IRIS),
            [
                "model iris can't be reached by open connections at 0.0.0.0:80 any more (their filters use "
                "gateways/edge/patches/authz: remove the filters first, and the clusters in a later change, after the "
                "Envoys' drain time) on edge-1 and edge-2"
            ],
        ),
        ((PATCHED, IRIS), (replace(EDGE, patches=PATCHED.patches[:1]), IRIS), []),
        ((replace(EDGE, patches=PATCHED.patches[:1]), IRIS), (EDGE, IRIS), []),
        # gRPC ports.
        (
            (BY_BODY, BOTH),
            (BY_BODY, IRIS),
            ["model iris can't be reached any more by gRPC, because there are no gRPC ports any more, on edge-1 and edge-2"],
        ),
        ((EDGE, BOTH), (EDGE, IRIS), []),  # the path of a gRPC call names no model at a path gateway
        ((BY_BODY, IRIS), (BY_BODY, BOTH), []),
        # Keys.
        ((EDGE, KEYS), (EDGE, IRIS), ["model iris loses its paths 'flower', 'rose' at 0.0.0.0:80 on edge-1 and edge-2"]),
        (
            (EDGE, IRIS),
            (EDGE, replace(IRIS, keys=("flower",))),
            ["model iris loses its path 'iris' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        (
            (BY_HEADER, IRIS),
            (BY_HEADER, replace(IRIS, keys=("flower",))),
            ["model iris loses its header value 'iris' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        # Keys with slashes and colons, which may be encoded in a path.
        (
            (BY_HEADER, replace(IRIS, keys=("meta-llama/Llama", "llama3.1:8b", "iris"))),
            (BY_HEADER, IRIS),
            ["model iris loses its header values 'llama3.1:8b', 'meta-llama/Llama' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        (
            (EDGE, replace(IRIS, keys=("iris", "iris:8b"))),
            (EDGE, IRIS),
            ["model iris loses its path 'iris:8b' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        (
            (EDGE, replace(IRIS, keys=("iris:8b",))),
            (replace(EDGE, routing=PathRouting(verbs=("predict", "classify"))), replace(IRIS, keys=("iris:8b",))),
            ["model iris loses its verbs 'explain', 'regress' at 0.0.0.0:80 on edge-1 and edge-2"],
        ),
        ((BY_HOST, IRIS), (BY_HOST,), ["model iris loses its host at 0.0.0.0:80 on edge-1 and edge-2"]),
        (
            (EDGE, IRIS),
            (EDGE, replace(IRIS, name="rose", keys=("iris",))),
            ["model iris loses its path at 0.0.0.0:80 to model rose on edge-1 and edge-2"],
        ),
    ],
)
def test_each_kind_of_change_has_its_losses(
    before: tuple[Gateway | Model, ...], after: tuple[Gateway | Model, ...], expected: list[str]
) -> None:
    assert lost(Compiled(*before), Compiled(*after)) == expected


def test_a_listener_that_gets_or_loses_tls_is_reached_in_another_way() -> None:
    secrets = (pair().secret("edge"), authority().secret("ca"))
    plain, tls, mutual = EDGE, replace(EDGE, tls=GatewayTls("edge")), replace(EDGE, tls=GatewayTls("edge", "ca"))
    for old, new, way, instead in (
        (plain, tls, "plain HTTP", "TLS"),
        (mutual, plain, "TLS", "plain HTTP"),
        (tls, mutual, "TLS without a client's certificate", "TLS with one"),
    ):
        assert lost(Compiled(old, IRIS, *secrets), Compiled(new, IRIS, *secrets), NODES[:1]) == [
            f"model iris can't be reached by {way} at 0.0.0.0:80 any more, only by {instead}, on edge-1"
        ]
    assert lost(Compiled(mutual, IRIS, *secrets), Compiled(tls, IRIS, *secrets)) == []


def test_a_grpc_client_loses_models() -> None:
    grpc = replace(IRIS, versions=(replace(BLUE, protocol=Protocol.GRPC), GREEN))
    before = Compiled(EDGE, grpc, replace(grpc, name="wine"))
    assert lost(before, Compiled(EDGE, replace(grpc, split={"green": 10_000}), replace(grpc, name="wine")), NODES[2:]) == [
        "model iris can't be reached any more (its version green speaks HTTP/1) on py-1"
    ]
    assert lost(before, Compiled(EDGE), NODES[2:]) == ["models iris, wine can't be reached any more on py-1"]
    # It has no sockets, so the address of a gateway does not matter to it.
    assert lost(before, Compiled(MOVED, grpc, replace(grpc, name="wine")), NODES[2:]) == []


def test_a_node_is_compared_with_what_it_says_it_holds() -> None:
    labels = tuple(f"m{i}" for i in range(10))
    scopes = frozenset(f"0.0.0.0:80/{label}{verb}" for label in labels for verb in ("", ":predict"))
    ten = Claim(frozenset({"0.0.0.0:80"}), scopes, frozenset(labels))
    empty, one = Compiled(), Compiled(EDGE, replace(IRIS, name="m3"))
    node = NODES[:1]
    others = ", ".join(label for label in labels if label != "m3")
    assert lost(empty, one, node, {"edge-1": ten}) == [f"models {others} can't be reached any more on edge-1"]
    assert lost(empty, Compiled(INNER), node, {"edge-1": replace(ten, routes=frozenset({"m3"}))}) == [
        "edge-1 loses its listener 0.0.0.0:80",
        "model m3 can't be reached any more on edge-1",
    ]
    assert lost(empty, Compiled(EDGE), node, {"edge-1": Claim(frozenset({"0.0.0.0:80"}), scopes, frozenset())})[0].startswith(
        "no model is reached by keys 'm0', 'm0:predict'"
    )
    assert lost(empty, one, NODES[:2], {"edge-1": Claim(), "edge-2": NOTHING_HELD}) == [
        "edge-1 may lose everything: Turnout does not know what it holds"
    ]
    # A SotW client whose version nobody knows holds exactly what the new state has.
    versions = one.snapshot(audience(one.state, NODES[0])).versions
    same = Claim(None, None, frozenset({"m3"}), frozenset((t, versions[t]) for t in (LISTENER, SCOPED_ROUTES)))
    assert lost(empty, one, node, {"edge-1": same}) == []
    assert lost(empty, one, node, {"edge-1": replace(same, routes=frozenset({"m3", "m4"}))}) == [
        "model m4 can't be reached any more on edge-1"
    ]
    for versions_held in ((LISTENER, versions[LISTENER]),), ((LISTENER, "00"), (SCOPED_ROUTES, versions[SCOPED_ROUTES])):
        assert "may lose everything" in lost(empty, one, node, {"edge-1": replace(same, versions=frozenset(versions_held))})[0]
    # A gRPC client holds listeners with the names of models.
    assert lost(empty, one, NODES[2:], {"py-1": Claim(frozenset(labels[:2]), frozenset(), frozenset(labels[:2]))}) == [
        "models m0, m1 can't be reached any more on py-1"
    ]


def test_endpoints_that_are_all_replaced_by_silent_ones_are_lost() -> None:
    dead = replace(IRIS, versions=(replace(BLUE, endpoints=(Endpoint("10.0.0.1", 1),)), GREEN))
    before, after = Compiled(EDGE, IRIS, WINE), Compiled(EDGE, dead, WINE)
    assert replaced_versions(before.state, before.state.changes_to(after.state)) == [("iris", "blue")]
    assert lost(before, after) == []
    assert lost(before, after, silent={("iris", "blue"): "10.0.0.1:1: connection refused"}) == [
        "no endpoint of version blue of model iris answers (10.0.0.1:1: connection refused) on edge-1 and edge-2"
    ]
    # A node that does not serve the model loses nothing.
    assert lost(before, after, [Node("x", metadata={"turnout.models": "wine"})], silent={("iris", "blue"): "refused"}) == []


def test_grpc_addresses_that_are_all_others_are_replaced() -> None:
    def at(port: int) -> Model:
        endpoints = (Endpoint("10.0.0.1", 80, grpc_port=port),)
        return replace(IRIS, versions=(replace(BLUE, endpoints=endpoints), replace(GREEN, endpoints=endpoints)))

    before = State({"edge": EDGE}, {"iris": at(81)})
    assert replaced_versions(before, Changes({"models/iris": at(82)})) == [("iris", "blue")]
    assert replaced_versions(before, Changes({"models/iris": at(81)})) == []
    # They are a loss where gRPC calls can reach the model. A client without a proxy needs no gateway for that.
    silent = {("iris", "blue"): "gRPC port 82: connection refused"}
    loss = "no endpoint of version blue of model iris answers (gRPC port 82: connection refused) on "
    assert lost(Compiled(EDGE, at(81)), Compiled(EDGE, at(82)), NODES, silent=silent) == [f"{loss}py-1"]
    assert lost(Compiled(BY_BODY, at(81)), Compiled(BY_BODY, at(82)), silent=silent) == [f"{loss}edge-1 and edge-2"]


def test_only_versions_that_keep_a_share_and_no_endpoint_are_replaced() -> None:
    before = State({"edge": EDGE}, {"iris": IRIS})
    other = (Endpoint("10.0.0.9", 80),)

    def replaced(*versions: Version, **split: int) -> list[tuple[str, str]]:
        return replaced_versions(before, Changes({"models/iris": replace(IRIS, versions=versions, split=split)}))

    # Endpoints are added, or another version gets the traffic, or a version without a share changes.
    assert replaced(replace(BLUE, endpoints=BLUE.endpoints + other), GREEN, blue=10_000) == []
    assert replaced(BLUE, replace(GREEN, endpoints=other), green=10_000) == []
    assert replaced(BLUE, replace(GREEN, endpoints=other), blue=10_000) == []
    assert replaced(replace(BLUE, endpoints=other), GREEN, blue=1, green=9_999) == [("iris", "blue")]
    # New and deleted objects replace nothing.
    assert replaced_versions(before, Changes({"models/wine": WINE, "models/iris": None, "gateways/edge": EDGE})) == []


def test_a_revision_opens_addresses_that_no_gateway_had_before() -> None:
    swapped = {"gateways/edge": (EDGE, replace(EDGE, port=81)), "gateways/inner": (INNER, replace(INNER, port=80))}
    assert opened_addresses(swapped) == set()
    assert opened_addresses({"gateways/edge": (None, EDGE), "models/iris": (None, IRIS)}) == {"0.0.0.0:80"}
    assert opened_addresses({"gateways/edge": (EDGE, MOVED), "gateways/inner": (INNER, None)}) == {"0.0.0.0:8080"}


def test_a_change_that_only_moves_traffic_compares_nothing() -> None:
    """The listeners and the scopes of the two snapshots are the same objects."""

    class Comparing(DiffCache):
        def diff(self, old: Resources, new: Resources) -> Diff:
            assert old is new
            return super().diff(old, new)

    compiler = Compiler()
    at_edge = Audience(("edge",))
    old = State({"edge": EDGE}, {f"m{i}": replace(IRIS, name=f"m{i}") for i in range(100)})
    new = State(old.gateways, {**old.models, "m7": replace(old.models["m7"], split={"green": 10_000})})

    first = compiler.compile(old, NO_LIVE_ENDPOINTS, at_edge, 1)
    second = compiler.compile(new, NO_LIVE_ENDPOINTS, at_edge, 2, first)

    @dataclass
    class Fixed:
        state: State
        compiled: Snapshot

        def snapshot(self, audience: Audience) -> Snapshot:
            return self.compiled

    assert losses_of(Fixed(old, first), Fixed(new, second), [(at_edge, at_edge)], Comparing()) == {}
