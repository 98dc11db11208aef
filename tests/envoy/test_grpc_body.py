"""gRPC of the Open Inference Protocol at body gateways in real Envoys: the first message names the model.

The messages are written as bytes, so that the test needs no package of a model server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.plane import free_port
from controlplane.domain import BodyRouting, Endpoint, Gateway, Model, Object, Protocol, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.snapshot import Audience
from tests.envoy.test_body_gateway import binary
from tests.fakes.grpc_echo import grpc_echo

pytestmark = pytest.mark.envoy

SERVICE = "/inference.GRPCInferenceService"
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def named(name: str, more: bytes = b"") -> bytes:
    """Return a message whose field 1 is a name of at most 127 characters."""
    return bytes([0x0A, len(name)]) + name.encode() + more


def filled(megabytes: int) -> bytes:
    """Return field 7 (raw tensors) of so many megabytes."""
    size, length = megabytes << 20, b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return b"\x3a" + length + bytes([size]) + b"\0" * (megabytes << 20)


@asynccontextmanager
async def edge(directory: Path, version: str) -> AsyncIterator[tuple[dict[str, grpc.aio.Channel], int]]:
    """Run an Envoy with two models.

    Yield a channel to the gateway `edge`, one to `default`, which has a default model, and the port of `edge`.
    """
    async with grpc_echo(b"iris") as iris, grpc_echo(b"llama") as llama:
        gateways = [
            Gateway("edge", free_port(), "127.0.0.1", BodyRouting(max_body_bytes=8 << 20)),
            Gateway("default", free_port(), "127.0.0.1", BodyRouting(default_model="iris")),
        ]
        models = [
            Model(
                name,
                ("edge", "default"),
                (Version("v1", (Endpoint("127.0.0.1", port),), protocol=Protocol.GRPC),),
                {"v1": 10_000},
                keys,
            )
            for name, port, keys in (("iris", iris, ("iris",)), ("llama", llama, (LLAMA,)))
        ]
        objects: list[Object] = [*gateways, *models]
        state = State().applied(Changes({o.resource_name: o for o in objects}))
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(("default", "edge")), 1)
        async with Envoy(static_bootstrap(snapshot), directory=directory, binary=binary(version)) as envoy:
            await envoy.ready()
            options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
            channels = {g.name: grpc.aio.insecure_channel(f"127.0.0.1:{g.port}", options) for g in gateways}
            yield channels, gateways[0].port
            for channel in channels.values():
                await channel.close(None)


async def ask(channel: grpc.aio.Channel, method: str, message: bytes) -> bytes | grpc.StatusCode:
    """Return the answer, or the status."""
    try:
        answer: bytes = await channel.unary_unary(method, bytes, bytes)(message, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return answer


@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_the_first_message_names_the_model(tmp_path: Path, version: str) -> None:
    not_found = grpc.StatusCode.NOT_FOUND
    rows: list[tuple[str, str, bytes, bytes | grpc.StatusCode]] = [
        ("edge", f"{SERVICE}/ModelInfer", named("iris"), b"iris"),
        ("edge", f"{SERVICE}/ModelInfer", named(LLAMA), b"llama"),
        ("edge", f"{SERVICE}/ModelReady", named("iris", b"\x12\x013"), b"iris"),
        ("edge", f"{SERVICE}/ModelMetadata", named(LLAMA), b"llama"),
        ("edge", f"{SERVICE}/ModelConfig", named(LLAMA), b"llama"),
        ("edge", f"{SERVICE}/ModelStatistics", named(LLAMA), b"llama"),
        ("edge", f"{SERVICE}/ModelInfer", named("iris", filled(7)), b"iris"),
        ("edge", f"{SERVICE}/ModelInfer", filled(7) + named("iris"), b"iris"),
        ("edge", f"{SERVICE}/ModelInfer", named("iris", filled(9)), grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("edge", f"{SERVICE}/ModelInfer", named("none"), not_found),
        ("edge", f"{SERVICE}/ModelInfer", named("iris\r\nx-evil: 1"), not_found),
        ("edge", f"{SERVICE}/ModelInfer", named("*"), not_found),
        ("edge", f"{SERVICE}/ModelInfer", b"", not_found),
        ("edge", f"{SERVICE}/ModelInfer", b"\xff\xff", not_found),
        ("edge", f"{SERVICE}/ServerLive", b"", not_found),
        ("edge", "/grpc.health.v1.Health/Check", b"", not_found),
        ("default", f"{SERVICE}/ModelInfer", named(LLAMA), b"llama"),
        ("default", f"{SERVICE}/ModelInfer", b"", b"iris"),
        ("default", f"{SERVICE}/ServerReady", b"", b"iris"),
        ("default", "/grpc.health.v1.Health/Check", b"", b"iris"),
    ]
    async with edge(tmp_path, version) as (channels, port):
        answers = [(gateway, method, await ask(channels[gateway], method, message)) for gateway, method, message, _ in rows]
        assert answers == [(gateway, method, expected) for gateway, method, _, expected in rows]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channels["edge"].unary_unary(f"{SERVICE}/ServerReady", bytes, bytes)(b"", timeout=20)
        assert "names no model" in str(refused.value.details())
        # Over HTTP/1, large messages need another limit than over HTTP/2.
        message = named(LLAMA, filled(3))
        headers = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
        web = aiohttp.request(
            "POST",
            f"http://127.0.0.1:{port}{SERVICE}/ModelInfer",
            data=b"\0" + len(message).to_bytes(4, "big") + message,
            headers=headers,
        )
        async with web as response:
            body = await response.read()
            assert (response.status, b"llama" in body, b"grpc-status:0" in body) == (200, True, True)
        # A stream goes to the model of its first message. Its answers come before it ends.
        answered = asyncio.Semaphore(0)

        async def messages() -> AsyncIterator[bytes]:
            for name in (LLAMA, "iris", LLAMA):
                yield named(name)
                await asyncio.wait_for(answered.acquire(), 10)

        stream = channels["edge"].stream_stream(f"{SERVICE}/ModelStreamInfer", bytes, bytes)(messages(), timeout=20)
        async for answer in stream:
            assert answer == b"llama"
            answered.release()
        assert await stream.code() is grpc.StatusCode.OK
        assert "script log" not in (tmp_path / "envoy.log").read_text()
