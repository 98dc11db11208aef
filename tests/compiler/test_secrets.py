"""The secrets that an audience gets, and what a rotation changes for it."""

from __future__ import annotations

import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded, owner
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.domain import (
    Credential,
    Endpoint,
    Gateway,
    GatewayTls,
    Model,
    NodeSelector,
    Object,
    OpaqueValue,
    Secret,
    UpstreamTls,
    Version,
)
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.envoy_types import ORDER, SECRET, SENSITIVE
from controlplane.errors import Error
from controlplane.snapshot import Audience, Client, Resource
from tests.compiler.cases import check
from tests.compiler.values import everything
from tests.pki import authority, marks, pair

EDGE, INNER = Audience(("edge",)), Audience(("inner",))
OLD, NEW = pair("old.example"), pair("new.example")


def model(name: str, gateway: str, tls: UpstreamTls | None) -> Model:
    return Model(name, (gateway,), (Version("blue", (Endpoint("10.0.0.1", 80),), tls=tls),), {"blue": 10_000})


def state(*more: Secret) -> State:
    objects: list[Object] = [
        Gateway("edge", 8443, nodes=NodeSelector(clusters=("edge",)), tls=GatewayTls("shown")),
        Gateway("inner", 8080, nodes=NodeSelector(clusters=("inner",))),
        model("iris", "edge", UpstreamTls("a.b", ca_certificates="ca")),
        model("wine", "inner", UpstreamTls("a.b", client_certificate="mine")),
        OLD.secret("shown"),
        OLD.secret("mine"),
        OLD.secret("unused"),
        authority().secret(),
        *more,
    ]
    return State().applied(Changes({o.resource_name: o for o in objects}))


def test_an_audience_gets_the_secrets_that_its_gateways_and_models_name() -> None:
    compiler = Compiler()
    assert set(compiler.compile(state(), NO_LIVE_ENDPOINTS, EDGE, 1).resources[SECRET]) == {"shown", "ca"}
    assert set(compiler.compile(state(), NO_LIVE_ENDPOINTS, INNER, 1).resources[SECRET]) == {"mine"}
    assert set(compiler.compile(state(), NO_LIVE_ENDPOINTS, Audience(("edge",), models=frozenset()), 1).resources[SECRET]) == {
        "shown"
    }
    for audience in (Audience(), Audience(("edge", "inner"), Client.GRPC)):
        assert not compiler.compile(state(), NO_LIVE_ENDPOINTS, audience, 1).resources[SECRET]


def test_a_credential_goes_to_the_nodes_that_need_it_and_is_in_no_other_resource() -> None:
    here = (Endpoint("10.0.0.1", 80),)
    versions = tuple(
        Version(name, here, credential=credential)
        for name, credential in (
            ("a", Credential("key")),
            ("b", Credential("key", "x-api-key")),
            ("c", Credential("key", scheme="Basic")),
        )
    )
    chat = Model("chat", ("inner",), versions, {"a": 10_000})
    key = Secret("key", OpaqueValue("sk-1234"))
    compiler = Compiler()
    now = state(key).applied(Changes({chat.resource_name: chat}))
    assert "key" not in {
        name.partition("/")[0] for name in compiler.compile(now, NO_LIVE_ENDPOINTS, EDGE, 1).resources[SECRET]
    }
    inner = compiler.compile(now, NO_LIVE_ENDPOINTS, INNER, 1)
    keys = {n: decoded(r).generic_secret.secret.inline_string for n, r in inner.resources[SECRET].items() if n != "mine"}
    assert keys == {"key": "sk-1234", "key/Bearer": "Bearer sk-1234", "key/Basic": "Basic sk-1234"}
    assert {owner(r) for n, r in inner.resources[SECRET].items() if n != "mine"} == {"secrets/key"}
    for type_url in ORDER:
        assert type_url == SECRET or not any(b"sk-1234" in r.body for r in inner.resources[type_url].values())
    assert "sk-1234" not in repr(static_bootstrap(inner, (OLD.certificate, OLD.key)))
    # A rotation changes the forms of the secret, and nothing else.
    rotated = now.applied(Changes({"secrets/key": Secret("key", OpaqueValue("sk-5678"))}))
    after = compiler.compile(rotated, NO_LIVE_ENDPOINTS, INNER, 2, inner)
    assert [t for t in ORDER if after.versions[t] != inner.versions[t]] == [SECRET]
    check(everything(after), after)


def test_a_rotation_changes_one_secret_and_no_other_type() -> None:
    compiler, old = Compiler(), state()
    before = compiler.compile(old, NO_LIVE_ENDPOINTS, EDGE, 1)
    after = compiler.compile(old.applied(Changes({"secrets/shown": NEW.secret("shown")})), NO_LIVE_ENDPOINTS, EDGE, 2, before)
    assert [t for t in ORDER if after.versions[t] != before.versions[t]] == [SECRET]
    assert [t for t in ORDER if after.resources[t] is not before.resources[t]] == [SECRET]
    assert [n for n, r in after.resources[SECRET].items() if r != before.resources[SECRET][n]] == ["shown"]
    unused = compiler.compile(
        old.applied(Changes({"secrets/unused": NEW.secret("unused")})), NO_LIVE_ENDPOINTS, EDGE, 2, before
    )
    assert unused.resources[SECRET] is before.resources[SECRET]


def test_compiling_step_by_step_is_the_same_as_at_once() -> None:
    compiler, now = Compiler(), state()
    snapshot = compiler.compile(now, NO_LIVE_ENDPOINTS, EDGE, 1)
    steps: list[dict[str, Gateway | Model | Secret | None]] = [
        {"models/iris": model("iris", "edge", None)},
        {"models/iris": model("iris", "edge", UpstreamTls("a.b", client_certificate="mine"))},
        {"secrets/mine": NEW.secret("mine")},
        {"models/iris": None},
        {"gateways/edge": Gateway("edge", 8443)},
    ]
    expected = [{"shown"}, {"shown", "mine"}, {"shown", "mine"}, {"shown"}, set()]
    for i, (step, names) in enumerate(zip(steps, expected, strict=True), 2):
        now = now.applied(Changes(step))
        snapshot = compiler.compile(now, NO_LIVE_ENDPOINTS, EDGE, i, snapshot)
        assert set(snapshot.resources[SECRET]) == names
        assert snapshot == Compiler().compile(now, NO_LIVE_ENDPOINTS, EDGE, i)


def test_a_secret_has_no_text_form_and_problems_do_not_quote_it() -> None:
    snapshot = Compiler().compile(state(), NO_LIVE_ENDPOINTS, EDGE, 1)
    resource = snapshot.resources[SECRET]["shown"]
    assert (resource.type_url in SENSITIVE, owner(resource)) == (True, "secrets/shown")
    text = repr((state(), snapshot, resource, OLD.secret()))
    assert not any(mark in text for mark in marks(OLD.key))
    assert "PRIVATE" not in text
    assert not any(mark in repr(static_bootstrap(snapshot)) for mark in marks(OLD.key))
    broken = Resource.of(SECRET, "shown", b"\x12\xff" + OLD.key.encode())
    with pytest.raises(Error) as caught:
        check([broken], snapshot)
    assert not any(mark in repr((caught.value, caught.value.violations)) for mark in marks(OLD.key))
    with pytest.raises(Error, match=r"Secret\[x\].type: breaks a rule of Envoy; the value is secret"):
        check([Resource.of(SECRET, "x", b"\x0a\x01x")])
