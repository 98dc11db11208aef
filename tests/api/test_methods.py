"""The table of methods has a row for each method that the server serves, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.api.methods import METHODS, OPEN, named_object
from controlplane.app import App
from controlplane.config import Address, Config
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1 import node_service_pb2 as npb
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from controlplane.generated.turnout.v1.model_pb2 import Model

# The class of servers. `grpc.aio.Server` is its interface.
SERVER = grpc.aio._server.Server  # type: ignore[attr-defined]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return the set of methods that are added to gRPC servers from now on."""
    methods: set[str] = set()
    add_generic = SERVER.add_generic_rpc_handlers
    add_registered = SERVER.add_registered_method_handlers

    def generic(server: Any, handlers: Any) -> None:
        methods.update(name for handler in handlers for name in handler._method_handlers)
        add_generic(server, handlers)

    def registered(server: Any, service: str, handlers: Any) -> None:
        methods.update(f"/{service}/{name}" for name in handlers)
        add_registered(server, service, handlers)

    monkeypatch.setattr(SERVER, "add_generic_rpc_handlers", generic)
    monkeypatch.setattr(SERVER, "add_registered_method_handlers", registered)
    return methods


async def test_every_method_that_is_served_has_a_row(tmp_path: Path, served: set[str]) -> None:
    local = Address("127.0.0.1", 0)
    app = App(Config(data=tmp_path, api=local, xds=local, metrics=None))
    await app.start()
    await app.stop(0)
    assert served == METHODS.keys()


def test_only_health_is_open() -> None:
    assert {method.rpartition("/")[0] for method, row in METHODS.items() if row == OPEN} == {"/grpc.health.v1.Health"}


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (mpb.DeleteModelRequest(name="models/iris"), "models/iris"),
        (mpb.CreateModelRequest(model=Model(name="iris")), "models/iris"),
        (mpb.UpdateModelRequest(model=Model(name="models/iris")), "models/iris"),
        (mpb.SwitchTrafficRequest(switches=[mpb.TrafficSwitch(model="models/iris")]), "models/iris"),
        (mpb.UndoModelsRequest(undos=[mpb.ModelUndo(model="iris")]), "models/iris"),
        (npb.ForgetNodesRequest(names=["nodes/a", "nodes/b"]), "nodes/a"),
        (rpb.ApplyRequest(), ""),
        (b"bytes", ""),
        (mpb.DeleteModelRequest(name="x" * 10_000), "x" * 200),
    ],
)
def test_the_object_that_an_error_names(request_: Any, name: str) -> None:
    assert named_object(request_) == name
