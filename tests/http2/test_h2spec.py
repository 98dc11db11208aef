"""HTTP/2 by the word of h2spec, a conformance suite made for servers (RFC 9113, RFC 7541). Skipped where there is no Go.

It asks with GET for `/`, which an xDS server refuses before it has heard the rest; what comes after that is said to a stream
that is over. So it is run twice: against the protocol alone, under a server of pages, where every case has to pass; and
against the real server, plain and over TLS, without the cases of `_REFUSED`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest

from controlplane.http2 import server as http2_server
from controlplane.http2.connection import Connection
from controlplane.http2.frames import Buffer, ConnectionFault, ErrorCode
from controlplane.http2.streams import Stream
from controlplane.store import Store
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.transports import serve
from tests.pki import Authority
from tests.tools import go_tool
from tests.xds_server.rig import running
from tests.xds_server.rig import store as _store

store = _store

_MODULE = Path(__file__).parent / "h2spec"
_PROGRAM = Path(__file__).parents[2] / "build" / "h2spec"

# All of it, the strict cases too.
_CASES = 146

# What the real server does otherwise, since GET is answered with 405 at its HEADERS, and with that the stream is over on both
# sides. A client may go on talking on it, and nothing is made of that (RFC 9113, 5.1, "closed"). Those it is not asked.
_NO_BODY = "waits for DATA, and a refusal has none"
_NEVER_MANY = "no stream stays open, so there are never too many"
_OVER = "a mistake on a stream that is over already"
_REFUSED = {
    "generic/2/2": _NO_BODY,  # WINDOW_UPDATE on a half-closed stream
    "generic/2/3": _NO_BODY,  # PRIORITY on a half-closed stream
    "http2/5.1.2/1": _NEVER_MANY,
    "http2/6.9/2": _OVER,  # a WINDOW_UPDATE of 0
    "http2/6.9.1/3": _OVER,  # a window above 2^31-1
    "http2/8.1/1": _OVER,  # a second HEADERS without END_STREAM
    "http2/8.1.2.6/1": _OVER,  # content-length that is not the length
    "http2/8.1.2.6/2": _OVER,
}

# What h2spec leaves out itself when an answer has no body to cut to a window.
_WITHOUT_BODY = 4


@pytest.fixture(scope="module")
def h2spec() -> Path:
    """The suite, built as its module pins it."""
    return go_tool(_MODULE, "github.com/summerwind/h2spec/cmd/h2spec", _PROGRAM)


@dataclass
class Verdict:
    """What the suite says of a server."""

    # Cases, by section and number in it, if all were tried.
    cases: list[str]
    # By section and title: what the server did instead of what is right; and those that h2spec left out.
    wrong: dict[tuple[str, str], str]
    left_out: set[tuple[str, str]]


async def verdict(program: Path, port: int, report: Path, *more: str) -> Verdict:
    """Tries all cases, the strict ones too, or those that are named."""
    options = ("-p", str(port), "--strict", "-o", "5", "-j", str(report), *more)
    child = await asyncio.create_subprocess_exec(str(program), *options, stdout=asyncio.subprocess.PIPE)
    said = (await child.communicate())[0].decode()
    assert child.returncode in (0, 1), said[-500:]
    found, numbers = Verdict([], {}, set()), Counter[str]()
    # It writes as they are the bytes that it was sent or had sent, which XML can't have.
    written = await asyncio.to_thread(report.read_bytes)
    for case in ElementTree.fromstring(written.replace(b"\0", b"")).iter("testcase"):
        section, title = case.attrib["package"], case.attrib["classname"]
        numbers[section] += 1
        found.cases.append(f"{section}/{numbers[section]}")
        for mark in case:
            if mark.tag == "skipped":
                found.left_out.add((section, title))
            else:
                found.wrong[section, title] = "".join(mark.itertext())
    return found


class Pages(asyncio.Protocol):
    """A connection to a server that has one page, and gives it to whoever has said all: a User of the protocol."""

    def __init__(self) -> None:
        self.http2 = Connection(
            self, asyncio.get_running_loop().time, max_streams=100, stream_window=1 << 16, connection_window=1 << 20
        )
        self._tail = b""
        self._waiting: dict[Stream, list[Buffer]] = {}
        self._transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.http2.closed:
            return
        try:
            self._tail = self.http2.receive(self._tail + data)
        except ConnectionFault as error:
            self.http2.close(error.reason)
        self._transport.writelines(self.http2.output.take()[0])
        if self.http2.closed:
            # And not closed, since what comes yet would have it reset, and the end of what was written be lost.
            self._transport.write_eof()

    def stream_opened(self, stream: Stream, fields: Mapping[str, str]) -> None:
        stream.listener = Page(self, stream)

    def answer(self, stream: Stream) -> None:
        self.http2.send_headers(stream, ((":status", "200"),))
        self._waiting[stream] = [b"a page"]
        self.window_opened()

    def window_opened(self) -> None:
        for stream, rest in list(self._waiting.items()):
            self.http2.send_data(stream, rest, 1 << 20)
            if not rest:
                del self._waiting[stream]
                self.http2.send_headers(stream, (("x-end", "yes"),), end=True)

    def left(self, stream: Stream) -> None:
        self._waiting.pop(stream, None)

    def goaway_received(self, reason: int) -> None:
        self.http2.close(ErrorCode.NO_ERROR)

    def settings_received(self) -> None: ...

    def consumed(self, count: int) -> None: ...

    def spent(self, seconds: float) -> None: ...

    def output_added(self) -> None: ...


class Page:
    """A stream of it."""

    def __init__(self, pages: Pages, stream: Stream) -> None:
        self._pages, self._stream = pages, stream

    def data_received(self, data: bytes, padding: int) -> None: ...

    def end_received(self) -> None:
        self._pages.answer(self._stream)

    def aborted(self) -> None:
        self._pages.left(self._stream)


async def under_pages(program: Path, tmp_path: Path) -> Verdict:
    server = await asyncio.get_running_loop().create_server(Pages, "127.0.0.1", 0)
    async with server:
        return await verdict(program, server.sockets[0].getsockname()[1], tmp_path / "pages.xml")


async def test_every_case_of_the_protocol(h2spec: Path, tmp_path: Path) -> None:
    found = await under_pages(h2spec, tmp_path)
    assert (len(found.cases), found.wrong, found.left_out) == (_CASES, {}, set())


async def test_the_server_of_xds_plain_and_over_tls(h2spec: Path, store: Store, tmp_path: Path) -> None:
    cases = (await under_pages(h2spec, tmp_path)).cases
    assert set(_REFUSED) < set(cases)
    asked = [case for case in cases if case not in _REFUSED]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*Authority().pair("127.0.0.1").files(tmp_path, "server"))
    async with running(store) as rig:
        secure = await serve(rig.discovery, "127.0.0.1", 0, StreamLimits(), context=http2_server.tls(context))
        try:
            plain = await verdict(h2spec, rig.port, tmp_path / "plain.xml", *asked)
            over_tls = await verdict(h2spec, secure.port, tmp_path / "tls.xml", "--tls", "--insecure", *asked)
        finally:
            await secure.stop(0)
    for found in plain, over_tls:
        assert (len(found.cases), found.wrong) == (len(asked), {})
        assert len(found.left_out) <= _WITHOUT_BODY
