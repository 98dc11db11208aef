"""The filter that keeps bodies, and its requests. `tests/envoy/test_body_gateway.py` sends large ones."""

from __future__ import annotations

import re
from typing import Any

import pytest
from envoy.extensions.common.matching.v3 import extension_matcher_pb2
from envoy.extensions.filters.http.buffer.v3 import buffer_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2
from envoy.type.matcher.v3 import http_inputs_pb2

from controlplane.compiler.body_buffer import buffer_filter
from controlplane.domain import BodyRouting
from tests.compiler.lua import run, runtime


@pytest.fixture(scope="module")
def lua() -> Any:
    return runtime()


def delegate() -> Any:
    manager = hcm_pb2.HttpConnectionManager()
    buffer_filter(manager, BodyRouting(32 << 20))
    (added,) = manager.http_filters
    message = extension_matcher_pb2.ExtensionWithMatcher()
    assert added.typed_config.Unpack(message)
    return message


def is_true(predicate: Any, headers: dict[str, str]) -> bool:
    """Return what Envoy finds: a value that is missing matches nothing."""
    match predicate.WhichOneof("match_type"):
        case "and_matcher":
            return all(is_true(p, headers) for p in predicate.and_matcher.predicate)
        case "or_matcher":
            return any(is_true(p, headers) for p in predicate.or_matcher.predicate)
        case "not_matcher":
            return not is_true(predicate.not_matcher, headers)
    single = predicate.single_predicate
    source = http_inputs_pb2.HttpRequestHeaderMatchInput()
    assert single.input.typed_config.Unpack(source)
    value = headers.get(source.header_name)
    return value is not None and re.fullmatch(single.value_match.safe_regex.regex, value) is not None


def is_kept(headers: dict[str, str]) -> bool:
    (skip,) = delegate().xds_matcher.matcher_list.matchers
    return not is_true(skip.predicate, headers)


def test_the_limit_is_that_of_the_gateway() -> None:
    buffer = buffer_pb2.Buffer()
    assert delegate().extension_config.typed_config.Unpack(buffer)
    assert buffer.max_request_bytes.value == 32 << 20


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "GET", "DELETE"])
@pytest.mark.parametrize("encoding", ["", "identity", "Identity", "gzip", "identity, gzip"])
def test_the_bodies_that_the_script_reads_are_kept(lua: Any, method: str, encoding: str) -> None:
    """A body that the script reads and this filter does not keep could have 1 MiB only."""
    types = ["", "application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "text/plain;a", "text/html"]
    types += [FORM, "Multipart/Form-Data; Boundary=x", "application/octet-stream", "application/x-www-form-urlencoded"]
    types += ["application/grpc", "application/xjson", "audio/wav", "multipart/mixed; boundary=x"]
    paths = [
        "/v1/chat",
        "/v1/files",
        "/v1/uploads/u/parts",
        "/v1/files?a=/files",
        "/v1/chat?to=/files",
        "/files/x",
        "/v1/models",
    ]
    for kind in types:
        for path in paths:
            headers = {":method": method, ":path": path, "content-encoding": encoding, "content-type": kind}
            present = {name: value for name, value in headers.items() if value}
            waited = run(lua, "{}", kind, path, method, **{"content-encoding": encoding}).waited
            assert is_kept(present) == waited, present


def test_a_message_of_grpc_web_is_kept() -> None:
    """Over HTTP/1 the connection's limit would end it."""
    for kind in ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text"):
        assert is_kept({":method": "POST", ":path": "/x", "content-type": kind})
    assert is_kept({":method": "POST", ":path": "/x", "content-type": ""})
