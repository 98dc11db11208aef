"""Retries of large bodies, requests that can't be retried, and uploads that take too long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import grpc
import pytest

from controlplane.demo.ports import free_port
from controlplane.domain import Endpoint, Model, Protocol, Retries, Timeouts, Version
from tests.envoy.test_mirror import MIB, SUPPORTED, Recorder, listening, never_answers, running
from tests.fakes.grpc_echo import grpc_echo

pytestmark = pytest.mark.envoy


def length(method: str, message: bytes) -> bytes:
    """Return the length of a message."""
    return str(len(message)).encode()


class Client:
    """A client of one gateway that counts the results of its requests."""

    def __init__(self, url: str, session: aiohttp.ClientSession, directory: Path) -> None:
        self.url, self.session, self.directory = url, session, directory
        self.results: Counter[str] = Counter()

    async def http1(self, model: str, size: int) -> None:
        async with self.session.post(f"{self.url}/{model}/infer", data=bytes(size)) as response:
            self.results[f"{response.status}"] += 1

    async def http2(self, model: str, size: int) -> None:
        """Send a request with curl."""
        body = self.directory / f"body-{size}"
        if not body.exists():
            body.write_bytes(bytes(size))
        arguments = ("-s", "--http2-prior-knowledge", "-o", "/dev/null", "-w", "%{http_code}", "-H", "expect:")
        process = await asyncio.create_subprocess_exec(
            "curl", *arguments, "--data-binary", f"@{body}", f"{self.url}/{model}/infer", stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        self.results[output.decode()] += 1

    async def grpc(self, model: str, size: int) -> None:
        address, _, path = self.url.removeprefix("http://").partition("/")
        options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            call = channel.unary_unary(f"/{path}/{model}", bytes, bytes)
            try:
                answer = await call(bytes(size), timeout=20)
                self.results["OK" if answer == str(size).encode() else repr(answer)] += 1
            except grpc.aio.AioRpcError as error:
                self.results[error.code().name] += 1

    async def count(self, protocol: str, model: str, size: int, requests: int) -> dict[str, int]:
        """Send requests, two at a time. Return the number of each result."""
        self.results.clear()
        for _ in range(requests // 2):
            await asyncio.gather(*(getattr(self, protocol)(model, size) for _ in range(2)))
        return dict(self.results)


def models(http: int, grpc_port: int) -> list[Model]:
    """Return a model for HTTP and one for gRPC, each with two endpoints, of which one is down; and both without the other."""
    dead = Endpoint("127.0.0.1", free_port())
    made = []
    for name, port, protocol in (("http", http, Protocol.HTTP1), ("grpc", grpc_port, Protocol.GRPC)):
        version = Version("blue", (Endpoint("127.0.0.1", port), dead), protocol)
        model = Model(name, ("edge",), (version,), {"blue": 10_000})
        made.append(model)
        gone = replace(version, endpoints=(dead,))
        small = Retries(request_body_buffer_limit=MIB)
        made.append(Model(f"{name}-gone", ("edge",), (gone,), {"blue": 10_000}, retries=small))
    return made


@asynccontextmanager
async def clients(directory: Path, envoy: str) -> AsyncIterator[Client]:
    """Run an Envoy of a version with the models above. Yield a client of it."""
    async with (
        Recorder("blue").serving() as blue,
        grpc_echo(length) as grpc_port,
        running(directory, envoy, *models(blue.port, grpc_port)) as (_, url, session),
    ):
        yield Client(url, session, directory)


@pytest.mark.parametrize("envoy", SUPPORTED)
async def test_large_bodies_are_retried_and_others_end_as_unavailable(tmp_path: Path, envoy: str) -> None:
    async with clients(tmp_path, envoy) as client:
        for size, requests in ((3 * MIB, 12), (20 * MIB, 4)):
            for protocol, model, success in (("http1", "http", "200"), ("http2", "http", "200"), ("grpc", "grpc", "OK")):
                assert await client.count(protocol, model, size, requests) == {success: requests}, (protocol, size)
        # Envoy's own answers are 507 and UNKNOWN, which clients do not retry.
        for protocol, model, failure in (("http1", "http-gone", "503"), ("grpc", "grpc-gone", "UNAVAILABLE")):
            assert await client.count(protocol, model, 3 * MIB, 12) == {failure: 12}, protocol


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("envoy", SUPPORTED)
async def test_hundreds_of_large_bodies_are_retried(tmp_path: Path, envoy: str) -> None:
    async with clients(tmp_path, envoy) as client:
        for size in (3 * MIB, 20 * MIB):
            for protocol, model, success in (("http1", "http", "200"), ("http2", "http", "200"), ("grpc", "grpc", "OK")):
                assert await client.count(protocol, model, size, 200) == {success: 200}, (protocol, size)


@pytest.mark.parametrize("envoy", SUPPORTED)
async def test_the_request_timeout_ends_an_upload(tmp_path: Path, envoy: str) -> None:
    async with listening(never_answers) as silent:
        version = Version("blue", (Endpoint("127.0.0.1", silent),))
        model = Model("iris", ("edge",), (version,), {"blue": 10_000}, timeouts=Timeouts(request=0.5))
        async with running(tmp_path, envoy, model) as (process, url, session):

            async def upload() -> AsyncIterator[bytes]:
                for _ in range(100):
                    yield b"x"
                    await asyncio.sleep(0.1)

            started = time.monotonic()
            async with session.post(f"{url}/iris/infer", data=upload()) as response:
                assert (response.status, await response.json()) == (408, {"error": "The request was not complete in time."})
            assert 0.5 < time.monotonic() - started < 3
            # A quick upload that the server does not answer is still an error of the server.
            async with session.post(f"{url}/iris/infer", data=b"x") as response:
                assert response.status == 504
            assert (await process.stats("cluster.iris/blue.upstream_rq_timeout")).popitem()[1] == 1
