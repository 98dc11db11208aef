"""The services of the nouns are found by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controlplane.api.nouns import add_services
from controlplane.domain.collections import COLLECTIONS


class Server:
    """A gRPC server that records the methods of the services that are added."""

    def __init__(self) -> None:
        self.methods: dict[str, Callable[..., Any]] = {}

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.methods |= {f"{service}/{name}": handler.unary_unary for name, handler in handlers.items()}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Ignore the older form of registration, which generated code uses beside the other one."""


def test_each_noun_has_a_service_with_the_standard_methods() -> None:
    server: Any = Server()
    names = add_services(server, None, None)  # type: ignore[arg-type]
    assert names == [f"turnout.v1.{row.noun.__name__}Service" for row in COLLECTIONS]
    for row in COLLECTIONS:
        noun = row.noun.__name__
        for method in (f"Get{noun}", f"List{noun}s", f"Create{noun}", f"Update{noun}", f"Delete{noun}"):
            handler = server.methods[f"turnout.v1.{noun}Service/{method}"]
            assert handler.__module__ == f"controlplane.api.{row.singular}_service"
