"""h2spec, a conformance suite for HTTP/2 servers (RFC 9113, RFC 7541), and a server of pages to run it against."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

from controlplane.http2.connection import Connection
from controlplane.http2.frames import Buffer, ConnectionFault, ErrorCode
from controlplane.http2.streams import Stream
from tests.tools import go_tool

_MODULE = Path(__file__).parent / "h2spec"
_PROGRAM = Path(__file__).parents[2] / "build" / "h2spec"


def build() -> Path:
    """Build the suite at the version that `go.mod` pins, and return its path. Without Go, skip the test, or fail it in CI."""
    return go_tool(_MODULE, "github.com/summerwind/h2spec/cmd/h2spec", _PROGRAM)


@dataclass
class Verdict:
    """The suite's verdict on a server."""

    # Cases, by section and number in it, if all were tried.
    cases: list[str]
    # Failed cases, by section and title: what the server did.
    failures: dict[tuple[str, str], str]
    # Cases that h2spec skipped.
    skipped: set[tuple[str, str]]


async def verdict(program: Path, port: int, report: Path, *more: str) -> Verdict:
    """Run all cases, including the strict ones, or only the named ones."""
    options = ("-p", str(port), "--strict", "-o", "5", "-j", str(report), *more)
    child = await asyncio.create_subprocess_exec(str(program), *options, stdout=asyncio.subprocess.PIPE)
    output = (await child.communicate())[0].decode()
    assert child.returncode in (0, 1), output[-500:]
    result, numbers = Verdict([], {}, set()), Counter[str]()
    # The report quotes received bytes as they are, and XML can't contain zeros.
    xml = await asyncio.to_thread(report.read_bytes)
    for case in ElementTree.fromstring(xml.replace(b"\0", b"")).iter("testcase"):
        section, title = case.attrib["package"], case.attrib["classname"]
        numbers[section] += 1
        result.cases.append(f"{section}/{numbers[section]}")
        for mark in case:
            if mark.tag == "skipped":
                result.skipped.add((section, title))
            else:
                result.failures[section, title] = "".join(mark.itertext())
    return result


class Pages(asyncio.Protocol):
    """A connection to a server that has one page, and sends it when a request is complete."""

    def __init__(self) -> None:
        self.http2 = Connection(
            self, asyncio.get_running_loop().time, max_streams=100, stream_window=1 << 16, connection_window=1 << 20
        )
        self._unparsed = b""
        self._unsent: dict[Stream, list[Buffer]] = {}
        self._transport = cast(asyncio.Transport, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.http2.closed:
            return
        try:
            self._unparsed = self.http2.receive(self._unparsed + data, float("inf"))
        except ConnectionFault as fault:
            self.http2.close(fault.reason)
        self._transport.writelines(self.http2.output.take()[0])
        if self.http2.closed:
            # Keep the socket open: bytes that still arrive at a closed socket would reset the connection, and the end of the
            # output would be lost.
            self._transport.write_eof()

    def stream_opened(self, stream: Stream, fields: Mapping[str, str]) -> None:
        stream.listener = Page(self, stream)

    def answer(self, stream: Stream) -> None:
        """Send the page."""
        self.http2.send_headers(stream, ((":status", "200"),))
        self._unsent[stream] = [b"a page"]
        self.window_opened()

    def window_opened(self) -> None:
        for stream, unsent in list(self._unsent.items()):
            self.http2.send_data(stream, unsent, 1 << 20)
            if not unsent:
                del self._unsent[stream]
                self.http2.send_headers(stream, (("x-end", "yes"),), end=True)

    def forget(self, stream: Stream) -> None:
        """Send nothing more on a stream."""
        self._unsent.pop(stream, None)

    def goaway_received(self, reason: int) -> None:
        self.http2.close(ErrorCode.NO_ERROR)

    def settings_received(self) -> None: ...

    def consumed(self, count: int) -> None: ...

    def spent(self, seconds: float) -> None: ...

    def output_added(self) -> None: ...


class Page:
    """A stream of the server."""

    def __init__(self, pages: Pages, stream: Stream) -> None:
        self._pages, self._stream = pages, stream

    def data_received(self, data: bytes, padding: int) -> None: ...

    def end_received(self) -> None:
        self._pages.answer(self._stream)

    def aborted(self) -> None:
        self._pages.forget(self._stream)


async def under_pages(program: Path, tmp_path: Path) -> Verdict:
    """Return the verdict on the server of pages."""
    server = await asyncio.get_running_loop().create_server(Pages, "127.0.0.1", 0)
    async with server:
        return await verdict(program, server.sockets[0].getsockname()[1], tmp_path / "pages.xml")
