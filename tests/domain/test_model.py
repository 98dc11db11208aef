"""Models: valid by construction, and every error names its field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain import (
    Endpoint,
    Mirror,
    Model,
    PathRewrite,
    Retries,
    Sticky,
    Timeouts,
    UpstreamTls,
    Version,
)
from controlplane.domain.references import Reference
from controlplane.errors import Code, Error

HERE = (Endpoint("127.0.0.1", 8001),)
BLUE, GREEN, IDLE = Version("blue", HERE), Version("green", HERE), Version("idle")


def model(**changes: object) -> Model:
    fields: dict[str, object] = {
        "name": "iris",
        "gateways": ("edge",),
        "versions": (BLUE, GREEN, IDLE),
        "split": {"blue": 10_000},
    }
    return Model(**(fields | changes))  # type: ignore[arg-type]


BAD: list[tuple[str, Callable[[], object], str]] = [
    ("label with capitals", lambda: model(name="Iris"), "name"),
    ("our own header, sticky", lambda: Sticky(header="x-turnout-scope"), "header"),
    ("our own header, preview", lambda: model(preview_header="x-turnout-a"), "preview_header"),
    ("sticky by both", lambda: Sticky("a", "b"), ""),
    ("sticky by nothing", lambda: Sticky(), ""),
    ("mirror share", lambda: Mirror("green", 0), "basis_points"),
    ("negative timeout", lambda: Timeouts(request=-1), "request"),
    ("timeout that is no number", lambda: Timeouts(request=float("nan")), "request"),
    ("too many tries", lambda: Retries(attempts=11), "attempts"),
    ("per-try timeout of unsafe calls", lambda: Retries(per_try_timeout=1), "per_try_timeout"),
    ("rewrite", lambda: PathRewrite("a", "/"), "prefix"),
    ("rewrite with a query", lambda: PathRewrite("/", "/a?b"), "replacement"),
    ("no gateways", lambda: model(gateways=()), "gateways"),
    ("gateway twice", lambda: model(gateways=("edge", "edge")), "gateways[1]"),
    ("no versions", lambda: model(versions=()), "versions"),
    ("version twice", lambda: model(versions=(BLUE, BLUE)), "versions[1]"),
    ("key with a space", lambda: model(keys=("a b",)), "keys[0]"),
    ("shares below the whole", lambda: model(split={"blue": 9_999}), "split"),
    ("shares above the whole", lambda: model(split={"blue": 9_999, "green": 2}), "split"),
    ("unknown version", lambda: model(split={"red": 10_000}), "split.red"),
    ("share without endpoints", lambda: model(split={"idle": 10_000}), "split.idle"),
    ("negative share", lambda: model(split={"blue": 10_001, "green": -1}), "split.blue"),
    ("preview header", lambda: model(preview_header="X"), "preview_header"),
    ("mirror to nothing", lambda: model(mirror=Mirror("red")), "mirror.version"),
    ("mirror without endpoints", lambda: model(mirror=Mirror("idle")), "mirror.version"),
]


@pytest.mark.parametrize(("build", "field"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_an_error_names_its_field(build: Callable[[], object], field: str) -> None:
    with pytest.raises(Error) as caught:
        build()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.violations[0].field == field
    assert caught.value.violations[0].description


def test_all_violations_are_reported_in_one_error() -> None:
    with pytest.raises(Error) as caught:
        model(name="", gateways=(), keys=(" ",))
    assert [v.field for v in caught.value.violations] == ["name", "gateways", "keys[0]"]


def test_equal_splits_are_equal_values() -> None:
    a = model(split={"green": 1, "blue": 9_999, "idle": 0})
    b = model(split={"blue": 9_999, "green": 1})
    assert a == b
    assert list(a.split) == ["blue", "green"]


def test_a_model_refers_to_its_gateways_and_the_secrets_of_its_versions() -> None:
    blue = Version("blue", HERE, tls=UpstreamTls("blue.svc", ca_certificates="authorities", client_certificate="caller"))
    assert model(gateways=("a", "b"), versions=(GREEN, blue)).references == (
        Reference("gateways[0]", "gateways", "a"),
        Reference("gateways[1]", "gateways", "b"),
        Reference("versions[1].tls.ca_certificates", "secrets", "authorities", "ca_certificates"),
        Reference("versions[1].tls.client_certificate", "secrets", "caller", "tls_certificate"),
    )


def test_a_version_is_found_by_name() -> None:
    assert model().version("green") is GREEN
    with pytest.raises(Error, match="there is no version 'red'; there are: blue, green, idle") as caught:
        model().version("red", "target")
    assert (caught.value.reason, caught.value.violations[0].field) == ("UNKNOWN_VERSION", "target")


@pytest.mark.parametrize("key", ["meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b", "models:/iris@champion", "a" * 253])
def test_keys_are_names_as_people_give_them_to_models(key: str) -> None:
    assert model(keys=(key,)).route_keys == (key,)
