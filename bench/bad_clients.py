"""Clients that misbehave, and their effect on a healthy one: `python -m bench bad_clients`.

Each bad client is a process: `python -m bench.bad_clients KIND PORT`. It prints `ready` once it misbehaves, and how the server
ended its stream, if it did. Meanwhile a healthy client follows switches. Measured are the time from the operator's call until
the healthy client has the response, and the memory of the server.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from bench.measure import Figure, environment, seconds, table
from controlplane.demo.plane import ControlPlane
from controlplane.demo.process import Process
from controlplane.envoy_types import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SCOPED_ROUTES
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Version
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest
from tests.fakes.xds_client import EOF, XdsClient, client

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
DELTA = ADS + "DeltaAggregatedResources"

Call = Any

# One more than a node may have by default.
_STREAMS = 257


def say(text: str) -> None:
    """Print a line for the process that started this one."""
    print(text, flush=True)


def request(type_url: str, *names: str, node: str = "bad") -> Any:
    """Return a first delta request."""
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=names)
    first.node.id = node
    return first


def opened(channel: grpc.aio.Channel, method: str = DELTA) -> Call:
    """Return a new stream of raw messages."""
    open_stream: Any = channel.stream_stream
    return open_stream(method, request_serializer=bytes, response_deserializer=bytes)()


async def ending(call: Call) -> None:
    """Read until the stream ends, and print its status."""
    try:
        while await call.read() is not EOF:
            pass
    except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
        pass
    say(f"{(await call.code()).name} {await call.details()}")


async def deaf(port: int) -> None:
    """Ask for everything again and again, and never read."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.http2.lookahead_bytes", 1)]) as channel:
        call = opened(channel)
        for type_url in (CLUSTER, LISTENER, SCOPED_ROUTES):
            await call.write(request(type_url).SerializeToString())
        names = [f"m{n}" for n in range(500)]
        again = request(ROUTES, *names).SerializeToString()
        await call.write(again)
        say("ready")
        while True:
            await call.write(again)  # until flow control stops this client


async def trickle(port: int) -> None:
    """Read a byte a second: open the window of HTTP/2 by one byte each second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
    headers = [(":method", "POST"), (":scheme", "http"), (":path", DELTA), (":authority", "x")]
    h2.send_headers(1, [*headers, ("content-type", "application/grpc"), ("te", "trailers")])
    data = request(CLUSTER).SerializeToString()
    h2.send_data(1, b"\0" + len(data).to_bytes(4, "big") + data)
    writer.write(h2.data_to_send())
    say("ready")
    while True:
        try:
            async with asyncio.timeout(1):
                h2.receive_data(await reader.read(65536))
        except TimeoutError:
            h2.increment_flow_control_window(1, stream_id=1)
        writer.write(h2.data_to_send())


async def flood(port: int) -> None:
    """Open a thousand streams one after the other, and cancel each."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        say("ready")
        for n in range(1_000):
            call = opened(channel)
            await call.write(request(CLUSTER, node=f"bad-{n % 10}").SerializeToString())
            if n % 2:
                await call.read()
            call.cancel()
    say("OK")


async def names(port: int) -> None:
    """Subscribe to 100,000 names that don't exist."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
        call = opened(channel)
        await call.write(request(ENDPOINTS, *(f"no-such-model-{n}/blue" for n in range(100_000))).SerializeToString())
        say("ready")
        while (data := await call.read()) is not EOF:
            response = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
            ack = discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINTS, response_nonce=response.nonce)
            await call.write(ack.SerializeToString())


async def many_names(port: int) -> None:
    """Subscribe to more names than are allowed."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel)
        say("ready")
        for chunk in range(5):
            await call.write(request(ENDPOINTS, *(f"{chunk}-{n}" for n in range(50_000))).SerializeToString())
        await ending(call)


async def many_streams(port: int) -> None:
    """Open more streams than a node may have, and keep them open."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        calls = [opened(channel) for _ in range(_STREAMS)]
        for call in calls:
            await call.write(request(CLUSTER).SerializeToString())
            await asyncio.sleep(0)
        say("ready")
        ended, _ = await asyncio.wait([asyncio.ensure_future(ending(c)) for c in calls], return_when=asyncio.FIRST_COMPLETED)
        say(f"{len(ended)} of {_STREAMS} ended")


async def garbage(port: int) -> None:
    """Send bytes that are neither HTTP/2 nor a message."""
    for _ in range(50):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(bytes(range(256)) * 100)
        while await reader.read(65536):
            pass
        writer.close()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel)
        await call.write(b"\xff" * 1000)
        say("ready")
        await ending(call)


async def wrong_type(port: int) -> None:
    """Ask the cluster discovery service for listeners."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel, "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters")
        await call.write(request(LISTENER).SerializeToString())
        say("ready")
        await ending(call)


