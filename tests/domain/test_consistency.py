"""The rules by which objects fit together, and the fields that their errors name."""

from __future__ import annotations

import dataclasses

import pytest

from controlplane.domain import (
    BodyRouting,
    Endpoint,
    Gateway,
    GatewayTls,
    HeaderRouting,
    HostRouting,
    Model,
    Object,
    PathRewrite,
    PathRouting,
    Routing,
    UpstreamTls,
    Version,
)
from controlplane.domain.state import Changes, State
from controlplane.errors import Code, Error
from tests.pki import authority, pair

VERSIONS = tuple(Version(n, (Endpoint("127.0.0.1", p),)) for n, p in (("blue", 1), ("green", 2)))


def model(name: str, *keys: str, gateways: tuple[str, ...] = ("edge",)) -> Model:
    return Model(name, gateways, VERSIONS, {"blue": 10_000}, keys)


def state(*objects: Object) -> State:
    return State().applied(Changes({o.resource_name: o for o in objects}))


def refused(before: State, *objects: Object) -> Error:
    with pytest.raises(Error) as caught:
        before.applied(Changes({o.resource_name: o for o in objects}))
    assert caught.value.code is Code.FAILED_PRECONDITION
    return caught.value


def test_a_models_gateway_must_exist() -> None:
    error = refused(State(), model("iris"))
    assert error.reason == "UNKNOWN_GATEWAY"
    assert error.violations[0].field == "models/iris.gateways[0]"


def test_a_gateway_that_serves_a_model_cannot_be_deleted() -> None:
    s = state(Gateway("edge", 80), model("iris"))
    with pytest.raises(Error) as caught:
        s.applied(Changes({"gateways/edge": None}))
    assert caught.value.reason == "GATEWAY_IN_USE"
    assert caught.value.message == "gateways/edge can't be deleted while models/iris use it: change or delete those first"


def test_two_gateways_cannot_share_an_address() -> None:
    assert refused(state(Gateway("edge", 80)), Gateway("inner", 80)).reason == "ADDRESS_TAKEN"


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (model("iris"), model("other", "iris")),
        (model("iris"), model("other", "x", "iris")),
        (model("a", "x"), model("b", "x")),
    ],
)
def test_two_models_of_a_gateway_cannot_share_a_key(a: Model, b: Model) -> None:
    error = refused(state(Gateway("edge", 80), a), b)
    assert error.reason == "AMBIGUOUS_KEY"


@pytest.mark.parametrize("routing", [PathRouting(), HostRouting()])
def test_a_key_must_be_possible_at_its_gateway(routing: Routing) -> None:
    llama = model("llama", "llama", "meta-llama/Llama-3.1-8B-Instruct")
    error = refused(state(Gateway("edge", 80, routing=routing)), llama)
    assert (error.reason, error.violations[0].field) == ("IMPOSSIBLE_KEY", "models/llama.keys[1]")
    for other in (HeaderRouting("x-model"), BodyRouting()):
        s = state(Gateway("edge", 80, routing=other), llama)
        assert refused(s, Gateway("edge", 80, routing=routing)).reason == "IMPOSSIBLE_KEY"


def test_models_of_different_gateways_may_have_the_same_key() -> None:
    s = state(Gateway("edge", 80), Gateway("inner", 81))
    s = s.applied(Changes({"models/a": model("a", "x"), "models/b": model("b", "x", gateways=("inner",))}))
    assert len(s.models) == 2


def test_a_gateway_cannot_change_so_that_two_models_share_a_key() -> None:
    edge = Gateway("edge", 80, routing=HeaderRouting("x-model"))
    s = state(edge, model("a", "iris"), model("b", "IRIS"))
    assert refused(s, dataclasses.replace(edge, routing=HostRouting())).reason == "AMBIGUOUS_KEY"


PATH = Gateway("path", 80)
HEADER = Gateway("header", 81, routing=HeaderRouting("x-model"))
HOST = Gateway("host", 82, routing=HostRouting())


