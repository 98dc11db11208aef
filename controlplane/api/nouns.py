"""The services of the nouns, found by name: the service of `gateway` is `GatewayService` in `gateway_service.py`."""

from __future__ import annotations

from importlib import import_module

import grpc

from controlplane.domain.collections import COLLECTIONS
from controlplane.store import Store
from controlplane.writer import Writer


def add_services(server: grpc.aio.Server, writer: Writer, store: Store) -> list[str]:
    """Add the service of each noun to a gRPC server, and return the full names of the services."""
    names = []
    for row in COLLECTIONS:
        module = f"{row.singular}_service"
        service = f"{row.noun.__name__}Service"
        implementation = getattr(import_module(f"controlplane.api.{module}"), service)
        stubs = import_module(f"controlplane.generated.turnout.v1.{module}_pb2_grpc")
        getattr(stubs, f"add_{service}Servicer_to_server")(implementation(writer, store), server)
        messages = import_module(f"controlplane.generated.turnout.v1.{module}_pb2")
        names.append(messages.DESCRIPTOR.services_by_name[service].full_name)
    return names
