"""Affinity: exactly one header or cookie."""

import pytest

from controlplane.domain import Affinity
from controlplane.errors import Error


@pytest.mark.parametrize(
    ("header", "cookie", "field"),
    [("", "", ""), ("x-chat", "chat", ""), ("X-Chat", "", "header"), ("host", "", "header"), ("", "a chat", "cookie")],
)
def test_an_affinity_is_a_header_or_a_cookie(header: str, cookie: str, field: str) -> None:
    with pytest.raises(Error) as caught:
        Affinity(header, cookie)
    assert caught.value.violations[0].field == field


def test_a_cookie_may_have_capitals() -> None:
    assert Affinity(cookie="Chat").cookie == "Chat"
