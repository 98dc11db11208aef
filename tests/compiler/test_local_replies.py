"""Local replies: what Envoy itself answers. `tests/envoy/test_local_replies.py` has the answers of a real one."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm_pb2

from controlplane.compiler.local_replies import set_local_replies
from controlplane.compiler.message import packed
from controlplane.domain import ErrorFormat, Gateway, HeaderRouting, HostRouting, PathRouting, Routing


def mappers(gateway: Gateway) -> list[Any]:
    manager = hcm_pb2.HttpConnectionManager()
    set_local_replies(manager, gateway)
    return list(manager.local_reply_config.mappers)


def texts(gateway: Gateway) -> list[str]:
    """Return the texts for gRPC."""
    found = [m.body_format_override.text_format_source.inline_string for m in mappers(gateway)]
    return [text for text in found if text]


def errors(gateway: Gateway) -> list[Any]:
    """Return the value of `error` in each form of JSON."""
    formats = [m.body_format_override for m in mappers(gateway)]
    return [dict(f.json_format)["error"] for f in formats if f.HasField("json_format")]


@pytest.mark.parametrize("routing", [PathRouting(), HeaderRouting("x-model"), HostRouting()])
def test_each_reply_has_the_same_text_in_grpc_and_in_json(routing: Routing) -> None:
    gateway = Gateway("edge", 80, routing=routing)
    # Only gRPC clients learn that a gateway by path is not for them.
    assert texts(gateway)[isinstance(routing, PathRouting) :] == errors(gateway)[isinstance(routing, PathRouting) :]
    assert all(m.filter.WhichOneof("filter_specifier") for m in mappers(gateway))


def test_openai_clients_get_a_message_with_a_type_and_a_code_and_ollama_a_text() -> None:
    gateway = Gateway("edge", 80, routing=HeaderRouting("x-model"), error_format=ErrorFormat.OPENAI)
    found = errors(gateway)
    assert [e for e in found if isinstance(e, str)] == texts(gateway)
    objects = [dict(e) for e in found if not isinstance(e, str)]
    assert [o["message"] for o in objects] == texts(gateway)
    assert objects[0]["type"] == "invalid_request_error"
    assert {o["code"] for o in objects} >= {"model_not_found", "model_unavailable", "timeout", "rate_limit_exceeded"}


def test_the_reply_to_an_unknown_model_says_where_the_name_is_read_from() -> None:
    assert "from segment 2 of the path, which gRPC can't set." in texts(Gateway("edge", 80, routing=PathRouting(2)))[0]
    assert errors(Gateway("edge", 80, routing=PathRouting(2)))[0].endswith(
        "from segment 2 of the path. Check the name and the path."
    )
    assert "from the host" in texts(Gateway("edge", 80, routing=HostRouting()))[0]
    known, missing = texts(Gateway("edge", 80, routing=HeaderRouting("x-model")))[:2]
    assert known.startswith("There is no model '%REQ(x-model):200%'.")
    assert "in the header x-model" in missing


def test_a_header_with_rare_characters_is_named_and_its_value_is_not_quoted() -> None:
    known, missing = texts(Gateway("edge", 80, routing=HeaderRouting("x%model")))[:2]
    assert known.startswith("There is no model.")
    assert "in the header x%%model " in missing


def test_no_text_shows_what_only_the_operator_knows() -> None:
    """Envoy's own texts and details name addresses, and what is wrong with a certificate."""
    gateway = Gateway("inner-edge", 80, "10.1.2.3")
    formats = [m.body_format_override for m in mappers(gateway)]
    written = b"".join(packed(f).value for f in formats)
    for internal in (b"LOCAL_REPLY_BODY", b"DETAILS", b"UPSTREAM", b"FAILURE_REASON", b"10.1.2.3", b"inner-edge"):
        assert internal not in written
