"""Gateways move to other addresses, while requests come on connections that are open and stay open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping

import pytest

from controlplane.demo.ports import free_port
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2, revision_service_pb2, secret_pb2
from tests import pki
from tests.envoy.open_connections import OpenConnections
from tests.envoy.test_sync import HOST, VARIANTS, Plane, plane

__all__ = ["plane"]

pytestmark = pytest.mark.envoy

# Another loopback address.
OTHER_HOST = "127.0.0.8"
EDGE = pki.pair("edge.test")

Address = tuple[str, int]


def insecure() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def model_of(gateway: str) -> str:
    return f"on-{gateway.rstrip('2')}"


class Moves:
    """Gateways, and connections to each. A gateway whose name begins with `tls` has TLS.

    Each gateway has a model of its own. The model of `a` is also that of `a2`, which replaces it.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self.gateways: Mapping[str, Address] = {}
        self.lost: dict[str, dict[str, int]] = {}
        self.answered = 0

    async def apply(self, gateways: Mapping[str, Address]) -> None:
        """Make these the gateways, in one revision. Wait until the Envoy holds it."""
        port = self._plane.upstreams["blue"]
        blue = [model_pb2.Version(name="blue", endpoints=[model_pb2.Endpoint(host="127.0.0.1", port=port)])]
        tls = gateway_pb2.GatewayTls(certificate="edge")
        certificate = secret_pb2.TlsCertificate(certificate_chain_pem=EDGE.certificate, private_key_pem=EDGE.key)
        manifest = revision_service_pb2.Manifest(
            gateways=[
                gateway_pb2.Gateway(
                    name=name, address=address[0], port=address[1], tls=tls if name.startswith("tls") else None
                )
                for name, address in gateways.items()
            ],
            models=[
                model_pb2.Model(name=model_of(name), gateways=[name], versions=blue, split={"blue": 10_000})
                for name in gateways
            ],
            secrets=[secret_pb2.Secret(name="edge", tls_certificate=certificate)],
        )
        deleted = [f"gateways/{name}" for name in self.gateways if name not in gateways]
        request = revision_service_pb2.ApplyRequest(manifest=manifest, delete_names=deleted, force=True, allow_cut=True)
        response = await self._plane.revisions.Apply(request)
        progress = await self._plane.held(response.revision.number)
        assert (progress.holding, progress.refused) == (1, 0)
        self.gateways = gateways

    async def move(self, step: str, gateways: Mapping[str, Address]) -> None:
        """Open connections to every gateway, move the gateways, and count the requests on the open connections."""
        connections = OpenConnections()
        for name, (host, port) in self.gateways.items():
            tls: Callable[[], ssl.SSLContext | None] = insecure if name.startswith("tls") else lambda: None
            await self._until_it_listens(host, port)
            await connections.open(host, port, model_of(name), tls=tls())
        await connections.wait_for_more(10)
        await self.apply(gateways)
        await connections.wait_for_more(40)
        await asyncio.sleep(0.3)
        await connections.wait_for_more(20)
        await connections.stop()
        answers = connections.answers
        self.answered += answers.pop("200")
        if answers:
            self.lost[step] = dict(answers)

    async def _until_it_listens(self, host: str, port: int) -> None:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return


@VARIANTS
async def test_no_request_on_an_open_connection_is_lost_when_gateways_move(plane: Plane, variant: str) -> None:
    p1, p2, p3, p4, p5 = (free_port() for _ in range(5))
    async with plane.envoy("edge-1", variant):
        moves = Moves(plane)
        await moves.apply({"a": (HOST, p1), "b": (HOST, p2), "tls": (HOST, p4)})
        for step, gateways in {
            "another port": {"a": (HOST, p3), "b": (HOST, p2), "tls": (HOST, p5)},
            "another address": {"a": (OTHER_HOST, p3), "b": (HOST, p2), "tls": (OTHER_HOST, p4)},
            "an exchange": {"a": (HOST, p2), "b": (OTHER_HOST, p3), "tls": (OTHER_HOST, p4)},
            "to an address that another has just left": {"a": (HOST, p1), "b": (HOST, p2), "tls": (OTHER_HOST, p4)},
            "back": {"a": (HOST, p2), "b": (HOST, p1), "tls": (HOST, p4)},
            "a new gateway gets the address": {"a": (HOST, p3), "b": (HOST, p1), "c": (HOST, p2), "tls": (HOST, p4)},
            "another name for the gateway": {"a2": (HOST, p3), "b": (HOST, p1), "c": (HOST, p2), "tls": (HOST, p4)},
        }.items():
            await moves.move(step, gateways)
        assert moves.lost == {}
        assert moves.answered > 2000