async def huge_node(port: int) -> None:
    """Send a node of 8 MB."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel)
        first = request(CLUSTER)
        first.node.metadata.update({f"key-{n}": "x" * 1000 for n in range(8_000)})
        await call.write(first.SerializeToString())
        say("ready")
        await ending(call)


async def huge_request(port: int) -> None:
    """Send a request of 20 MB."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel)
        await call.write(request(CLUSTER, "x" * 20_000_000).SerializeToString())
        say("ready")
        await ending(call)


async def nobody(port: int) -> None:
    """Send a first request without a node."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel)
        await call.write(discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER).SerializeToString())
        say("ready")
        await ending(call)


async def half_close(port: int) -> None:
    """Send a request, and half-close the stream."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = opened(channel)
        await call.write(request(CLUSTER).SerializeToString())
        await call.done_writing()
        say("ready")
        await ending(call)


KINDS: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
    f.__name__.replace("_", "-"): f
    for f in (
        deaf,
        trickle,
        flood,
        names,
        many_names,
        many_streams,
        garbage,
        wrong_type,
        huge_node,
        huge_request,
        nobody,
        half_close,
    )
}


class Bad:
    """The process of a bad client. `async with` starts it and waits until it misbehaves."""

    def __init__(self, kind: str, port: int, directory: Path) -> None:
        self.process = Process(kind, [sys.executable, "-m", "bench.bad_clients", kind, str(port)], directory / f"{kind}.log")

    async def __aenter__(self) -> Bad:
        await self.process.start()
        await self.printed("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.process.kill()

    async def printed(self, text: str, seconds: float = 30.0) -> str:
        """Return the first line that begins with `text`, once the client has printed it. Errors: UNAVAILABLE with its log."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.process.log_tail().splitlines():
                if line.startswith(text):
                    return line
            await asyncio.sleep(0.02)
        message = f"{self.process.name} did not print '{text}'\n{self.process.log_tail()}"
        raise Error(Code.UNAVAILABLE, "NOT_PRINTED", message)


def manifest(models: int) -> Manifest:
    """Return a gateway and this many models, called m0, m1, …"""
    manifest = Manifest(gateways=[Gateway(name="public", port=10000)])
    for n in range(models):
        versions = [Version(name=v, endpoints=[Endpoint(host="127.0.0.1", port=9000)]) for v in ("blue", "green")]
        manifest.models.append(Model(name=f"m{n}", gateways=["public"], versions=versions, split={"blue": 10_000}))
    return manifest


async def switch(plane: ControlPlane, healthy: XdsClient, version: str) -> float:
    """Move m0, and return the seconds from the call until the client has the response."""
    before = len(healthy.responses)
    began = time.perf_counter()
    await plane.split("m0", {version: 10_000})
    await healthy.until(lambda: (ROUTES, ["m0"], []) in healthy.responses[before:], 20)
    return healthy.last_at - began


async def measured(plane: ControlPlane, healthy: XdsClient, times: int) -> list[float]:
    """Switch this many times, and return the seconds of each."""
    return [await switch(plane, healthy, ("green", "blue")[n % 2]) for n in range(times)]


async def run(*, quick: bool) -> tuple[dict[str, Any], str]:
    """Measure the healthy client's switches and the server's memory beside each kind of bad client."""
    times = 4 if quick else 30
    rows: list[tuple[str, list[float], float]] = []
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(ControlPlane())
        await plane.apply(manifest(50 if quick else 1_000))
        healthy = await stack.enter_async_context(client(plane.xds_port, "healthy"))
        await plane.held(1, 1)
        await measured(plane, healthy, times)
        for kind in ("", *(("deaf", "names") if quick else KINDS)):
            async with AsyncExitStack() as meanwhile:
                if kind:
                    await meanwhile.enter_async_context(Bad(kind, plane.xds_port, plane.directory))
                times_taken = await measured(plane, healthy, times)
                rows.append((kind or "nobody bad", times_taken, plane.process.rss_bytes() / 1e6))
    results: dict[str, Any] = {"environment": environment()}
    results |= {
        kind: {
            "seconds": Figure.of(times_taken).json() | {"longest": float(f"{max(times_taken):.4g}")},
            "rss_mb": round(rss, 1),
        }
        for kind, times_taken, rss in rows
    }
    header = ["meanwhile", "call to response at a healthy client", "the longest", "server's memory"]
    cells = [[kind, Figure.of(t).text("s"), seconds(max(t)), f"{rss:.0f} MB"] for kind, t, rss in rows]
    return results, "## Beside bad clients\n\n" + table(header, cells)


if __name__ == "__main__":
    asyncio.run(KINDS[sys.argv[1]](int(sys.argv[2])))
