"""The server's side of a connection without a socket, and its events."""

from __future__ import annotations

from collections.abc import Mapping

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from controlplane.http2.connection import Connection
from controlplane.http2.streams import Stream

FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "x")]


class Listener:
    """Records the events of a stream."""

    def __init__(self) -> None:
        self.data, self.padding, self.ended, self.was_aborted = b"", 0, False, False

    def data_received(self, data: bytes, padding: int) -> None:
        self.data += data
        self.padding += padding

    def end_received(self) -> None:
        self.ended = True

    def aborted(self) -> None:
        self.was_aborted = True


class Side:
    """The server's side of a connection. Its clock does not advance."""

    def __init__(self, streams: int = 10, stream_window: int = 100_000, connection_window: int = 1_000_000) -> None:
        self.http2 = Connection(
            self,
            lambda: 0.0,
            max_streams=streams,
            stream_window=stream_window,
            connection_window=connection_window,
        )
        self.streams: dict[int, Stream] = {}
        self.listeners: dict[int, Listener] = {}
        self.fields: dict[int, Mapping[str, str]] = {}
        # Bytes of DATA that reached no listener.
        self.unwanted = 0
        # The error code of the client's GOAWAY.
        self.goaway: int | None = None
        self.unparsed = b""

    def stream_opened(self, stream: Stream, fields: Mapping[str, str]) -> None:
        self.streams[stream.id], self.fields[stream.id] = stream, fields
        self.listeners[stream.id] = stream.listener = Listener()

    def settings_received(self) -> None:
        pass

    def window_opened(self) -> None:
        pass

    def goaway_received(self, reason: int) -> None:
        self.goaway = reason

    def consumed(self, count: int) -> None:
        self.unwanted += count

    def output_added(self) -> None:
        pass

    def receive(self, data: bytes) -> None:
        """Receive bytes of the client, however they are cut."""
        self.unparsed = self.http2.receive(self.unparsed + data, 1.0)

    def output(self) -> bytes:
        """Remove and return the output."""
        return b"".join(self.http2.output.take()[0])


def pair(side: Side | None = None, settings: dict[SettingCodes | int, int] | None = None) -> tuple[H2Connection, Side]:
    """Return a client of the h2 library and a server's side, after the prefaces, with stream 1 open in both directions."""
    client, side = H2Connection(H2Configuration(header_encoding="utf-8")), side or Side()
    client.initiate_connection()
    if settings:
        client.update_settings(settings)
    client.send_headers(1, FIELDS)
    side.receive(client.data_to_send())
    side.http2.send_headers(side.streams[1], ((":status", "200"),))
    client.receive_data(side.output())
    side.receive(client.data_to_send())
    return client, side
