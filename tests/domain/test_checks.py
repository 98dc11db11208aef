"""Checks of single values: the limits, and the texts of the errors."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.checks import (
    BOUNDS,
    check_bounds,
    check_distinct,
    check_header,
    check_label,
    check_path,
    check_port,
    check_range,
    is_ip,
)
from controlplane.domain.gateway import PathRouting
from controlplane.errors import Code, Error

GOOD: list[Callable[[], None]] = [
    lambda: check_label("a"),
    lambda: check_label("a-0"),
    lambda: check_label("a" * 63),
    lambda: check_port(1),
    lambda: check_port(65_535),
    lambda: check_header("x-model", "f"),
    lambda: check_header("x" * 100, "f"),
    lambda: check_path("/", "f"),
    lambda: check_path("/" + "a" * 1_023, "f"),
    lambda: check_range(0.1, 0.1, 3600, "f"),
    lambda: check_range(3600, 0.1, 3600, "f"),
    lambda: check_distinct(["a", "b"], "f"),
    lambda: check_bounds(PathRouting(segment=16), "segment"),
]

BAD: list[tuple[Callable[[], None], str]] = [
    (lambda: check_label(""), "name: is required: 1 to 63 of a-z"),
    (lambda: check_label("A"), "name: 'A' is not a DNS label"),
    (lambda: check_label("a-"), "name: 'a-' is not a DNS label"),
    (lambda: check_label("a" * 64, "f"), "f: 'aaa"),
    (lambda: check_port(0), "port: 0 is not a port: 1 to 65535"),
    (lambda: check_port(65_536, "f"), "f: 65536 is not a port"),
    (lambda: check_header("", "f"), "f: is required"),
    (lambda: check_header("X-A", "f"), "f: 'X-A' must be in lower case: 'x-a'"),
    (lambda: check_header("x a", "f"), "f: 'x a' can't be used as the name of a header here"),
    (lambda: check_header("te", "f"), "f: 'te' can't be used"),
    (lambda: check_header("x-envoy-a", "f"), "f: 'x-envoy-a' can't be used"),
    (lambda: check_header("x" * 101, "f"), "f: 'xxx"),
    (lambda: check_path("", "f"), "f: is required"),
    (lambda: check_path("a", "f"), "f: 'a' is not a path: it starts with '/'"),
    (lambda: check_path("/a?b", "f"), "f: '/a?b' is not a path"),
    (lambda: check_path("/a b", "f"), "f: '/a b' is not a path"),
    (lambda: check_range(0, 0.1, 3600, "f", " s"), "f: 0 s is out of range: 0.1 s to 3,600 s"),
    (lambda: check_range(float("nan"), 0, 1, "f"), "f: "),
    (lambda: check_distinct(["a", "b", "a"], "f"), "f[2]: 'a' is named twice"),
]


@pytest.mark.parametrize("check", GOOD)
def test_valid_values_pass(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize(("check", "message"), BAD)
def test_invalid_values_are_refused(check: Callable[[], None], message: str) -> None:
    with pytest.raises(Error) as caught:
        check()
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert caught.value.message.startswith(message)
    assert len(caught.value.violations) == 1


@pytest.mark.parametrize("name", ["a", "10.0.0", "10.0.0.1.2", "::g", ""])
def test_other_texts_are_not_ip_addresses(name: str) -> None:
    assert not is_ip(name)


@given(st.ip_addresses())
def test_every_ip_address_is_recognised(address: object) -> None:
    assert is_ip(str(address))


@given(st.integers(-(10**6), 10**6))
def test_a_segment_is_within_its_bounds(segment: int) -> None:
    low, high = BOUNDS["segment"]
    if low <= segment <= high:
        assert PathRouting(segment).segment == segment
    else:
        with pytest.raises(Error, match="segment"):
            PathRouting(segment)