@pytest.mark.parametrize("key", ["meta-llama/Llama-3.1-8B-Instruct", ".."])
def test_a_key_that_can_never_match_at_one_of_the_gateways_is_refused(key: str) -> None:
    """The error names the gateway and the key."""
    error = refused(state(PATH, HEADER), model("iris", "iris", key, gateways=("header", "path")))
    assert (error.reason, [v.field for v in error.violations]) == ("IMPOSSIBLE_KEY", ["models/iris.keys[1]"])
    assert f"'{key}' can never match at gateways/path: there a key is segment 3 of the path" in error.message
    state(PATH, HEADER, model("iris", key, gateways=("header",)))


def test_a_gateway_can_not_change_so_that_a_key_never_matches() -> None:
    s = state(HEADER, model("iris", "a/b", gateways=("header",)))
    error = refused(s, dataclasses.replace(HEADER, routing=HostRouting()))
    assert error.reason == "IMPOSSIBLE_KEY"
    assert "at gateways/header: there a key is the host" in error.message


def test_a_key_that_was_accepted_before_does_not_hinder_other_changes() -> None:
    old = State({"host": HOST}, {"iris": model("iris", "iris.example.com.", gateways=("host",))})
    more = dataclasses.replace(HOST, expected_nodes=1), model("iris", "iris.example.com.", "iris", gateways=("host",))
    assert len(old.applied(Changes({o.resource_name: o for o in more})).models) == 1
    assert refused(old, model("iris", "wine.example.com.", gateways=("host",))).reason == "IMPOSSIBLE_KEY"


def test_a_prefix_that_no_path_can_begin_with_is_refused() -> None:
    s = state(Gateway("edge", 80), model("iris"))
    error = refused(s, dataclasses.replace(model("iris"), rewrite=PathRewrite("/v2/../v3", "/")))
    assert (error.reason, [v.field for v in error.violations]) == ("IMPOSSIBLE_PREFIX", ["models/iris.rewrite.prefix"])
    stored = dataclasses.replace(model("iris"), rewrite=PathRewrite("/v2/../v3", "/"))
    old = State({"edge": Gateway("edge", 80)}, {"iris": stored})
    assert old.applied(Changes({"models/iris": dataclasses.replace(stored, split={"green": 10_000})})).models["iris"].rewrite


FRONT, AUTHORITIES = pair("front.example").secret("front"), authority().secret("authorities")
TLS = Gateway("edge", 443, tls=GatewayTls("front", "authorities"))
CALLING = dataclasses.replace(VERSIONS[0], tls=UpstreamTls("blue.svc", ca_certificates="authorities"))


def test_referenced_secrets_must_exist() -> None:
    error = refused(state(FRONT), TLS)
    assert error.reason == "UNKNOWN_SECRET"
    assert [v.field for v in error.violations] == ["gateways/edge.tls.client_ca"]
    assert "secrets/authorities does not exist; there are: front" in error.message
    error = refused(State(), TLS)
    assert [v.field for v in error.violations] == ["gateways/edge.tls.certificate", "gateways/edge.tls.client_ca"]
    assert "there are no secrets yet" in error.message
    error = refused(state(Gateway("edge", 80)), dataclasses.replace(model("iris"), versions=(CALLING, VERSIONS[1])))
    assert [v.field for v in error.violations] == ["models/iris.versions[0].tls.ca_certificates"]


def test_referenced_secrets_must_have_the_required_kind() -> None:
    error = refused(state(FRONT), Gateway("edge", 443, tls=GatewayTls("front", "front")))
    assert error.reason == "WRONG_SECRET"
    assert (
        error.message
        == "gateways/edge.tls.client_ca: secrets/front is of kind tls_certificate, but ca_certificates is needed here"
    )


def test_a_secret_in_use_cannot_be_deleted_or_change_its_kind() -> None:
    calling = dataclasses.replace(model("iris"), versions=(CALLING, VERSIONS[1]))
    before = state(FRONT, AUTHORITIES, TLS, calling)
    with pytest.raises(Error) as caught:
        before.applied(Changes({"secrets/authorities": None}))
    assert caught.value.reason == "SECRET_IN_USE"
    assert "secrets/authorities can't be deleted while gateways/edge, models/iris use it" in caught.value.message
    assert caught.value.metadata == {"name": "secrets/authorities"}
    assert [v.field for v in caught.value.violations] == ["secrets/authorities"]
    error = refused(before, dataclasses.replace(FRONT, content=AUTHORITIES.content))
    assert error.reason == "SECRET_IN_USE"
    assert "can't become a secret of another kind" in error.message
    renewed = pair("renewed.example").secret("front")
    assert before.applied(Changes({"secrets/front": renewed})).secrets["front"] is renewed


