"""A mirror does not affect live traffic, whatever it does, and gets no copy of a request that it answers itself."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from aiohttp import web

from controlplane.compiler import Compiler
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy
from controlplane.demo.lean import LeanServer
from controlplane.domain import Endpoint, Mirror, Model, Protocol, Sticky, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.snapshot import Audience
from tests.envoy.test_compiled import edge, rig, state_of
from tests.envoy.test_matrix import OLDER, binary
from tests.envoy.upstreams import echo_server
from tests.fakes.grpc_echo import echo, grpc_echo

pytestmark = pytest.mark.envoy

SUPPORTED = [OLDER[0], "newest"]
MIB = 1 << 20
# By how much a mirror may delay a request, in seconds: usually, and on a busy machine with a body of 20 MiB.
DELAY, SHORT = 0.05, 2.0


async def never_answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read until the other side closes the connection, and send nothing."""
    while await reader.read(65_536):
        pass
    writer.close()


async def never_reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hold the connection for a minute, and read nothing."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        writer.transport.abort()


@asynccontextmanager
async def listening(handler: object) -> AsyncIterator[int]:
    """Serve TCP with a handler of connections. Yield the port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await handler(reader, writer)  # type: ignore[operator]

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            for task in tasks:
                task.cancel()


class Recorder:
    """An HTTP server that answers with its name, and records the bodies' lengths and the headers of its requests."""

    def __init__(self, name: str) -> None:
        self.name, self.port = name, 0
        self.lengths: list[int] = []
        self.headers: dict[str, list[tuple[str, str]]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        length = 0
        async for chunk in request.content.iter_any():
            length += len(chunk)
        self.lengths.append(length)
        self.headers[request.headers.get("x-number", "")] = sorted(request.headers.items())
        return web.Response(text=self.name)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Recorder]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()


def version(name: str, port: int, protocol: Protocol = Protocol.HTTP1) -> Version:
    return Version(name, (Endpoint("127.0.0.1", port),), protocol)


