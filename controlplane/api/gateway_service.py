"""Gateways over gRPC."""

from __future__ import annotations

from typing import Any

from controlplane.api.convert import gateway_from_proto, gateway_to_proto, label
from controlplane.api.masks import updated
from controlplane.api.request import (
    check_new,
    draft,
    meta_of,
    named,
    number_of,
    page,
)
from controlplane.domain import Gateway
from controlplane.domain.collections import resource_name
from controlplane.domain.etag import check_etag
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, within
from controlplane.generated.turnout.v1 import gateway_service_pb2 as pb
from controlplane.generated.turnout.v1 import gateway_service_pb2_grpc
from controlplane.store import Store
from controlplane.writer import Outcome, Writer


class GatewayService(gateway_service_pb2_grpc.GatewayServiceServicer):
    """Keeps the gateways of desired state."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._writer = writer
        self._store = store

    async def GetGateway(self, request: pb.GetGatewayRequest, context: Any) -> pb.GetGatewayResponse:
        head = self._store.head.value
        gateway = head.state.require(Gateway, label(request.name, Gateway, "name"))
        return pb.GetGatewayResponse(gateway=gateway_to_proto(gateway, head.meta[gateway.resource_name]))

    async def ListGateways(self, request: pb.ListGatewaysRequest, context: Any) -> pb.ListGatewaysResponse:
        head = self._store.head.value
        gateways, token = page(
            head.state.gateways,
            lambda n: gateway_to_proto(head.state.gateways[n], head.meta[resource_name(Gateway, n)]),
            request,
            "gateways",
        )
        return pb.ListGatewaysResponse(gateways=gateways, next_page_token=token)

    async def CreateGateway(self, request: pb.CreateGatewayRequest, context: Any) -> pb.CreateGatewayResponse:
        with within("gateway"):
            check_new(request.gateway.etag)
            gateway = gateway_from_proto(request.gateway)
        name = gateway.resource_name

        def change(head: Head) -> Changes:
            if gateway.name in head.state.gateways:
                raise Error(Code.ALREADY_EXISTS, "ALREADY_EXISTS", f"{name} exists already", metadata={"name": name})
            return Changes({name: gateway})

        with named({name: "gateway"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.CREATE), validate_only=request.validate_only
            )
        return pb.CreateGatewayResponse(
            gateway=_shown(outcome, gateway.name, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def UpdateGateway(self, request: pb.UpdateGatewayRequest, context: Any) -> pb.UpdateGatewayResponse:
        short = label(request.gateway.name, Gateway, "gateway.name")
        name = resource_name(Gateway, short)

        def change(head: Head) -> Changes:
            live = head.state.require(Gateway, short)
            check_etag(head, name, request.gateway.etag, "gateway.etag")
            proto = updated(gateway_to_proto(live), request.gateway, request.update_mask)
            with within("gateway"):
                return Changes({name: gateway_from_proto(proto)})

        with named({name: "gateway"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.UPDATE), validate_only=request.validate_only
            )
        return pb.UpdateGatewayResponse(
            gateway=_shown(outcome, short, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def DeleteGateway(self, request: pb.DeleteGatewayRequest, context: Any) -> pb.DeleteGatewayResponse:
        short = label(request.name, Gateway, "name")
        name = resource_name(Gateway, short)

        def change(head: Head) -> Changes:
            head.state.require(Gateway, short)
            check_etag(head, name, request.etag, "etag")
            return Changes({name: None})

        with named({name: "name"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.DELETE), validate_only=request.validate_only
            )
        return pb.DeleteGatewayResponse(revision=number_of(outcome, request.validate_only))


def _shown(outcome: Outcome, short: str, validate_only: bool) -> Any:
    gateway = outcome.head.state.gateways[short]
    return gateway_to_proto(gateway, meta_of(outcome, gateway.resource_name, validate_only))
