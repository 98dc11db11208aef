"""Objects as JSON: equal after a round trip, readable without this program, and refused if a newer version wrote them."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given

from controlplane.domain import (
    AccessLog,
    BodyRouting,
    Cors,
    Endpoint,
    ErrorFormat,
    Gateway,
    HeaderRouting,
    HostRouting,
    Mirror,
    Model,
    OpaqueValue,
    PathRouting,
    RateLimiting,
    Retries,
    Routing,
    Secret,
    Version,
)
from controlplane.domain.collections import COLLECTIONS
from controlplane.errors import Error
from controlplane.store.codec import SEALED, decode, encode
from controlplane.store.sealing import Keys
from tests.nouns import gateways, models, some
from tests.pki import authority, marks, pair
from tests.store.places import EDGE, IRIS

KEYS = Keys([b"k" * 32])
# Fields of a version that earlier versions of this program don't know.
_LATER = ("fallback", "host", "rewrite", "request_headers", "credential", "upstream_model", "patches")
SECRETS = [pair("a.example").secret(), authority().secret(), Secret("key", OpaqueValue("sk-1234"))]


def reason(name: str, content: object) -> tuple[str, str]:
    """Return the reason and the text of the error that decoding raises."""
    with pytest.raises(Error) as caught:
        decode(name, content if isinstance(content, str) else json.dumps(content), KEYS)
    return caught.value.reason, caught.value.message


@given(models())
@some
def test_a_decoded_model_is_equal(model: Model) -> None:
    assert decode(model.resource_name, encode(model, KEYS), KEYS) == model


@given(gateways)
@some
def test_a_decoded_gateway_is_equal(gateway: Gateway) -> None:
    assert decode(gateway.resource_name, encode(gateway, KEYS), KEYS) == gateway


@pytest.mark.parametrize("secret", SECRETS, ids=lambda s: s.kind)
def test_a_decoded_secret_is_equal_and_its_json_shows_no_key(secret: Secret) -> None:
    content = encode(secret, KEYS)
    assert decode(secret.resource_name, content, KEYS) == secret
    assert not any(mark in content for mark in (*marks(pair("a.example").key), "sk-1234"))
    assert json.loads(content)["name"] == secret.name


def test_every_noun_can_be_encoded() -> None:
    forms = {row.noun: obj for row, obj in zip(COLLECTIONS, (EDGE, IRIS, SECRETS[0]), strict=True)}
    assert all(isinstance(obj, noun) and json.loads(encode(obj, KEYS)) for noun, obj in forms.items())


@pytest.mark.parametrize(
    ("routing", "content"),
    [
        (PathRouting(2, ("predict",)), {"path": {"segment": 2, "verbs": ["predict"]}}),
        (HeaderRouting("x-model"), {"header": {"name": "x-model"}}),
        (HostRouting(), {"host": {}}),
        (BodyRouting(1 << 20, "iris"), {"body": {"max_body_bytes": 1 << 20, "default_model": "iris"}}),
    ],
)
def test_a_union_is_encoded_under_the_name_of_its_class(routing: Routing, content: object) -> None:
    assert json.loads(encode(Gateway("edge", 80, routing=routing), KEYS))["routing"] == content


def test_a_field_that_was_added_later_is_left_out_at_its_default() -> None:
    later: dict[str, Any] = {
        "absent_after": 30.0,
        "ephemeral": True,
        "expected_nodes": 3,
        "scope_id": "0.0.0.0:81",
        "cors": Cors(("*",)),
        "access_log": AccessLog(),
        "answered_by_header": "x-answered-by",
        "health_path": "/healthz",
        "hide_models": True,
        "rate_limiting": RateLimiting(),
        "error_format": ErrorFormat.OPENAI,
        "labels": {"team": "ml"},
    }
    fields = later.keys()
    assert not fields & json.loads(encode(Gateway("edge", 80), KEYS)).keys()
    gateway = Gateway("edge", 80, **later)
    assert fields < json.loads(encode(gateway, KEYS)).keys()


def test_a_field_that_was_added_to_a_value_later_is_left_out_at_its_default() -> None:
    model = replace(IRIS, mirror=Mirror(IRIS.versions[0].name, 500), retries=Retries(3))
    assert json.loads(encode(model, KEYS))["mirror"].keys() == {"version", "basis_points"}
    assert "request_body_buffer_limit" not in json.loads(encode(model, KEYS))["retries"]
    model = replace(model, mirror=Mirror(IRIS.versions[0].name, timeout=1.0), retries=Retries(request_body_buffer_limit=7))
    assert json.loads(encode(model, KEYS))["mirror"]["timeout"] == 1.0
    assert json.loads(encode(model, KEYS))["retries"]["request_body_buffer_limit"] == 7
    assert decode(model.resource_name, encode(model, KEYS), KEYS) == model


def test_a_later_field_of_a_part_is_left_out_at_its_default() -> None:
    blue = Version("blue", (Endpoint("10.0.0.1", 80),))
    model = Model("iris", ("edge",), (blue,), {"blue": 10_000})
    content = json.loads(encode(model, KEYS))
    assert not {"affinity", "rate_limits"} & content.keys()
    assert content["versions"][0].keys() == {f.name for f in fields(Version)} - set(_LATER)
    assert content["versions"][0]["endpoints"] == [{"host": "10.0.0.1", "port": 80, "weight": 1}]
    assert decode("models/iris", encode(model, KEYS), KEYS) == model


def test_missing_fields_take_their_defaults() -> None:
    assert decode("gateways/edge", '{"name": "edge", "port": 8080}', KEYS) == EDGE


@pytest.mark.parametrize(
    "content",
    [
        {"name": "edge", "port": 80, "colour": "red"},
        {"name": "edge", "port": 80, "routing": {"smell": {}}},
        {"name": "edge", "port": 80, "routing": {"path": {"segment": 3, "extra": 1}}},
        {"name": "edge", "port": 80, "tls": {"certificate": "a", "min_version": "1.4"}},
    ],
)
def test_content_of_a_newer_version_is_refused(content: object) -> None:
    error, message = reason("gateways/edge", content)
    assert error == "STORE_NEWER"
    assert message.startswith("gateways/edge in the store was written by a newer version")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        {"name": "edge"},
        {"name": "edge", "port": "many"},
        {"name": "edge", "port": 0},
        {"name": "edge", "port": 80, "routing": {}},
        {"name": "edge", "port": 80, "routing": "path"},
        {"name": "edge", "port": 80, "routing": {"path": {}, "host": {}}},
    ],
)
def test_damaged_content_is_refused(content: object) -> None:
    error, message = reason("gateways/edge", content)
    assert error == "STORE_CORRUPT"
    assert message.startswith("gateways/edge in the store is not valid")


def test_a_collection_of_a_newer_version_is_refused() -> None:
    assert reason("rollouts/iris", {})[0] == "STORE_NEWER"


def test_a_secret_without_its_sealed_key_is_refused() -> None:
    content = json.loads(encode(SECRETS[0], KEYS))
    del content["tls_certificate"][SEALED]
    assert reason(SECRETS[0].resource_name, content)[0] == "SECRET_KEY_WRONG"
