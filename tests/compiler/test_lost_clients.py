"""Clients that a gateway loses by its CORS policy or its health path."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.compiler.lost_clients import lost_clients_of
from controlplane.domain import BodyRouting, Cors, Gateway, HostRouting

EDGE = Gateway("edge", 80)
A, B = "https://a.example", "https://b.example"


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        (None, Cors((A,)), []),
        (Cors((A,)), Cors((A, B)), []),
        (Cors((A, B)), Cors((A,)), [f"web pages of {B}"]),
        (Cors((A, B)), None, [f"web pages of {A}, {B}"]),
        (Cors((A,)), Cors(("*",)), []),
        (Cors(("*",)), Cors((A,)), ["web pages of *"]),
        (Cors((A,)), Cors((A,), allow_methods=("GET",)), [f"web pages of {A}"]),
        (Cors((A,), allow_methods=("GET", "POST")), Cors((A,), allow_methods=("GET",)), [f"web pages of {A}"]),
        (Cors((A,), allow_methods=("GET",)), Cors((A,)), []),
        (Cors((A,), allow_headers=("x-a",)), Cors((A,), allow_headers=("x-a", "x-b")), []),
        (Cors((A,), allow_credentials=True), Cors((A,)), [f"web pages of {A}"]),
    ],
)
def test_pages_that_may_do_less_are_lost(old: Cors | None, new: Cors | None, lost: list[str]) -> None:
    assert list(lost_clients_of(replace(EDGE, cors=old), replace(EDGE, cors=new))) == lost


@pytest.mark.parametrize(("old", "new", "lost"), [("", "/b", 0), ("/a", "/a", 0), ("/a", "", 1), ("/a", "/b", 1)])
def test_a_load_balancer_needs_the_path_that_it_checks(old: str, new: str, lost: int) -> None:
    found = list(lost_clients_of(replace(EDGE, health_path=old), replace(EDGE, health_path=new)))
    assert found == ["load balancers that check /a"] * lost


def test_larger_bodies_are_lost_when_the_bound_becomes_lower() -> None:
    small, large = (replace(EDGE, routing=BodyRouting(size << 20)) for size in (1, 64))
    assert list(lost_clients_of(large, small)) == ["requests with bodies above 1,048,576 bytes"]
    assert not list(lost_clients_of(small, large))
    assert not list(lost_clients_of(small, small))


def test_clients_that_list_the_models_lose_the_answer_when_they_are_hidden() -> None:
    hidden = replace(EDGE, hide_models=True)
    assert list(lost_clients_of(EDGE, hidden)) == ["clients that list the models first"]
    assert not list(lost_clients_of(hidden, EDGE))
    assert not list(lost_clients_of(hidden, hidden))
    by_host = replace(EDGE, routing=HostRouting())  # never lists any
    assert not list(lost_clients_of(by_host, replace(by_host, hide_models=True)))
