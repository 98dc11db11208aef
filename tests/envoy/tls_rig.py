"""A control plane with mutual TLS, nodes with certificate files, and a fake SPIRE agent."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from controlplane.cli.bootstrap_tls import write_sds_files
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.bootstrap_tls import BootstrapTls, CertificateFiles, SpireAgent
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import ControlPlane
from tests.pki import Authority, Pair

RULES = """
identities:
- {match: "spiffe://td/{name}", ids: "{name}", clusters: [demo]}
"""


class Files:
    """A folder of certificate files, which are replaced in one step by another symbolic link."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._numbers = itertools.count()
        directory.mkdir(parents=True)

    def put(self, **contents: str) -> None:
        """Replace the files: `tls_crt` is `tls.crt`. Files that are not named stay."""
        link = self.directory / "..data"
        new = self.directory / f"..{next(self._numbers)}"
        new.mkdir()
        for old in link.iterdir() if link.exists() else ():
            (new / old.name).write_bytes(old.read_bytes())
        for name, content in contents.items():
            file = name.replace("_", ".")
            (new / file).write_text(content)
            if not (self.directory / file).is_symlink():
                (self.directory / file).symlink_to(f"..data/{file}")
        (self.directory / "..new").symlink_to(new.name)
        (self.directory / "..new").rename(link)

    def path(self, name: str) -> str:
        return str(self.directory / name)


class SecureNodes:
    """The authority, the files of the server and of each node."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = Authority("first")
        self.server = Files(directory / "server")
        self.server.put(ca_crt=self.authority.certificate, identities_yaml=RULES, ca_crl=self.authority.crl().decode())
        self.renew_server()
        self.nodes: dict[str, Files] = {}

    def renew_server(self, name: str = "localhost") -> None:
        pair = self.authority.pair(name, "spiffe://td/turnout")
        self.server.put(tls_crt=pair.certificate, tls_key=pair.key)

    @property
    def options(self) -> list[str]:
        """Return the options of `turnout serve`."""
        files = {"tls-cert": "tls.crt", "tls-key": "tls.key", "client-ca": "ca.crt", "identities": "identities.yaml"}
        files["crl"] = "ca.crl"
        return [part for name, file in files.items() for part in (f"--xds-{name}", self.server.path(file))]

    def renew(self, node: str, lifetime: timedelta = timedelta(days=1)) -> Pair:
        """Give a node a new certificate."""
        pair = self.authority.pair(f"spiffe://td/{node}", lifetime=lifetime)
        files = self.nodes.get(node) or Files(self.directory / node)
        files.put(tls_crt=pair.certificate, tls_key=pair.key)
        if node not in self.nodes:
            files.put(ca_crt=self.authority.certificate)
            self.nodes[node] = files
        return pair

    def certificates(self, node: str) -> CertificateFiles:
        """Return the files of a node, which get their content if it has none."""
        if node not in self.nodes:
            self.renew(node)
        files = self.nodes[node]
        certificate, key, authorities = (files.path(f) for f in ("tls.crt", "tls.key", "ca.crt"))
        return CertificateFiles(certificate, key, authorities, str(self.directory / f"sds-{node}"))

    def envoy(
        self,
        plane: ControlPlane,
        node: str,
        variant: Literal["delta", "sotw"],
        *,
        binary: str | None = None,
        server_name: str = "localhost",
        agent: Path | None = None,
    ) -> Envoy:
        """Return an Envoy with certificate files, or with a SPIRE `agent`; it is not started yet."""
        source = SpireAgent(str(agent)) if agent else self.certificates(node)
        tls = BootstrapTls(source, server_name)
        write_sds_files(tls)
        bootstrap = node_bootstrap(
            node, "demo", xds_host="localhost", xds_port=plane.xds_port, variant=variant, admin_port=0, tls=tls
        )
        return Envoy(bootstrap, binary=binary)


@asynccontextmanager
async def spire_agent(socket: Path, nodes: SecureNodes, spiffe_id: str) -> AsyncIterator[None]:
    """Serve SDS over a Unix socket as a SPIRE agent does, with the names `default` and `ROOTCA`."""
    pair = nodes.authority.pair(spiffe_id)

    async def stream(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            if request.response_nonce:
                continue
            response = discovery_pb2.DiscoveryResponse(version_info="1", nonce="1", type_url=request.type_url)
            for name in request.resource_names:
                secret = secret_pb2.Secret(name=name)
                if name == "default":
                    secret.tls_certificate.certificate_chain.inline_string = pair.certificate
                    secret.tls_certificate.private_key.inline_string = pair.key
                elif name == "ROOTCA":
                    secret.validation_context.trusted_ca.inline_string = nodes.authority.certificate
                response.resources.add().Pack(secret)
            yield response

    handler = grpc.stream_stream_rpc_method_handler(
        stream,
        discovery_pb2.DiscoveryRequest.FromString,
        discovery_pb2.DiscoveryResponse.SerializeToString,
    )
    server = grpc.aio.server()
    name = "envoy.service.secret.v3.SecretDiscoveryService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, {"StreamSecrets": handler})])
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(0)


async def stat(envoy: Envoy, name: str) -> int:
    """Return a counter of the cluster of the control plane."""
    return (await envoy.stats(f"cluster.turnout.{name}")).get(f"cluster.turnout.{name}", 0)


async def until_at_least(envoy: Envoy, name: str, value: int, seconds: float = 15) -> None:
    """Wait until a counter of the cluster of the control plane has this value."""
    async with asyncio.timeout(seconds):
        while await stat(envoy, name) < value:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
