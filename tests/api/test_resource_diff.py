"""Diffs of two contents of an Envoy resource."""

from __future__ import annotations

from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from controlplane.api.resource_diff import MAX_BYTES, MAX_LINES, difference
from controlplane.envoy_types import ROUTES, SECRET
from controlplane.snapshot import Resource
from controlplane.xds.refusals import unseen


def routes(*hosts: str) -> Resource:
    configuration = route_pb2.RouteConfiguration(name="iris", virtual_hosts=[{"name": h, "domains": [h]} for h in hosts])
    return Resource.of(ROUTES, "iris", configuration.SerializeToString())


def test_lines_that_differ() -> None:
    old, new = routes("a", "b"), routes("a", "c")
    assert difference(old, new) == (
        [
            f"--- holds {old.version}",
            f"+++ should hold {new.version}",
            "@@ -3,6 +3,6 @@",
            " - name: a",
            "   domains:",
            "   - a",
            "-- name: b",
            "+- name: c",
            "   domains:",
            "-  - b",
            "+  - c",
        ],
        "",
    )


def test_a_new_and_a_removed_resource() -> None:
    one = routes()
    assert difference(None, one)[0] == ["--- holds nothing", f"+++ should hold {one.version}", "@@ -0,0 +1 @@", "+name: iris"]
    assert difference(one, None)[0] == [f"--- holds {one.version}", "+++ should hold nothing", "@@ -1 +0,0 @@", "-name: iris"]


def test_no_difference() -> None:
    assert difference(routes("a"), routes("a")) == ([], "")
    assert difference(None, None) == ([], "")


def test_secret_unknown_and_large_contents_are_not_compared() -> None:
    secret = Resource.of(SECRET, "edge", secret_pb2.Secret(name="edge").SerializeToString())
    assert difference(None, secret) == ([], "the content is secret")
    assert difference(secret, None) == ([], "the content is secret")
    assert "earlier stream" in difference(unseen(ROUTES, "iris", "1"), routes("a"))[1]
    large = routes("a" * MAX_BYTES)
    assert difference(routes("a"), large) == ([], "the content is larger than 256 KiB")


def test_a_long_diff_is_cut() -> None:
    lines, note = difference(None, routes(*(f"h{i}" for i in range(MAX_LINES))))
    assert (len(lines), note) == (MAX_LINES + 1, "")
    assert lines[-1] == f"… only the first {MAX_LINES} lines of the diff are shown"
