"""A small model server that speaks the APIs of OpenAI, Anthropic and Ollama, as far as their SDKs are tested here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import BodyPartReader, web

_NO_LIMIT = 1 << 40  # of a request's body


class OpenAIServer:
    """The server of one version. Each answer names the version and the model that the request names."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.port = 0
        # The headers of each request.
        self.seen: list[Mapping[str, str]] = []

    def application(self) -> web.Application:
        """Return the routes of the server."""

        @web.middleware
        async def count(request: web.Request, handler: Any) -> web.StreamResponse:
            self.seen.append({name.lower(): value for name, value in request.headers.items()})
            response: web.StreamResponse = await handler(request)
            return response

        app = web.Application(client_max_size=_NO_LIMIT, middlewares=[count])
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_post("/v1/responses", self._responses)
        app.router.add_post("/v1/audio/transcriptions", self._transcription)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{file}", self._file)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/api/chat", self._ollama)
        app.router.add_route("*", "/{rest:.*}", self._any)
        return app

    def text(self, body: Mapping[str, Any]) -> str:
        return f"{self.version} answers for {body.get('model')}"

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        words = self.text(body).split(" ")
        common = {"id": "chat-1", "created": 0, "model": body["model"]}
        if not body.get("stream"):
            message = {"role": "assistant", "content": " ".join(words)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({**common, "object": "chat.completion", "choices": [choice]})
        # As many words as the request allows, or the text once.
        words = words * (body.get("max_completion_tokens", len(words)) // len(words))
        chunks = (
            {**common, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": f"{word} "}}]}
            for word in words
        )
        return await events(request, (("", chunk) for chunk in chunks), end="data: [DONE]\n\n", pause=0.02)

    async def _embeddings(self, request: web.Request) -> web.Response:
        body = await request.json()
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, len(self.version)]}
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        return web.json_response({"object": "list", "data": [vector], "model": self.text(body), "usage": usage})

    async def _responses(self, request: web.Request) -> web.Response:
        body = await request.json()
        content = [{"type": "output_text", "text": self.text(body), "annotations": []}]
        output = {"type": "message", "id": "m", "status": "completed", "role": "assistant", "content": content}
        return web.json_response(
            {
                "id": "r",
                "object": "response",
                "created_at": 0,
                "model": body["model"],
                "output": [output],
                "status": "completed",
            }
        )

    async def _transcription(self, request: web.Request) -> web.Response:
        form = await request.post()
        return web.json_response({"text": self.text({"model": form["model"]})})

    async def _upload(self, request: web.Request) -> web.Response:
        size = 0
        async for part in await request.multipart():
            assert isinstance(part, BodyPartReader)
            data = await part.read()
            size += len(data) if part.name == "file" else 0
        return web.json_response(self._file_form(size))

    async def _file(self, request: web.Request) -> web.Response:
        return web.json_response(self._file_form(0))

    def _file_form(self, size: int) -> dict[str, Any]:
        return {"id": self.version, "object": "file", "bytes": size, "created_at": 0, "filename": "f", "purpose": "batch"}

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        message = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "stop_reason": "end_turn"}
        usage = {"input_tokens": 1, "output_tokens": 1}
        content = {"type": "text", "text": self.text(body)}
        if not body.get("stream"):
            return web.json_response({**message, "content": [content], "usage": usage})
        start = {"type": "message_start", "message": {**message, "content": [], "usage": usage}}
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": self.text(body)}}
        stop = {"type": "content_block_stop", "index": 0}
        parts: list[dict[str, Any]] = [start, block, delta, stop, {"type": "message_stop"}]
        return await events(request, [(part["type"], part) for part in parts])

    async def _ollama(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        answer = {"model": body["model"], "message": {"role": "assistant", "content": self.text(body)}, "done": True}
        return web.json_response(answer, content_type="application/x-ndjson")

    async def _any(self, request: web.Request) -> web.Response:
        size = 0
        async for data in request.content.iter_any():
            size += len(data)
        return web.json_response({"version": self.version, "bytes": size, "path": request.raw_path})


async def events(
    request: web.Request, items: Iterable[tuple[str, object]], end: str = "", pause: float = 0
) -> web.StreamResponse:
    """Answer with server-sent events: (name or "", data)."""
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for name, data in items:
        await response.write(((f"event: {name}\n" if name else "") + f"data: {json.dumps(data)}\n\n").encode())
        await asyncio.sleep(pause)
    await response.write(end.encode())
    return response


@asynccontextmanager
async def openai_server(version: str) -> AsyncIterator[OpenAIServer]:
    """Run a server on a free port."""
    server = OpenAIServer(version)
    runner = web.AppRunner(server.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()
