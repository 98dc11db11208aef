"""The service for gateways."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from controlplane.generated.turnout.v1 import gateway_pb2
from controlplane.generated.turnout.v1 import gateway_service_pb2 as pb
from tests.api.api import Api, gateway
from tests.store.opening import etag


async def test_create_read_update_list_and_delete(empty: Api) -> None:
    created = await empty.gateways.CreateGateway(pb.CreateGatewayRequest(gateway=gateway(), reason="first"))
    assert (created.revision, created.gateway.name, created.gateway.address, created.gateway.etag) == (
        1,
        "gateways/edge",
        "0.0.0.0",
        etag(1),
    )
    assert created.gateway.path.segment == 3
    assert created.gateway.path.verbs == ["predict", "classify", "regress", "explain"]
    read = await empty.gateways.GetGateway(pb.GetGatewayRequest(name="edge"))
    assert read.gateway == created.gateway

    header = gateway_pb2.Gateway(name="edge", header=gateway_pb2.HeaderRouting(name="x-model"), etag=etag(1))
    updated = await empty.gateways.UpdateGateway(
        pb.UpdateGatewayRequest(gateway=header, update_mask=FieldMask(paths=["header"]))
    )
    assert (updated.revision, updated.gateway.port, updated.gateway.header.name) == (2, 8080, "x-model")
    assert updated.gateway.WhichOneof("routing") == "header"
    assert updated.gateway.create_time == created.gateway.create_time

    deleted = await empty.gateways.DeleteGateway(pb.DeleteGatewayRequest(name="gateways/edge", etag=etag(2)))
    assert deleted.revision == 3
    assert (await empty.gateways.ListGateways(pb.ListGatewaysRequest())).gateways == []


async def test_validate_only(api: Api) -> None:
    created = await api.gateways.CreateGateway(pb.CreateGatewayRequest(gateway=gateway("b", 81), validate_only=True))
    assert (created.revision, created.gateway.etag) == (0, "")
    updated = await api.gateways.UpdateGateway(pb.UpdateGatewayRequest(gateway=gateway(port=82), validate_only=True))
    assert (updated.revision, updated.gateway.port) == (0, 82)
    assert api.number == 1


async def test_pages(api: Api) -> None:
    await api.apply(*(gateway(f"g{i}", 9_000 + i) for i in range(4)))
    first = await api.gateways.ListGateways(pb.ListGatewaysRequest(page_size=4))
    second = await api.gateways.ListGateways(pb.ListGatewaysRequest(page_size=4, page_token=first.next_page_token))
    assert [g.name for g in (*first.gateways, *second.gateways)] == ["gateways/edge", *(f"gateways/g{i}" for i in range(4))]
    assert second.next_page_token == ""
