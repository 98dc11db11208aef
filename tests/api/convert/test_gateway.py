"""Conversion of gateways."""

from __future__ import annotations

import pytest
from hypothesis import given

from controlplane.api.convert.gateway import gateway_from_proto, gateway_to_proto
from controlplane.domain import Gateway, GatewayTls, PathRouting, TlsVersion
from controlplane.domain.revision import ObjectMeta
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import gateway_pb2
from tests.nouns import gateways, some

META = ObjectMeta(7, 100.5, 200.25, "7a0b93c1")


@some
@given(gateways)
def test_a_gateway_survives_both_conversions(gateway: Gateway) -> None:
    proto = gateway_to_proto(gateway, META)
    assert gateway_from_proto(gateway_pb2.Gateway.FromString(proto.SerializeToString())) == gateway


def test_an_unset_field_has_its_default() -> None:
    gateway = gateway_from_proto(gateway_pb2.Gateway(name="g", port=1))
    assert (gateway.address, gateway.routing, gateway.tls) == ("0.0.0.0", PathRouting(), None)
    path = gateway_pb2.PathRouting(segment=2)
    assert gateway_from_proto(gateway_pb2.Gateway(name="g", port=1, path=path)).routing == PathRouting(2)


def test_names_are_full_and_defaults_are_left_out() -> None:
    message = gateway_to_proto(Gateway("edge", 80), META)
    assert (message.name, message.etag, message.create_time.nanos) == ("gateways/edge", "7a0b93c1-7", 500_000_000)
    assert not message.HasField("nodes")
    assert not message.HasField("tls")
    assert not gateway_to_proto(Gateway("edge", 80)).HasField("create_time")


@pytest.mark.parametrize("client_ca", ["", "ca"])
@pytest.mark.parametrize("version", list(TlsVersion))
def test_tls_survives_both_conversions(client_ca: str, version: TlsVersion) -> None:
    gateway = Gateway("edge", 443, tls=GatewayTls("cert", client_ca, version))
    message = gateway_to_proto(gateway)
    assert message.tls.certificate == "secrets/cert"
    assert message.tls.client_ca == (f"secrets/{client_ca}" if client_ca else "")
    assert gateway_from_proto(message) == gateway


def test_the_default_version_of_tls_is_1_2() -> None:
    tls = gateway_from_proto(gateway_pb2.Gateway(name="g", port=1, tls=gateway_pb2.GatewayTls(certificate="c"))).tls
    assert tls is not None
    assert tls.min_version is TlsVersion.TLS_1_2


def test_all_errors_are_reported_together() -> None:
    message = gateway_pb2.Gateway(
        name="models/edge",
        address="nowhere",
        header=gateway_pb2.HeaderRouting(name="X"),
        tls=gateway_pb2.GatewayTls(certificate="gateways/c", min_version=9),  # type: ignore[arg-type]
    )
    with pytest.raises(Error) as caught:
        gateway_from_proto(message)
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert {v.field for v in caught.value.violations} == {"name", "port", "address", "header.name", "tls.min_version"}
