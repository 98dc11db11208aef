"""The prober: probes versions, with bounds on time, connections and endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import replace

import structlog

from controlplane.domain import Endpoint, is_ip
from controlplane.probe.endpoint import probe_address
from controlplane.probe.resolve import Resolver
from controlplane.probe.results import Answer, EndpointProbe, VersionProbe
from controlplane.probe.targets import Target, forbidden
from controlplane.probe.tls import client_context

log = structlog.get_logger("probe")

# The longest time that a call of `probe` takes, whatever the number of versions. Seconds.
TIME_LIMIT = 1.0

# Endpoints that are probed of one version. If it has more, an evenly spread sample is probed.
_PER_VERSION = 32
# Endpoints that are probed in one call. At the bound, no further version is probed.
_PER_CALL = 256
# Open connections of all calls together. At the bound, further ones wait, and are not opened if their time is over.
_CONNECTIONS = 128
# Addresses of a DNS name that are tried, one after another, until one answers.
_PER_NAME = 4


class Prober:
    """Probes versions on behalf of operators."""

    def __init__(self, *, enabled: bool = True, local: bool = False, time_limit: float = TIME_LIMIT) -> None:
        """Make a prober. If it is not `enabled`, it connects to nothing.

        `local` is True if the control plane listens on loopback alone. Only then loopback and link-local addresses are probed.
        """
        self.enabled = enabled
        self._local = local
        self._time_limit = time_limit
        self._connections = asyncio.Semaphore(_CONNECTIONS)
        self._resolver = Resolver()

    async def probe(self, targets: Sequence[Target]) -> list[VersionProbe]:
        """Probe versions, and return the results in the same order, after a second at most. Raise no errors.

        Endpoints that could not be probed, or must not be probed, have the answer UNKNOWN.
        """
        if not self.enabled or not targets:
            return []
        samples = _samples(targets)
        deadline = asyncio.get_running_loop().time() + self._time_limit
        results = await asyncio.gather(*(self._version(t, s, deadline) for t, s in zip(targets, samples, strict=True)))
        for result in results:
            log.info(
                "version probed",
                model=result.model,
                version=result.version,
                endpoints=result.total,
                probed=result.probed,
                answering=result.answering,
            )
        return results

    async def _version(self, target: Target, sample: Sequence[Endpoint], deadline: float) -> VersionProbe:
        version = target.version
        context: ssl.SSLContext | None = None
        # A probe has no private key for a client certificate. If the endpoints demand one, it only tries the TCP connect.
        speaks = version.health_check is not None or target.handshake
        if sample and version.tls is not None and speaks and not version.tls.client_certificate:
            with contextlib.suppress(TimeoutError, ssl.SSLError):
                async with asyncio.timeout_at(deadline):
                    context = await asyncio.to_thread(client_context, version.tls, version.protocol, target.authorities)
        probes = await asyncio.gather(*(self._endpoint(e, target, context, deadline) for e in sample))
        return VersionProbe(target.model, version.name, len(version.endpoints), tuple(probes))

    async def _endpoint(
        self, endpoint: Endpoint, target: Target, context: ssl.SSLContext | None, deadline: float
    ) -> EndpointProbe:
        host, name = endpoint.host, endpoint.host_port
        connecting = False
        try:
            async with asyncio.timeout_at(deadline), self._connections:
                connecting = True
                addresses = [host] if is_ip(host) else (await self._resolver.resolve(host))[:_PER_NAME]
                answer, reason = await self._addresses(addresses, endpoint.port, target, context)
                if answer is Answer.YES and endpoint.grpc_port:
                    # A health check asks the main port, so only the connection is tried here.
                    connect = replace(target, version=replace(target.version, health_check=None), handshake=False)
                    answer, reason = await self._addresses(addresses, endpoint.grpc_port, connect, None)
                    reason = f"gRPC port {endpoint.grpc_port}: {reason}" if reason else ""
                return EndpointProbe(name, answer, reason)
        except TimeoutError:
            if connecting:
                return EndpointProbe(name, Answer.NO, f"no answer within {self._time_limit:g} s")
            return EndpointProbe(name, Answer.UNKNOWN, "too many endpoints to probe")
        except LookupError:
            return EndpointProbe(name, Answer.NO, "the name does not resolve")
        except OSError as error:
            return EndpointProbe(name, Answer.UNKNOWN, str(error))

    async def _addresses(
        self, addresses: Sequence[str], port: int, target: Target, context: ssl.SSLContext | None
    ) -> tuple[Answer, str]:
        """Probe the addresses of one endpoint until one answers. Return the answer, and the reason if it is not YES."""
        results: list[tuple[Answer, str]] = []
        for address in addresses:
            if reason := forbidden(address, local=self._local):
                results.append((Answer.UNKNOWN, f"not probed: {reason}"))
                continue
            reason = await probe_address(address, port, target, context)
            if not reason:
                return Answer.YES, ""
            results.append((Answer.NO, reason))
        return next((r for r in results if r[0] is Answer.NO), results[0])


def _samples(targets: Sequence[Target]) -> list[Sequence[Endpoint]]:
    """Return the endpoints of each target that are probed."""
    left = _PER_CALL
    samples: list[Sequence[Endpoint]] = []
    for target in targets:
        endpoints = target.version.endpoints
        size = min(len(endpoints), _PER_VERSION, left)
        samples.append([endpoints[i * len(endpoints) // size] for i in range(size)])
        left -= size
    return samples
