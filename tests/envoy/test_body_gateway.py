"""Body gateways in real Envoys: OpenAI's, Anthropic's and Ollama's own clients, and hostile bodies."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controlplane.compiler import Compiler
from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.demo.plane import free_port
from controlplane.domain import BodyRouting, Endpoint, Gateway, Model, Object, Version
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import Changes, State
from controlplane.generated.turnout.v1.model_service_pb2 import ModelUndo, UndoModelsRequest
from controlplane.snapshot import Audience
from tests.envoy.conftest import MODEL, Fleet, Report
from tests.envoy.upstreams import post_over_http2
from tests.fakes.openai_server import OpenAIServer, openai_server
from tests.tools import missing

pytestmark = pytest.mark.envoy

LLAMA, QWEN, WHISPER = "meta-llama/Llama-3.1-8B-Instruct", "qwen2.5:7b", "whisper-1"
LIMIT = 24 << 20  # bytes of a body that names its model


@dataclass
class Edge:
    """An Envoy with two body gateways: `edge`, and `files` with a default model."""

    envoy: Envoy
    ports: dict[str, int]
    servers: dict[str, OpenAIServer]
    session: aiohttp.ClientSession

    def url(self, gateway: str = "edge") -> str:
        return f"http://127.0.0.1:{self.ports[gateway]}"

    async def ask(
        self,
        body: str | bytes | AsyncIterator[bytes] | None,
        kind: str = "application/json",
        path: str = "/v1/completions",
        method: str = "POST",
        gateway: str = "edge",
        **headers: str,
    ) -> str | int:
        """Return the version that answers; else the status, after checking that the error can be read."""
        fields = {"content-type": kind, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if not kind:
            del fields["content-type"]
        async with self.session.request(
            method, self.url(gateway) + path, data=body, headers=fields, skip_auto_headers=["content-type"]
        ) as response:
            answer = json.loads(await response.read())
            if response.status != 200:
                assert response.content_type == "application/json"
                assert isinstance(answer["error"] if path.startswith("/api/") else answer["error"]["message"], str)
                return response.status
            return str(answer["version"])


def binary(version: str) -> str:
    """Return the path of the newest or the oldest supported Envoy."""
    if version == "newest":
        return envoy_binary()
    oldest = (Path(__file__).parent / "versions.txt").read_text().split()[0].partition("==")[2]
    path = Path(sys.prefix) / "envoys" / oldest / "envoy" / "_bin" / "envoy"
    if not path.exists():
        missing(f"{path} does not exist; install it with `make setup`")
    return str(path)


@asynccontextmanager
async def edge(directory: Path, version: str = "newest", **bootstrap: object) -> AsyncIterator[Edge]:
    """Run the Envoy and its model servers. `bootstrap` are more fields of its bootstrap."""
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(openai_server(name)) for name in ("llama", "qwen", "whisper")}
        routings = {"edge": BodyRouting(LIMIT), "files": BodyRouting(default_model=WHISPER)}
        gateways = [Gateway(name, free_port(), "127.0.0.1", routing) for name, routing in routings.items()]
        keys = {"llama": (LLAMA,), "qwen": (QWEN, "chat"), "whisper": (WHISPER,)}
        models = [
            Model(
                name,
                tuple(routings),
                (Version("v1", (Endpoint("127.0.0.1", server.port),)),),
                {"v1": 10_000},
                keys[name],
            )
            for name, server in servers.items()
        ]
        objects: list[Object] = [*gateways, *models]
        state = State().applied(Changes({o.resource_name: o for o in objects}))
        snapshot = Compiler().compile(state, NO_LIVE_ENDPOINTS, Audience(tuple(sorted(routings))), 1)
        envoy = await stack.enter_async_context(
            Envoy(static_bootstrap(snapshot) | bootstrap, directory=directory, binary=binary(version), concurrency=2)
        )
        await envoy.ready()
        session = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
        yield Edge(envoy, {g.name: g.port for g in gateways}, servers, session)


def form(*fields: tuple[str, str]) -> bytes:
    parts = (f'--XyZ\r\nContent-Disposition: form-data; name="{name}"{more}' for name, more in fields)
    return ("".join(f"{part}\r\n" for part in parts) + "--XyZ--\r\n").encode()


def model_field(name: str) -> tuple[str, str]:
    return "model", f"\r\n\r\n{name}"


def file_field(content: str) -> tuple[str, str]:
    return "file", f'; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n{content}'


FORM = "multipart/form-data; boundary=XyZ"


async def chunks(*parts: str) -> AsyncIterator[bytes]:
    for part in parts:
        yield part.encode()


def body(model: Any) -> str:
    return json.dumps({"messages": [{"model": QWEN}], "model": model, "stream": False})


@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_hostile_and_unusual_bodies(tmp_path: Path, version: str) -> None:
    async with edge(tmp_path, version) as e:
        megabytes = '{"a":"' + "x" * (2 << 20) + f'","model":"{LLAMA}"}}'
        kinds = ("", "application/json", "application/vnd.x+json", "text/plain;a", "application/x-www-form-urlencoded")
        injected = f"127.0.0.1:{e.ports['edge']}|{QWEN}"
        rows: list[tuple[str, str | int, Any]] = [
            ("plain", "llama", e.ask(body(LLAMA))),
            ("Ollama's name", "qwen", e.ask(body(QWEN))),
            ("a second key", "qwen", e.ask(body("chat"))),
            ("another letter case", 404, e.ask(body("CHAT"))),
            ("unknown", 404, e.ask(body('no"such\\model'))),
            ("our header from a client", "llama", e.ask(body(LLAMA), x_turnout_scope=injected)),
            ("our header without a body", 400, e.ask(None, "", method="GET", x_turnout_scope=injected)),
            ("our header, unknown model", 404, e.ask(body("none"), x_turnout_scope=injected)),
            ("CR", 404, e.ask(body("qwen2.5:7b\rx"))),
            ("LF", 404, e.ask(body("qwen2.5:7b\nx-evil: 1"))),
            ("CR LF", 404, e.ask(body("qwen2.5:7b\r\n\r\nGET / HTTP/1.1\r\n\r\n"))),
            ("NUL", 404, e.ask(body("qwen2.5:7b\0"))),
            ("64 KB", 404, e.ask(body("x" * 65_536))),
            ("our own words", 404, e.ask(body("*"))),
            ("not ASCII", 404, e.ask(json.dumps({"model": "qwén"}, ensure_ascii=False).encode())),
            ("escaped", "llama", e.ask(r'{"mod\u0065l":"meta-llama\/Llama-3.1-8B-Instr\u0075ct"}')),
            ("half of a pair of surrogates", 404, e.ask(r'{"model":"qwen2.5:7b\ud800"}')),
            ("invalid UTF-8", 404, e.ask(b'{"model":"qwen2.5:7b\xff"}')),
            ("invalid UTF-8 elsewhere", "qwen", e.ask(b'{"a":"\xff\xc0","model":"qwen2.5:7b"}')),
            ("number", 400, e.ask(body(5))),
            ("true", 400, e.ask(body(True))),
            ("list", 400, e.ask(body([LLAMA]))),
            ("object", 400, e.ask(body({"model": LLAMA}))),
            ("null", 400, e.ask(body(None))),
            ("empty", 400, e.ask(body(""))),
            ("missing", 400, e.ask("{}")),
            ("missing, for Ollama", 400, e.ask("{}", path="/api/generate")),
            ("number, for Ollama", 400, e.ask(body(5), path="/api/generate")),
            ("twice: the last counts", "llama", e.ask(f'{{"model":"{QWEN}","model":"{LLAMA}"}}')),
            ("nested only", 400, e.ask(f'{{"a":{{"model":"{LLAMA}"}}}}')),
            ("BOM", "llama", e.ask(b"\xef\xbb\xbf" + body(LLAMA).encode())),
            ("UTF-16", 400, e.ask(body(LLAMA).encode("utf-16"))),
            ("an empty encoding", "llama", e.ask(body(LLAMA), content_encoding="")),
            ("gzip", 415, e.ask(gzip.compress(body(LLAMA).encode()), content_encoding="gzip")),
            ("charset", "llama", e.ask(body(LLAMA), "application/json; charset=utf-8")),
            ("capitals", "llama", e.ask(body(LLAMA), "Application/JSON")),
            ("text", "llama", e.ask(body(LLAMA), "text/plain")),
            ("curl's default", "llama", e.ask(body(LLAMA), "application/x-www-form-urlencoded")),
            ("no type", "llama", e.ask(body(LLAMA), "")),
            ("another type", 400, e.ask(body(LLAMA), "application/octet-stream")),
            ("chunked", "llama", e.ask(chunks('{"mod', 'el":"meta-llama/', 'Llama-3.1-8B-Instruct"}'))),
            ("no body", 400, e.ask(None)),
            ("another gateway's default model", "whisper", e.ask("{}", gateway="files")),
            ("nested a million times", "llama", e.ask('{"a":' + "[" * 10**6 + "]" * 10**6 + f',"model":"{LLAMA}"}}')),
            ("numbers, 2 MB", "llama", e.ask('{"a":[' + "1," * (1 << 20) + f'1],"model":"{LLAMA}"}}')),
            ("1 MB", "llama", e.ask('{"a":"' + "x" * (1 << 20) + f'","model":"{LLAMA}"}}')),
            ("20 MB in chunks", "llama", e.ask(chunks('{"a":"', *["x" * (1 << 20)] * 20, f'","model":"{LLAMA}"}}'))),
            *((f"2 MB, {kind or 'no type'}", "llama", e.ask(megabytes, kind, "/v1/x?a=/files")) for kind in kinds),
            *((f"2 MB, {method}", "llama", e.ask(megabytes, method=method)) for method in ("PUT", "PATCH")),
            ("too large", 413, e.ask('{"a":"' + "x" * LIMIT + f'","model":"{LLAMA}"}}')),
            ("form", "whisper", e.ask(form(model_field(WHISPER), file_field("x" * 9999)), FORM)),
            ("form, model last", "whisper", e.ask(form(file_field("x" * (2 << 20)), model_field(WHISPER)), FORM)),
            ("form, unknown model", 404, e.ask(form(model_field("none")), FORM)),
            ("form, in a file", 400, e.ask(form(file_field('\r\n; name="model"\r\n\r\nchat')), FORM)),
            ("form, CR LF", 404, e.ask(form(model_field("chat\r\nx-evil: 1")), FORM)),
            ("form without a boundary", 400, e.ask(form(model_field(WHISPER)), "multipart/form-data")),
            ("query", "llama", e.ask(None, "", f"/v1/realtime?a&model={LLAMA.replace('/', '%2F')}", "GET")),
        ]
        results = {name: await call for name, _, call in rows}
        assert results == {name: expected for name, expected, _ in rows}
        # No header of ours, and none from a body, reaches a model server.
        names = {name for server in e.servers.values() for headers in server.seen for name in headers}
        assert not [name for name in names if name.startswith("x-turnout") or name == "x-evil"]
        assert "script log" not in (tmp_path / "envoy.log").read_text()


class Talks:
    """Chats with OpenAI's client at one gateway, and how often each version answered, by kind."""

    def __init__(self, port: int) -> None:
        self.answers: dict[str, Counter[str]] = {kind: Counter() for kind in ("whole", "stream", "preview")}
        # The words of a stream that does not end by itself.
        self.words: list[str] = []
        self._url = f"http://127.0.0.1:{port}/v1"
        self._done = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._talk(kind)) for kind in self.answers]
        self._tasks.append(asyncio.create_task(self._listen()))

    def _client(self, **headers: str) -> Any:
        import openai

        return openai.AsyncOpenAI(base_url=self._url, api_key="x", max_retries=0, default_headers=headers)

    async def _chat(self, client: Any, **more: Any) -> Any:
        hello = [{"role": "user", "content": "hello"}]
        return await client.chat.completions.create(model=LLAMA, messages=hello, **more)

    async def _talk(self, kind: str) -> None:
        async with self._client(**{"x-model-version": "green"} if kind == "preview" else {}) as client:
            while not self._done:
                answer = await self._chat(client, stream=kind == "stream")
                words = [chunk.choices[0].delta.content async for chunk in answer] if kind == "stream" else None
                version, _, text = ("".join(words) if words else answer.choices[0].message.content).strip().partition(" ")
                assert text == f"answers for {LLAMA}"
                self.answers[kind][version] += 1

    async def _listen(self) -> None:
        async with self._client() as client, await self._chat(client, stream=True, max_completion_tokens=10**5) as answer:
            async for chunk in answer:
                self.words.append(chunk.choices[0].delta.content.strip())
                if self._done:
                    return
        raise AssertionError("the stream ended early")

    async def more(self, version: str = "") -> None:
        """Wait for five more answers of each kind: previews from green, and the others from this version, if given."""
        before = {kind: answers.copy() for kind, answers in self.answers.items()}
        async with asyncio.timeout(30):
            for kind, answers in self.answers.items():
                wanted = "green" if kind == "preview" else version
                while sum(n for v, n in (answers - before[kind]).items() if wanted in (v, "")) < 5:
                    for task in self._tasks:
                        if task.done():
                            await task
                    await asyncio.sleep(0.01)

    async def stop(self) -> None:
        """End the chats, and check their answers."""
        self._done = True
        await asyncio.gather(*self._tasks)
        for kind, answers in self.answers.items():
            assert answers.keys() == ({"green"} if kind == "preview" else {"blue", "green"}), kind
        # The stream began on blue, and stayed there.
        assert set(self.words) == {"blue", "answers", "for", LLAMA}


