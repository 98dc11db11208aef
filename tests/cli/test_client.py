"""Calls through a network that loses answers: none is made twice, none fails for it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from controlplane.cli import wait
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
    made = Lossy(applied.api, "/SwitchTraffic", 2)
    yield made
    made.close()


def test_a_lost_answer_is_asked_for_again_and_nothing_is_made_twice(run: Run, lossy: Lossy) -> None:
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


def test_a_server_that_restarts_is_waited_for(run: Run, applied: Server) -> None:
    port = applied.app.api_port
    applied.stop()
    with ThreadPoolExecutor(1) as elsewhere:
        starting = elsewhere.submit(Server, applied.data, port)
        done = run("--retry-for", "30", "switch", "iris", "--to", "green")
        starting.result(30).stop()
    assert done.code == 0
    assert "Revision 2 by ada@tests" in done.out


def test_waiting_outlives_a_restart(run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = applied.app.api_port
    watched = threading.Event()

    async def ignored(call: object, response: object) -> None:
        watched.set()

    monkeypatch.setattr(applied.connect("edge-1"), "_take", ignored)

    def restart() -> Server:
        assert watched.wait(20)
        applied.stop()
        anew = Server(applied.data, port)
        anew.connect("edge-1")
        return anew

    with ThreadPoolExecutor(1) as elsewhere:
        starting = elsewhere.submit(restart)
        done = run("--retry-for", "30", "switch", "iris", "--to", "green", "--timeout", "30")
        starting.result(30).stop()
    assert done.code == 0
    assert "Held by 1 of 1 node" in done.out


def test_a_node_that_leaves_for_good_is_not_waited_for_forever(
    run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait, "_RECONNECT_TIME", 0.5)
    leaving = applied.connect("leaving")
    applied.connect("staying")

    async def leave(call: Any, response: object) -> None:
        call.cancel()

    monkeypatch.setattr(leaving, "_take", leave)
    done = run("switch", "iris", "--to", "green", "--timeout", "30")
    assert done.code == 0
    assert "nodes/staying  " in done.out


def test_what_stays_lost_is_6(run: Run, lossy: Lossy) -> None:
    lossy.lose = 1_000
    done = run("--retry-for", "0.5", "switch", "iris", "--to", "green", "--api", f"127.0.0.1:{lossy.port}")
    assert done.code == 6


@pytest.mark.parametrize("author", ["Zoë ☃", "a\nb", "x" * 200, ""])
def test_whatever_an_author_is_called(run: Run, server: Server, monkeypatch: pytest.MonkeyPatch, author: str) -> None:
    monkeypatch.setenv("TURNOUT_AUTHOR", author)
    assert run("apply", "-f", "-", stdin=MINIMAL).code == 0
    assert run("history", "-o", "json").json["revisions"][0]["author"]


def test_something_else_that_answers_is_said(run: Run) -> None:
    other = grpc.server(ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    done = run("get", "models", "--api", f"127.0.0.1:{port}")
    other.stop(None)
    assert done.code == 1
    assert "is not a Turnout operator API, or an older version of it" in done.err
