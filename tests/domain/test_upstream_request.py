"""Changes to requests: valid by construction, and every error names its field."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controlplane.domain import Credential, RequestHeaders
from controlplane.errors import Code, Error

BAD: list[tuple[str, Callable[[], object], str]] = [
    ("a name in capitals", lambda: RequestHeaders({"X-A": "b"}), "set.X-A"),
    ("a header of the connection", lambda: RequestHeaders({"content-length": "3"}), "set.content-length"),
    ("the host", lambda: RequestHeaders({"host": "a.b"}), "set.host"),
    ("a pseudo-header", lambda: RequestHeaders({":path": "/"}), "set.:path"),
    ("a credential in the clear", lambda: RequestHeaders({"authorization": "Bearer x"}), "set.authorization"),
    ("a value with a line end", lambda: RequestHeaders({"x-a": "b\r\nx-c: d"}), "set.x-a"),
    ("an empty value", lambda: RequestHeaders({"x-a": ""}), "set.x-a"),
    ("too many headers", lambda: RequestHeaders({f"x-{i}": "a" for i in range(33)}), "set"),
    ("set and removed", lambda: RequestHeaders({"x-a": "b"}, ("x-a",)), "remove[0]"),
    ("removed twice", lambda: RequestHeaders({}, ("x-a", "x-a")), "remove[1]"),
    ("our own header", lambda: RequestHeaders({}, ("x-turnout-scope",)), "remove[0]"),
    ("a secret without a name", lambda: Credential(""), "secret"),
    ("a credential in the host", lambda: Credential("key", "host"), "header"),
    ("a scheme of two words", lambda: Credential("key", scheme="Bearer x"), "scheme"),
]


@pytest.mark.parametrize(("make", "field"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_wrong_value_is_refused_at_its_field(make: Callable[[], object], field: str) -> None:
    with pytest.raises(Error) as caught:
        make()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert [v.field for v in caught.value.violations] == [field]


def test_equal_headers_are_equal_in_any_order() -> None:
    one, other = RequestHeaders({"x-a": "1", "x-b": "2"}), RequestHeaders({"x-b": "2", "x-a": "1"})
    assert list(one.set) == list(other.set)
    assert bool(one)
    assert not RequestHeaders({})


@pytest.mark.parametrize(
    ("credential", "scheme"),
    [
        (Credential("key"), "Bearer"),
        (Credential("key", scheme="Basic"), "Basic"),
        (Credential("key", scheme=""), ""),
        (Credential("key", "x-api-key"), ""),
        (Credential("key", "x-api-key", "Token"), "Token"),
    ],
)
def test_only_authorization_has_a_scheme_by_default(credential: Credential, scheme: str) -> None:
    assert credential.scheme == scheme