async def test_openais_client_loses_no_request_and_no_stream_while_traffic_moves(fleet: Fleet) -> None:
    """A switch, a split, previews and an undo, over ADS, on an Envoy of each xDS variant."""
    try:
        import openai
    except ImportError:
        missing("the package `openai` is not installed: its client is not tested")
    async with openai_server("blue") as blue, openai_server("green") as green:
        plane, manifest = fleet.control_plane, fleet.manifest({"blue": blue.port, "green": green.port})
        for gateway in manifest.gateways:
            gateway.body.SetInParent()
        manifest.models[0].keys.append(LLAMA)
        manifest.models[0].preview_header = "x-model-version"
        await plane.apply(manifest)
        await fleet.start()
        await plane.held(1, nodes=2)
        talks = [Talks(port) for port in fleet.ports.values()]
        for talk in talks:
            talk.start()

        async def more(version: str = "") -> None:
            await asyncio.gather(*(talk.more(version) for talk in talks))

        await more("blue")
        for shares in ({"green": 10_000}, {"blue": 5_000, "green": 5_000}):
            await plane.held(await plane.split(MODEL, shares), nodes=2)
            await more("green")
        undo = UndoModelsRequest(undos=[ModelUndo(model=f"models/{MODEL}")], force=True)
        answer = await plane.models.UndoModels(undo, timeout=30)
        await plane.held(answer.revision.number, nodes=2)
        await more("green")
        await plane.held(await plane.split(MODEL, {"blue": 10_000}), nodes=2)
        await more("blue")
        await asyncio.gather(*(talk.stop() for talk in talks))
        # A new model is in the list of each gateway as soon as it is held.
        manifest.models[0].name, manifest.models[0].keys[:] = "qwen", [QWEN]
        await plane.held(await plane.apply(manifest), nodes=2)
        for port in fleet.ports.values():
            async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x") as client:
                assert QWEN in [model.id async for model in client.models.list()]


