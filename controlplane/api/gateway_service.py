"""The gRPC service for gateways."""

from __future__ import annotations

from typing import Any

from controlplane.api.objects import Objects
from controlplane.domain import Gateway
from controlplane.generated.turnout.v1 import gateway_service_pb2 as pb
from controlplane.generated.turnout.v1 import gateway_service_pb2_grpc
from controlplane.store import Store
from controlplane.writer import Writer


class GatewayService(gateway_service_pb2_grpc.GatewayServiceServicer):
    """Manages the gateways in desired state."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._objects = Objects(Gateway, writer, store)

    async def GetGateway(self, request: pb.GetGatewayRequest, context: Any) -> pb.GetGatewayResponse:
        return pb.GetGatewayResponse(gateway=self._objects.get(request.name))

    async def ListGateways(self, request: pb.ListGatewaysRequest, context: Any) -> pb.ListGatewaysResponse:
        gateways, token = self._objects.page(request)
        return pb.ListGatewaysResponse(gateways=gateways, next_page_token=token)

    async def CreateGateway(self, request: pb.CreateGatewayRequest, context: Any) -> pb.CreateGatewayResponse:
        return pb.CreateGatewayResponse(**await self._objects.create(request, context))

    async def UpdateGateway(self, request: pb.UpdateGatewayRequest, context: Any) -> pb.UpdateGatewayResponse:
        return pb.UpdateGatewayResponse(**await self._objects.update(request, context))

    async def DeleteGateway(self, request: pb.DeleteGatewayRequest, context: Any) -> pb.DeleteGatewayResponse:
        return pb.DeleteGatewayResponse(**await self._objects.delete(request, context))