def test_an_object_can_be_deleted_together_with_its_users() -> None:
    before = state(FRONT, AUTHORITIES, TLS, model("iris"))
    gone = dict.fromkeys(["secrets/front", "secrets/authorities", "gateways/edge", "models/iris"])
    assert before.applied(Changes(gone)) == State()
    moved = {"secrets/front": None, "secrets/authorities": None, "gateways/edge": Gateway("edge", 80)}
    assert before.applied(Changes(moved)).secrets == {}


def test_deleting_an_object_that_does_not_exist_changes_nothing() -> None:
    assert State().applied(Changes({"secrets/front": None, "models/iris": None})) == State()


def test_all_violations_are_reported_in_one_error() -> None:
    error = refused(
        state(Gateway("edge", 80), model("iris")), Gateway("inner", 80), model("x", gateways=("no",)), model("y", "iris")
    )
    assert [v.field for v in error.violations] == ["gateways/inner.port", "models/x.gateways[0]", "models/y.keys"]
    assert error.reason == "ADDRESS_TAKEN"


def test_a_long_list_of_users_is_abbreviated() -> None:
    before = state(Gateway("edge", 80), *(model(f"m{i:02}") for i in range(10)))
    with pytest.raises(Error, match="m07 and 2 more use it"):
        before.applied(Changes({"gateways/edge": None}))


@pytest.mark.parametrize(
    ("segment", "key", "path"),
    [(3, "ready", "/v2/health/ready"), (3, "index", "/v2/repository/index"), (2, "models", "/v1/models"), (1, "v2", "/v2")],
)
def test_a_new_model_can_not_take_a_path_at_which_its_gateway_answers(segment: int, key: str, path: str) -> None:
    gateway = dataclasses.replace(PATH, routing=PathRouting(segment))
    for new in (model(key, gateways=("path",)), model("iris", "iris", key, gateways=("path",))):
        error = refused(state(gateway), new)
        assert (error.reason, error.violations[0].field) == ("RESERVED_KEY", f"models/{new.name}.keys")
        assert f"'{key}' is the key of {path}, where gateways/path itself answers" in error.message
    # At other gateways these requests have another key, or none.
    other = (HEADER, HOST, dataclasses.replace(PATH, name="edge", port=83, routing=PathRouting(5)))
    s = state(*other, model(key, gateways=("header", "host", "edge")))
    assert refused(s, dataclasses.replace(other[2], routing=PathRouting(segment))).reason == "RESERVED_KEY"


def test_a_model_that_has_taken_such_a_path_before_keeps_it() -> None:
    old = State({"path": PATH}, {"ready": model("ready", gateways=("path",))})
    more = dataclasses.replace(PATH, expected_nodes=1), model("ready", "ready", "iris", gateways=("path",))
    assert len(old.applied(Changes({o.resource_name: o for o in more})).models) == 1


def test_a_health_path_can_not_be_a_path_of_a_model() -> None:
    health = dataclasses.replace(PATH, health_path="/v2/models/iris/ready")
    iris = model("other", "iris", gateways=("path",))
    for error in (refused(state(PATH, iris), health), refused(state(health), iris), refused(State(), health, iris)):
        assert (error.reason, error.violations[0].field) == ("HEALTH_PATH_TAKEN", "gateways/path.health_path")
        assert "/v2/models/iris/ready is a path of models/other" in error.message
    refused(state(PATH, iris), dataclasses.replace(health, health_path="/v2/models/iris:predict"))
    for allowed in ("/healthz", "/v2/health/ready", "/v2/models/none/ready"):
        state(PATH, iris).applied(Changes({"gateways/path": dataclasses.replace(health, health_path=allowed)}))
    # What was accepted before does not hinder other changes. The gateway finds no model by the path, if it looks elsewhere.
    old = State({"path": health}, {"other": iris})
    old.applied(Changes({"gateways/path": dataclasses.replace(health, expected_nodes=1)}))
    header = dataclasses.replace(health, routing=HeaderRouting("x-model"))
    old.applied(Changes({"gateways/path": header}))