@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_a_large_body_over_http2(tmp_path: Path, version: str) -> None:
    """Envoy's limit is another one than with HTTP/1."""
    async with edge(tmp_path, version) as e:
        for megabytes, expected in ((3, {"version": "llama"}), (25, {"type": "error"})):
            content = ('{"a":"' + "x" * (megabytes << 20) + f'","model":"{LLAMA}"}}').encode()
            status, answer = await asyncio.to_thread(post_over_http2, e.ports["edge"], "/v1/completions", content)
            assert (status, answer.items() >= expected.items()) == ("413" if megabytes == 25 else "200", True), megabytes


# ------------------------------------------------------------------------------------------------------------ memory

UPLOADS, UPLOAD = 200, 63  # requests, and megabytes of each
BOUND = 2048  # megabytes


async def upload(port: int) -> str:
    """Send a large body, and return the status; "closed" if the connection ends without one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    begin, end, block = b'{"a":"', f'","model":"{WHISPER}"}}'.encode(), b"x" * (1 << 20)
    length = len(begin) + UPLOAD * len(block) + len(end)

    async def send() -> None:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % length + begin)
        for _ in range(UPLOAD):
            writer.write(block)
            await writer.drain()
        writer.write(end)
        await writer.drain()

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(200):
            line = await reader.readline()
    except OSError:
        return "closed"
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    return line.split(b" ")[1].decode() if line else "closed"


def peak_megabytes(pid: int) -> int:
    """Return the most memory that a process has had."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) >> 10


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_many_large_uploads_do_not_kill_an_envoy(tmp_path: Path, version: str, report: Report) -> None:
    bounded = node_bootstrap("edge-1", max_memory=BOUND)["overload_manager"]
    async with edge(tmp_path, version, overload_manager=bounded) as e:
        statuses = Counter(await asyncio.gather(*(upload(e.ports["files"]) for _ in range(UPLOADS))))
        peak = peak_megabytes(e.envoy.process.pid)
        report(f"{version}: {dict(statuses)}, at most {peak} MB")
        assert statuses.keys() <= {"200", "500", "503", "closed"}
        # Without a bound it would need 12.6 GB. From 60 % of the bound on, Envoy ends everything that still comes in.
        assert peak < 0.75 * BOUND
        for _ in range(100):
            if (answer := await e.ask(body(LLAMA))) == "llama":
                break
            await asyncio.sleep(0.2)
        assert answer == "llama"