@asynccontextmanager
async def running(directory: Path, envoy: str, *models: Model) -> AsyncIterator[tuple[Envoy, str, aiohttp.ClientSession]]:
    """Run an Envoy of a version with these models. Yield it, the URL of its gateway, and a client."""
    gateway = edge()
    snapshot = Compiler().compile(state_of(gateway, *models), NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    async with (
        Envoy(static_bootstrap(snapshot), directory=directory, binary=binary(envoy)) as process,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
    ):
        await process.listens(gateway.port)
        yield process, f"http://127.0.0.1:{gateway.port}/v2/models", session


@pytest.mark.parametrize("envoy", SUPPORTED)
async def test_a_mirror_that_hangs_or_never_reads_delays_no_request(tmp_path: Path, envoy: str) -> None:
    sizes = (1_000, 100_000, 3 * MIB, 20 * MIB)
    async with AsyncExitStack() as stack:
        blue = await stack.enter_async_context(Recorder("blue").serving())
        hangs, unread = [await stack.enter_async_context(listening(h)) for h in (never_answers, never_reads)]
        mirrors = {
            "none": None,
            "hangs": version("green", hangs),
            "unread": version("green", unread),
            "unread-http2": version("green", unread, Protocol.HTTP2),
            "gone": version("green", 1),
        }
        models = []
        for name, green in mirrors.items():
            versions = (version("blue", blue.port), *((green,) if green else ()))
            # Copies of 20 MiB are too large for one of the mirrors.
            limit = 4 * MIB if name == "unread" else 32 * MIB
            mirror = Mirror("green", max_request_bytes=limit) if green else None
            models.append(Model(name, ("edge",), versions, {"blue": 10_000}, mirror=mirror))
        _, url, session = await stack.enter_async_context(running(tmp_path, envoy, *models))

        async def duration(model: str, size: int) -> float:
            started = time.monotonic()
            async with session.post(f"{url}/{model}/infer", data=bytes(size)) as response:
                assert (response.status, await response.text()) == (200, "blue")
            return time.monotonic() - started

        async def delays(model: str, size: int) -> list[float]:
            """Return how much longer requests took than the ones before them to the model without a mirror.

            There are as many as it takes to see through what other programs on the machine do, and at most 21.
            """
            found: list[float] = []
            while len(found) < 3 or (statistics.median(found) > DELAY and len(found) < 21):
                usual = await duration("none", size)
                found.append(await duration(model, size) - usual)
            return found

        delayed = {}
        for size in sizes:
            for model in mirrors:
                found = await delays(model, size)
                # Every request that waits for a copy would take seconds longer.
                if statistics.median(found) > DELAY or max(found) > SHORT:
                    delayed[model, size] = found
        assert not delayed


@pytest.mark.parametrize("envoy", SUPPORTED)
async def test_a_version_gets_copies_of_the_other_requests_only_and_whole(tmp_path: Path, envoy: str) -> None:
    async with Recorder("blue").serving() as blue, Recorder("green").serving() as green:
        versions = (version("blue", blue.port), version("green", green.port))
        base = Model("none", ("edge",), versions, {"blue": 10_000}, mirror=Mirror("green", max_request_bytes=MIB))
        half, all_own = {"blue": 5_000, "green": 5_000}, {"green": 10_000}
        sticky = replace(base, name="sticky", split=half, sticky=Sticky("x-user"), preview_header="x-version")
        models = [base, replace(base, name="half", split=half), replace(base, name="all", split=all_own), sticky]
        async with running(tmp_path, envoy, *models) as (process, url, session):

            async def send(model: str, count: int, size: int = 10, preview: str = "") -> dict[str, int]:
                """Send requests. Return how many each version answered, and the copies that green got."""
                before, answered = len(green.lengths), Counter[str]()
                for i in range(count):
                    sent = {"x-number": str(i), "x-user": str(i), "x-forwarded-for": "203.0.113.7"}
                    sent |= {"x-version": preview} if preview else {}
                    async with session.post(f"{url}/{model}/infer", data=bytes(size), headers=sent) as response:
                        assert response.status == 200
                        answered[await response.text()] += 1
                active = True
                async with asyncio.timeout(10):
                    while active:
                        await asyncio.sleep(0.1)
                        active = any((await process.stats(f"cluster.{model}/green/mirror.upstream_rq_active")).values())
                return {**answered, "copies": len(green.lengths) - before - answered["green"]}

            assert await send("none", 20) == {"blue": 20, "copies": 20}
            assert green.headers["7"] == blue.headers["7"]
            assert await send("all", 20) == {"green": 20, "copies": 0}
            for model in ("half", "sticky"):
                counts = await send(model, 100)
                assert counts["green"] > 10
                assert counts["copies"] == counts["blue"] == 100 - counts["green"]
            assert await send("sticky", 10, preview="green") == {"green": 10, "copies": 0}
            assert await send("sticky", 10, preview="blue") == {"blue": 10, "copies": 10}
            # A copy is whole, or is not made.
            assert await send("none", 3, MIB) == {"blue": 3, "copies": 3}
            assert await send("none", 3, MIB + 1) == {"blue": 3, "copies": 0}
            assert Counter(green.lengths)[MIB] == 3
            # What was too large is counted: without an answer on a connection, or cancelled before there was a connection.
            stats = await process.stats("^cluster.none/green/mirror.upstream_rq_(total|completed|cancelled)$")
            total, completed, cancelled = (
                stats[f"cluster.none/green/mirror.upstream_rq_{n}"] for n in ("total", "completed", "cancelled")
            )
            assert (completed, total - completed + cancelled) == (23, 3)


async def test_a_mirror_that_never_answers_uses_few_connections_and_its_copies_time_out(tmp_path: Path) -> None:
    async with LeanServer(("blue",)) as lean, listening(never_answers) as silent:
        both = (version("blue", lean.ports["blue"]), version("green", silent))
        model = Model("iris", ("edge",), both, {"blue": 10_000}, mirror=Mirror("green", timeout=2.0))
        async with rig(state_of(edge(), model), {}, tmp_path) as r:

            async def status() -> int:
                async with r.session.get(f"http://127.0.0.1:{r.ports['edge']}/v2/models/iris") as response:
                    return response.status

            async def mirror_stats() -> dict[str, int]:
                stats = await r.envoy.stats("^cluster.iris/green/mirror.upstream")
                return {name.rpartition(".")[2]: value for name, value in stats.items()}

            assert [await status() for _ in range(500)] == [200] * 500
            stats = await mirror_stats()
            assert 0 < stats["upstream_rq_active"] <= 128
            assert 0 < stats["upstream_cx_active"] <= 128
            # Further requests were not copied.
            assert stats["upstream_rq_pending_overflow"] > 0
            # The copies time out, and their connections are closed.
            async with asyncio.timeout(20):
                while stats["upstream_rq_active"] or stats["upstream_rq_pending_active"] or stats["upstream_cx_active"]:
                    await asyncio.sleep(0.05)
                    stats = await mirror_stats()
            assert stats["upstream_rq_max_duration_reached"] > 128


@pytest.mark.parametrize("envoy", SUPPORTED)
async def test_only_a_stream_that_its_client_completes_is_copied(tmp_path: Path, envoy: str) -> None:
    """So a copy of a stream never outlives a stream that was cancelled or that its server ended, and holds no GPU."""
    async with AsyncExitStack() as stack:
        ports = {name: await stack.enter_async_context(grpc_echo(echo, ends)) for name, ends in (("a", 0), ("b", 2))}
        copies: list[str] = []

        def record(method: str, message: bytes) -> bytes:
            copies.append(message.decode())
            return message

        green = version("green", await stack.enter_async_context(grpc_echo(record)), Protocol.GRPC)
        chat = version("blue", await stack.enter_async_context(echo_server("blue")))
        both = {name: (version("blue", port, Protocol.GRPC), green) for name, port in ports.items()} | {"ws": (chat, green)}
        models = [Model(n, ("edge",), v, {"blue": 10_000}, mirror=Mirror("green", timeout=1.0)) for n, v in both.items()]
        process, url, session = await stack.enter_async_context(running(tmp_path, envoy, *models))

        async def ended(model: str) -> None:
            """Wait until no copy is in progress."""
            active = True
            async with asyncio.timeout(10):
                while active:
                    await asyncio.sleep(0.02)
                    active = any((await process.stats(f"cluster.{model}/green/mirror.upstream_rq(_pending)?_active")).values())

        address = url.removeprefix("http://").partition("/")[0]
        async with grpc.aio.insecure_channel(address) as channel:
            typed: Any = channel  # whose types require serializers and an iterator
            for model, end in (("a", "cancel"), ("b", "server"), ("a", "client")):
                call = typed.stream_stream(f"/v2/models/{model}")()
                for _ in range(2):
                    await call.write(b"hello")
                    assert await call.read() == b"hello"
                if end == "cancel":
                    call.cancel()
                elif end == "server":
                    assert await call.code() is grpc.StatusCode.OK
                else:
                    assert copies == []
                    await call.done_writing()
                    assert await call.code() is grpc.StatusCode.OK
                await ended(model)
        assert copies == ["hello", "hello"]
        async with session.ws_connect(f"{url}/ws/stream") as ws:
            await ws.send_str("hello")
            assert await ws.receive_str(timeout=10) == "blue: hello"
            await ended("ws")
            await ws.send_str("again")
            assert await ws.receive_str(timeout=10) == "blue: again"
        assert len(copies) == 2


async def test_known_limit_a_copy_goes_on_when_its_request_is_cancelled(tmp_path: Path) -> None:
    """Docs: "Known limits". When this fails, Envoy cancels copies with their requests: remove the limit."""
    async with listening(never_answers) as silent:
        both = (version("blue", silent), version("green", silent))
        model = Model("iris", ("edge",), both, {"blue": 10_000}, mirror=Mirror("green", timeout=1.5))
        async with running(tmp_path, "newest", model) as (process, url, session):

            async def active() -> dict[str, int]:
                stats = await process.stats("^cluster.iris/(blue|green/mirror).upstream_rq_active$")
                return {name.removesuffix(".upstream_rq_active"): value for name, value in stats.items()}

            with pytest.raises(TimeoutError):
                await session.post(f"{url}/iris/infer", data=b"x", timeout=aiohttp.ClientTimeout(total=0.5))
            counts = await active()
            async with asyncio.timeout(10):
                while counts["cluster.iris/blue"]:
                    await asyncio.sleep(0.05)
                    counts = await active()
                assert counts == {"cluster.iris/blue": 0, "cluster.iris/green/mirror": 1}
                while counts["cluster.iris/green/mirror"]:
                    await asyncio.sleep(0.05)
                    counts = await active()
