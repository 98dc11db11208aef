"""Calls through a network that loses answers: each call is repeated, and acts only once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from controlplane.generated.turnout.v1.model_service_pb2 import SwitchTrafficRequest
from tests.cli.conftest import MINIMAL, Run, Server


class Lossy(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    """Passes calls on to the real server, but loses the first `lose` answers of a method after it has acted on them."""

    def __init__(self, target: str, method: str, lose: int) -> None:
        self.method, self.lose = method, lose
        self.requests: list[bytes] = []
        self.metadata: list[dict[str, str]] = []
        self.channel = grpc.insecure_channel(target)
        self.server = grpc.server(ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers([self])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        method = str(details.method)
        metadata = {str(k): str(v) for k, v in details.invocation_metadata or ()}

        as_it_is: Any = self.channel.unary_unary

        def pass_on(request: bytes, context: grpc.ServicerContext) -> bytes:
            answer: bytes = as_it_is(method)(request, metadata=[("x-turnout-author", metadata["x-turnout-author"])])
            if method.endswith(self.method):
                self.requests.append(request)
                self.metadata.append(metadata)
                if len(self.requests) <= self.lose:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")
            return answer

        return grpc.unary_unary_rpc_method_handler(pass_on)

    def close(self) -> None:
        self.server.stop(None)
        self.channel.close()


@pytest.fixture
def lossy(applied: Server) -> Iterator[Lossy]:
    proxy = Lossy(applied.api, "/SwitchTraffic", 2)
    yield proxy
    proxy.close()


def test_a_call_whose_answer_is_lost_is_repeated_and_acts_once(run: Run, lossy: Lossy) -> None:
    api = f"127.0.0.1:{lossy.port}"
    done = run("--retry-for", "20", "switch", "iris", "--to", "green", "--no-wait", "--api", api)
    assert done.code == 0
    assert done.err == f"{api} does not answer; retrying for 20 s …\n"
    assert "Revision 2 by ada@tests" in done.out
    assert run("history", "-o", "name").out == "revisions/2\nrevisions/1\n"
    ids = {SwitchTrafficRequest.FromString(r).request_id for r in lossy.requests}
    assert len(lossy.requests) == 3
    assert [uuid.UUID(i).version for i in ids] == [4]
    assert {m["x-turnout-author"] for m in lossy.metadata} == {"ada@tests"}


def test_a_call_waits_for_a_server_that_restarts(run: Run, applied: Server) -> None:
    port = applied.app.api_port
    applied.stop()
    with ThreadPoolExecutor(1) as executor:
        starting = executor.submit(Server, applied.data, port)
        done = run("--retry-for", "30", "switch", "iris", "--to", "green")
        starting.result(30).stop()
    assert done.code == 0
    assert "Revision 2 by ada@tests" in done.out


def test_an_answer_that_is_always_lost_exits_with_6(run: Run, lossy: Lossy) -> None:
    lossy.lose = 1_000
    done = run("--retry-for", "0.5", "switch", "iris", "--to", "green", "--api", f"127.0.0.1:{lossy.port}")
    assert done.code == 6


@pytest.mark.parametrize("author", ["Zoë ☃", "a\nb", "x" * 200, ""])
def test_an_author_may_have_any_name(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch, author: str) -> None:
    monkeypatch.setenv("TURNOUT_AUTHOR", author)
    assert run("apply", "-f", "-", stdin=MINIMAL).code == 0
    assert run("history", "-o", "json").json["revisions"][0]["author"]


def test_a_server_that_is_not_turnout_is_an_error(run: Run) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    done = run("get", "models", "--api", f"127.0.0.1:{port}")
    other.stop(None)
    assert done.code == 6
    assert "is a gRPC server, without this method of Turnout's operator API" in done.err


def test_an_author_need_not_be_ascii(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_AUTHOR", "Jörg 木")
    assert "by Jörg 木" in run("switch", "iris", "--to", "green", "--no-wait").out
    assert run("history", "-n", "1", "-o", "json").json["revisions"][0]["author"] == "Jörg 木"
    monkeypatch.setenv("TURNOUT_AUTHOR", "j" * 201)
    done = run("switch", "iris", "--to", "blue", "--no-wait")
    assert done.code == 3
    assert "x-turnout-author: is an author of more than 200 characters" in done.err