async def test_openais_own_client(tmp_path: Path) -> None:
    try:
        import openai
    except ImportError:
        missing("the package `openai` is not installed: its client is not tested")
    async with edge(tmp_path) as e, openai.AsyncOpenAI(base_url=f"{e.url()}/v1", api_key="x", max_retries=0) as client:
        hello: Any = [{"role": "user", "content": "hello"}]
        listed = [model.id async for model in client.models.list()]
        assert listed == sorted([LLAMA, QWEN, WHISPER, "chat"])
        for name in listed:
            assert (await client.models.retrieve(name)).id == name
        for name, version in ((LLAMA, "llama"), (QWEN, "qwen"), ("chat", "qwen")):
            chat = await client.chat.completions.create(model=name, messages=hello)
            assert chat.choices[0].message.content == f"{version} answers for {name}"
            stream = await client.chat.completions.create(model=name, messages=hello, stream=True)
            words = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(words).strip() == f"{version} answers for {name}"
            assert (await client.responses.create(model=name, input="hello")).output_text == f"{version} answers for {name}"
            embeddings = await client.embeddings.create(model=name, input="hello", encoding_format="float")
            assert embeddings.model == f"{version} answers for {name}"
        audio = ("a.wav", io.BytesIO(b"RIFF" + b"\0" * (3 << 20)))
        heard = await client.audio.transcriptions.create(model=WHISPER, file=audio)
        assert heard.text == f"whisper answers for {WHISPER}"
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.chat.completions.create(model="gpt-9", messages=hello)
        assert (unknown.value.code, unknown.value.type) == ("model_not_found", "invalid_request_error")
        assert "There is no model 'gpt-9'. GET /v1/models lists the models of this gateway." in str(unknown.value)
        with pytest.raises(openai.NotFoundError, match="GET /v1/models lists its models"):
            await client.models.retrieve("gpt-9")
        with pytest.raises(openai.BadRequestError, match="The request names no model") as nameless:
            await client.chat.completions.create(model="", messages=hello)
        assert nameless.value.param == "model"
        with pytest.raises(openai.BadRequestError, match="must be a string"):
            await client.chat.completions.create(model=5, messages=hello)
        with pytest.raises(openai.APIStatusError) as large:
            await client.chat.completions.create(model=LLAMA, messages=[{"role": "user", "content": "x" * LIMIT}])
        assert (large.value.status_code, large.value.code) == (413, "request_too_large")
        # Uploads of files name no model. They go to the default model, and may be larger than the limit.
        upload: Any = ("a.jsonl", io.BytesIO(b"x" * (65 << 20)))
        with pytest.raises(openai.BadRequestError, match="The request names no model"):
            await client.files.create(file=("a.jsonl", io.BytesIO(b"x")), purpose="batch")
        with_files = client.with_options(base_url=f"{e.url('files')}/v1")
        assert (await with_files.files.create(file=upload, purpose="batch")).bytes == 65 << 20
        assert (await with_files.files.retrieve("f")).id == "whisper"


