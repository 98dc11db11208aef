"""CORS policies: the origins that are accepted, and what no policy may allow."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain import Cors
from controlplane.errors import Error


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "https://app.example.com",
        "http://localhost:3000",
        "https://*.example.com",
        "chrome-extension://abc",
        "http://[::1]:80",
    ],
)
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    assert Cors((origin,)).allow_origins == (origin,)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://App.example.com",
        "https://*",
        "https://a.*.com",
        "**",
    ],
)
def test_anything_else_is_no_origin(origin: str) -> None:
    with pytest.raises(Error, match=r"allow_origins\[0\]: .* is not an origin"):
        Cors((origin,))


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"allow_origins": ()}, "allow_origins: "),
        ({"allow_origins": ("*", "*")}, r"allow_origins\[1\]: "),
        ({"allow_origins": ("*",), "allow_credentials": True}, "allow_credentials: "),
        ({"allow_methods": ("get",)}, r"allow_methods\[0\]: "),
        ({"allow_headers": ("X-Key",)}, r"allow_headers\[0\]: "),
        ({"expose_headers": ("a b",)}, r"expose_headers\[0\]: "),
        ({"max_age": 86_401.0}, "max_age: "),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(Error, match=path):
        Cors(**({"allow_origins": ("https://a.example",)} | fields))
