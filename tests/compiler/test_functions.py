"""Functions in patches, as compiled: what they get, what they may return, and the errors that name the patch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded
from controlplane.compiler.functions import FunctionCall, FunctionFailed, Functions, NoFunctions
from controlplane.domain import Endpoint, Gateway, Mirror, Model, Patch, PatchTarget, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.envoy_types import CLUSTER, LISTENER, ROUTES
from controlplane.errors import Code, Error
from controlplane.snapshot import Audience, Client, Snapshot
from tests.compiler.cases import check
from tests.compiler.values import everything

HASH = "0" * 32
BLUE, GREEN = (Version(name, (Endpoint("10.0.0.1", port),)) for name, port in (("blue", 1), ("green", 2)))
IRIS = Model("iris", ("edge",), (BLUE, GREEN), {"blue": 10_000})
MESSAGES: Mapping[str, Any] = {
    m.DESCRIPTOR.full_name: m for m in (listener_pb2.Listener, route_pb2.RouteConfiguration, cluster_pb2.Cluster)
}


@dataclass
class InProcess(Functions):
    """A function that changes messages in place, without a child process. It records its calls."""

    change: Callable[[Any], None]
    calls: list[FunctionCall] = field(default_factory=list)
    installed: str = HASH

    def call(self, call: FunctionCall) -> bytes:
        self.calls.append(call)
        message = MESSAGES[call.message_type].FromString(call.body)
        self.change(message)
        return bytes(message.SerializeToString())


def call(settings: str = "{}", name: str = "p") -> Patch:
    return Patch(name, PatchTarget.FUNCTION, settings, function="f", hash=HASH)


def compiled(functions: Functions | None, *objects: Gateway | Model, client: Client = Client.ENVOY) -> Snapshot:
    gateways = {o.name: o for o in objects if isinstance(o, Gateway)} or {"edge": Gateway("edge", 80)}
    models = {o.name: o for o in objects if isinstance(o, Model)}
    compiler = Compiler(functions) if functions is not None else Compiler()
    snapshot = compiler.compile(State(gateways, models), NO_LIVE_ENDPOINTS, Audience(("edge",), client), 1)
    check(everything(snapshot), snapshot)
    return snapshot


def test_a_function_gets_the_result_of_the_patches_before_it() -> None:
    def change(listener: Any) -> None:
        assert listener.tcp_backlog_size.value == 7
        listener.tcp_backlog_size.value = 8

    backlog = Patch("b", PatchTarget.LISTENER, '{"tcp_backlog_size": 7}')
    functions = InProcess(change)
    snapshot = compiled(functions, Gateway("edge", 80, patches=(backlog, call('{"a": 1}'))))
    (listener,) = map(decoded, snapshot.resources[LISTENER].values())
    assert listener.tcp_backlog_size.value == 8
    (made,) = functions.calls
    assert (made.hash, made.function, made.settings) == (HASH, "f", '{"a":1}')
    assert made.message_type == "envoy.config.listener.v3.Listener"


def test_a_model_has_its_routes_changed_and_a_version_all_its_clusters() -> None:
    def change(message: Any) -> None:
        if isinstance(message, route_pb2.RouteConfiguration):
            message.virtual_hosts[0].include_request_attempt_count = True
        else:
            message.alt_stat_name = "x"

    green, red = (replace(GREEN, name=name, patches=(call(),)) for name in ("green", "red"))
    versions = (replace(BLUE, fallback=("green",)), green, red)
    model = replace(IRIS, versions=versions, patches=(call(),), mirror=Mirror("red"))
    snapshot = compiled(InProcess(change), model)
    assert decoded(snapshot.resources[ROUTES]["iris"]).virtual_hosts[0].include_request_attempt_count
    changed = {name for name, c in snapshot.resources[CLUSTER].items() if decoded(c).alt_stat_name}
    assert changed == {"iris/green", "iris/red", "iris/red/mirror", "iris/blue/fallback/green"}


def fail(message: Any) -> None:
    raise FunctionFailed("the function 'f' failed: KeyError: 'a' (team.py, line 3, in f: x)")


def rename(message: Any) -> None:
    message.name = "other"


def enlarge(message: Any) -> None:
    message.virtual_hosts[0].response_headers_to_add.add().header.CopyFrom(
        type(message.virtual_hosts[0].response_headers_to_add.add().header)(key="x-a", value="b" * 1_000)
    )


REFUSED = [
    (Gateway("edge", 80, patches=(call(),)), "gateways/edge.patches[0].function"),
    (replace(IRIS, patches=(call(),)), "models/iris.patches[0].function"),
    (replace(IRIS, versions=(BLUE, replace(GREEN, patches=(call(),)))), "models/iris.versions[1].patches[0].function"),
]


@pytest.mark.parametrize(("obj", "path"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_a_failure_and_a_broken_rule_name_the_patch(obj: Gateway | Model, path: str) -> None:
    with pytest.raises(Error, match=r"the function 'f' failed: KeyError: 'a' \(team.py, line 3, in f: x\)") as raised:
        compiled(InProcess(fail), obj)
    assert (raised.value.code, raised.value.reason) == (Code.FAILED_PRECONDITION, "PATCH_FUNCTION_FAILED")
    assert [v.field for v in raised.value.violations] == [path]
    with pytest.raises(Error, match="name: may not change") as raised:
        compiled(InProcess(rename), obj)
    assert (raised.value.reason, [v.field for v in raised.value.violations]) == ("PATCH_REFUSED", [path])


def test_routes_above_1_kb_are_refused() -> None:
    with pytest.raises(Error, match=r"would have up to .* but may have 1,024 with patches"):
        compiled(InProcess(enlarge), replace(IRIS, patches=(call(),)))


def test_types_that_can_not_be_checked_and_bytes_that_are_no_message_are_refused() -> None:
    def hide(message: Any) -> None:
        message.typed_extension_protocol_options["x"].type_url = "type.googleapis.com/xds.type.v3.TypedStruct"

    def damage(message: Any) -> None:
        message.typed_extension_protocol_options["x"].type_url = "type.googleapis.com/no.such.Type"

    model = replace(IRIS, versions=(BLUE, replace(GREEN, patches=(call(),))))
    for change, text in ((hide, "TypedStruct' can't be checked"), (damage, "'no.such.Type' is not known")):
        with pytest.raises(Error, match=text):
            compiled(InProcess(change), model)

    class NoMessage(NoFunctions):
        def call(self, call: FunctionCall) -> bytes:
            return b"\xff"

    with pytest.raises(Error, match="returned no Cluster"):
        compiled(NoMessage(), model)


def test_a_server_without_a_plugin_says_so_and_clients_without_envoy_need_none() -> None:
    model = replace(IRIS, patches=(call(),))
    with pytest.raises(Error, match="has no plug-in with functions: start it with --patches"):
        compiled(None, model)
    assert everything(compiled(None, model, client=Client.GRPC)) == everything(compiled(None, IRIS, client=Client.GRPC))


def test_a_switch_calls_only_the_functions_of_its_model() -> None:
    functions = InProcess(lambda message: None)
    compiler, gateway = Compiler(functions), Gateway("edge", 80, patches=(call(),))
    models = {m.name: m for m in (replace(IRIS, name=name, patches=(call(),)) for name in ("a", "b"))}
    before = compiler.compile(State({"edge": gateway}, models), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    functions.calls.clear()
    switched = {**models, "a": replace(models["a"], split={"green": 10_000})}
    compiler.compile(State({"edge": gateway}, switched), NO_LIVE_ENDPOINTS, Audience(("edge",)), 2, before)
    # The routes, and those of the widest split.
    assert [MESSAGES[c.message_type].FromString(c.body).name for c in functions.calls] == ["a", "a"]
