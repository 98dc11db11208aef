"""HTTP/2 by the word of h2spec, a conformance suite made for servers (RFC 9113, RFC 7541). Skipped where there is no Go.

It asks with GET for `/`, which an xDS server refuses before it has heard the rest; what comes after that is said to a stream
that is over. So it is run twice: against the protocol alone, under a server of pages, where every case has to pass; and
against the real server, plain and over TLS, where those of `_REFUSED` may end otherwise.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest

from controlplane.server import http2_server
from controlplane.server.frames import Buffer, Reason, Wrong
from controlplane.server.http2_state import Http2, Stream
from controlplane.server.limits import Limits
from controlplane.server.shells import serve
from controlplane.store import Store
from tests.pki import Authority
from tests.server.test_discovery import running
from tests.server.test_discovery import store as _store

store = _store

_MODULE = Path(__file__).parent / "h2spec"
_PROGRAM = Path(__file__).parents[2] / "build" / "h2spec"

# All of it, the strict cases too.
_CASES = 146

# What the real server does otherwise, since GET is answered with 405 at its HEADERS, and with that the stream is over on both
# sides. A client may go on talking on it, and nothing is made of that (RFC 9113, 5.1, "closed"). By section and title.
_NO_BODY = "waits for DATA, and a refusal has none"
_OVER = "a mistake on a stream that is over already"
_REFUSED = {
    ("generic/2", "Sends a WINDOW_UPDATE frame on half-closed (remote) stream"): _NO_BODY,
    ("generic/2", "Sends a PRIORITY frame on half-closed (remote) stream"): _NO_BODY,
    ("http2/5.1.2", "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded"): (
        "no stream stays open, so there are never too many"
    ),
    ("http2/6.9", "Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream"): _OVER,
    (
        "http2/6.9.1",
        "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    ): _OVER,
    ("http2/8.1", "Sends a second HEADERS frame without the END_STREAM flag"): _OVER,
    (
        "http2/8.1.2.6",
        'Sends a HEADERS frame with the "content-length" header field which does not equal the DATA frame payload length',
    ): _OVER,
    (
        "http2/8.1.2.6",
        'Sends a HEADERS frame with the "content-length" header field which does not equal the sum of the multiple DATA '
        "frames payload length",
    ): _OVER,
}

# What h2spec leaves out itself when an answer has no body to cut to a window.
_WITHOUT_BODY = 4


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The suite, built as its module pins it."""
    if shutil.which("go") is None:
        pytest.skip("h2spec is written in Go, and there is none")
    _PROGRAM.parent.mkdir(exist_ok=True)
    build = ["go", "build", "-o", str(_PROGRAM), "github.com/summerwind/h2spec/cmd/h2spec"]
    done = subprocess.run(build, cwd=_MODULE, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"h2spec can't be built: {done.stderr[-300:]}"
    return _PROGRAM


@dataclass
class Verdict:
    """Cases by section and title: what the server did instead of what is right; and those that were left out."""

    count: int
    wrong: dict[tuple[str, str], str]
    left_out: set[tuple[str, str]]


async def verdict(program: Path, port: int, report: Path, *more: str) -> Verdict:
    """What the suite says of a server."""
    child = await asyncio.create_subprocess_exec(
        str(program), "-p", str(port), "--strict", "-o", "1", "-j", str(report), *more, stdout=asyncio.subprocess.PIPE
    )
    said = (await child.communicate())[0].decode()
    assert child.returncode in (0, 1), said[-500:]
    found = Verdict(0, {}, set())
    for case in ElementTree.parse(report).iter("testcase"):
        key = case.attrib["package"], case.attrib["classname"]
        found.count += 1
        for mark in case:
            if mark.tag == "skipped":
                found.left_out.add(key)
            else:
                found.wrong[key] = "".join(mark.itertext())
    return found


class Pages(asyncio.Protocol):
    """A connection to a server that has one page, and gives it to whoever has said all: a User of the protocol."""

    def __init__(self) -> None:
        self.http2 = Http2(self, asyncio.get_running_loop().time, 100, 1 << 16, 1 << 20)
        self._tail = b""
        self._waiting: dict[Stream, list[Buffer]] = {}
        self._transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._tail = self.http2.receive(self._tail + data)
        except Wrong as error:
            self.http2.close(error.reason)
        self._transport.writelines(self.http2.written()[0])
        if self.http2.over:
            self._transport.close()

    def requested(self, stream: Stream, fields: Mapping[str, str]) -> None:
        stream.listener = Page(self, stream)

    def answer(self, stream: Stream) -> None:
        self.http2.headers(stream, ((":status", "200"),))
        self._waiting[stream] = [b"a page"]
        self.opened()

    def opened(self) -> None:
        for stream, rest in list(self._waiting.items()):
            self.http2.send(stream, rest, 1 << 20)
            if not rest:
                del self._waiting[stream]
                self.http2.headers(stream, (("x-end", "yes"),), end=True)

    def left(self, stream: Stream) -> None:
        self._waiting.pop(stream, None)

    def leaving(self, reason: int) -> None:
        self.http2.close(Reason.NO_ERROR)

    def began(self) -> None: ...

    def took(self, count: int) -> None: ...

    def spent(self, seconds: float) -> None: ...

    def wrote(self) -> None: ...


class Page:
    """A stream of it."""

    def __init__(self, pages: Pages, stream: Stream) -> None:
        self._pages, self._stream = pages, stream

    def data(self, data: bytes, padding: int) -> None: ...

    def said_all(self) -> None:
        self._pages.answer(self._stream)

    def lost(self) -> None:
        self._pages.left(self._stream)


async def test_every_case_of_the_protocol(h2spec: Path, tmp_path: Path) -> None:
    server = await asyncio.get_running_loop().create_server(Pages, "127.0.0.1", 0)
    async with server:
        found = await verdict(h2spec, server.sockets[0].getsockname()[1], tmp_path / "pages.xml")
    assert found == Verdict(_CASES, {}, set())


async def test_the_server_of_xds_plain_and_over_tls(h2spec: Path, store: Store, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().pair("127.0.0.1").files(tmp_path, "server"))
    async with running(store) as rig:
        secure = await serve(rig.discovery, "127.0.0.1", 0, Limits(), context=http2_server.tls(context))
        try:
            plain, over_tls = await asyncio.gather(
                verdict(h2spec, rig.port, tmp_path / "plain.xml"),
                verdict(h2spec, secure.port, tmp_path / "tls.xml", "--tls", "--insecure"),
            )
        finally:
            await secure.stop(0)
    for found in plain, over_tls:
        assert found.count == _CASES
        assert {case: why for case, why in found.wrong.items() if case not in _REFUSED} == {}
        assert len(found.left_out) <= _WITHOUT_BODY