@pytest.mark.slow
async def test_anthropics_and_ollamas_own_clients(tmp_path: Path) -> None:
    try:
        import anthropic
        import ollama
    except ImportError:
        missing("the packages `anthropic` and `ollama` are not installed: their clients are not tested")
    async with edge(tmp_path) as e:
        hello: Any = [{"role": "user", "content": "hello"}]
        async with anthropic.AsyncAnthropic(base_url=e.url(), api_key="x", max_retries=0) as client:
            message = await client.messages.create(model=LLAMA, messages=hello, max_tokens=9)
            assert message.content[0].text == f"llama answers for {LLAMA}"
            async with client.messages.stream(model=QWEN, messages=hello, max_tokens=9) as stream:
                assert await stream.get_final_text() == f"qwen answers for {QWEN}"
            assert LLAMA in [model.id async for model in client.models.list()]
            with pytest.raises(anthropic.NotFoundError, match="There is no model 'claude-9'"):
                await client.messages.create(model="claude-9", messages=hello, max_tokens=9)
        local = ollama.AsyncClient(host=e.url())
        assert (await local.chat(model=QWEN, messages=hello)).message.content == f"qwen answers for {QWEN}"
        assert QWEN in [model.model for model in (await local.list()).models]
        with pytest.raises(ollama.ResponseError, match="There is no model 'none'"):
            await local.chat(model="none", messages=hello)
