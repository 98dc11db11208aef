"""TLS of one connection, over memory BIOs, between the socket and `transport.py`.

    socket ── TLS records ──▶ TlsSocket ── plain bytes ──▶ SocketTransport
           ◀───────────────           ◀── write, close ──

uvloop's own TLS keeps 256 KiB for each connection. A memory BIO never shrinks, so it is fed small pieces here: an idle
connection keeps about 50 KB. Each handshake uses the newest context, so a certificate can be replaced while the server runs.
Handshakes take turns in slices of a few milliseconds, so that a fleet that connects at once stops nobody else.

It protects the server from its client:

    the handshake takes too long, or sends too much     the connection closes
    records without data, such as KeyUpdate             the connection closes after a few of them
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from controlplane.http2.accounts import Account, Accounts, client_key
from controlplane.http2.peer import Credential, address

# Bytes that go into a memory BIO at a time, and plain bytes of one written record.
_READ_PIECE, _RECORD = 4 * 1024, 8 * 1024

# Bytes that a client may send before its handshake is done.
_MAX_HANDSHAKE = 64 * 1024

# Pieces in a row that bring no data. The largest record takes five pieces.
_MAX_EMPTY_PIECES = 12

# Time for handshakes before the event loop does something else, and the time for that. Seconds.
_SLICE, _PAUSE = 0.005, 0.002


class Certificates(Protocol):
    """The server's certificate, and the authorities of its clients."""

    @property
    def context(self) -> ssl.SSLContext:
        """Return the context of the next handshake."""

    def credential(self, certificate: bytes) -> Credential:
        """Return what a client's verified certificate (DER) says. Errors: ValueError if it is refused."""


class Handshakes:
    """The handshakes in progress. Client addresses take turns, so a flood of one delays the others little."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts
        # By socket, the account of its address.
        self._open: dict[TlsSocket, Account] = {}
        # Sockets with unread bytes. Each is here once at most.
        self._ready: dict[Account, deque[TlsSocket]] = {}
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, sock: TlsSocket, address: str) -> Account:
        """Add a handshake, and return the account of its address."""
        account = self._open[sock] = self._accounts.open(client_key(address))
        return account

    def full(self, account: Account) -> bool:
        """Return True if there are too many connections, of this address or of all."""
        return self._accounts.full(account)

    def end(self, sock: TlsSocket) -> None:
        """Remove a handshake that is done or has failed."""
        account = self._open.pop(sock, None)
        if account is not None:
            self._accounts.close(account, asyncio.get_running_loop().time())

    def ready(self, sock: TlsSocket, account: Account) -> None:
        """Go on with a socket when it is the turn of its address."""
        self._ready.setdefault(account, deque()).append(sock)
        self._schedule(0.0)

    def abort(self) -> None:
        """Disconnect every client whose handshake is not done."""
        for sock in list(self._open):
            sock.abort()

    def _schedule(self, delay: float) -> None:
        if not self._scheduled and self._ready:
            self._scheduled = True
            asyncio.get_running_loop().call_later(delay, self._run)

    def _run(self) -> None:
        self._scheduled = False
        clock = asyncio.get_running_loop().time
        end = clock() + _SLICE
        while self._ready:
            account = next(iter(self._ready))
            waiting = self._ready.pop(account)
            sock = waiting.popleft()
            if waiting:
                self._ready[account] = waiting  # at the end: the next address has its turn
            sock.go_on()
            if clock() > end:
                break
        self._schedule(_PAUSE)


class _SocketBelow(asyncio.Transport):
    """A transport whose reading and buffer are those of the socket below it."""

    def __init__(self) -> None:
        super().__init__()
        self._raw = cast(asyncio.Transport, None)

    def can_write_eof(self) -> bool:
        """Return True: TLS has a message for it, and the socket, too."""
        return True

    def pause_reading(self) -> None:
        """Read nothing from the socket."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Read from the socket again."""
        self._raw.resume_reading()

    def is_closing(self) -> bool:
        """Return True when the connection closes or is closed."""
        return self._raw.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the limits of the socket's buffer."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return the unwritten bytes."""
        return self._raw.get_write_buffer_size()


class TlsSocket(asyncio.Protocol, _SocketBelow):
    """The TLS of one connection: the protocol of its socket, and the transport of the protocol `inner`."""

    def __init__(
        self,
        certificates: Certificates,
        handshakes: Handshakes,
        timeout: float,
        inner: asyncio.Protocol,
        refused: Callable[[str, str], None],
    ) -> None:
        """Give the handshake `timeout` seconds. Call `refused` with the address and the reason when it fails."""
        super().__init__()
        self._certificates, self._handshakes, self._timeout, self._inner = certificates, handshakes, timeout, inner
        self._refused = refused
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # Received bytes of the handshake that wait for their turn.
        self._waiting = b""
        self._received = 0
        self._established = False
        # No more bytes are read: this side has said goodbye.
        self._closed = False
        self._empty_pieces = 0
        self._credential: Credential | None = None
        # None before the first bytes came.
        self._tls = cast(ssl.SSLObject, None)

    # ------------------------------------------------------------------------------------------ called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the handshake."""
        self._raw = cast(asyncio.Transport, transport)
        self._address = address(self._raw.get_extra_info("peername"))
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._refuse, "the handshake took too long")
        self._account = self._handshakes.begin(self, self._address)
        if self._handshakes.full(self._account):
            self._refuse("too many connections")

    def data_received(self, data: bytes) -> None:
        """Decrypt received bytes; those of a handshake when it is its turn."""
        if self._closed:
            return
        if self._established:
            self._decrypt(data)
            return
        self._received += len(data)
        if self._received > _MAX_HANDSHAKE:
            self._refuse("the handshake is too long")
            return
        if not self._waiting:
            self._handshakes.ready(self, self._account)
        self._waiting += data

    def eof_received(self) -> bool | None:
        """Close, unless the inner protocol wants to write."""
        return self._inner.eof_received() if self._established else None

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the socket is gone."""
        self._closed = True
        self._timer.cancel()
        self._handshakes.end(self)
        if self._established:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Stop writing: the socket is full."""
        if self._established:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Write again: the socket has room."""
        if self._established:
            self._inner.resume_writing()

    # ---------------------------------------------------------------------------------------- called by the handshakes

    def go_on(self) -> None:
        """Go on with the handshake, with the bytes that came."""
        data, self._waiting = self._waiting, b""
        if self._closed or self._established:
            return
        if self._tls is None:
            self._tls = self._certificates.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
            certificate = self._tls.getpeercert(binary_form=True)
            self._credential = self._certificates.credential(certificate) if certificate else None
        except ssl.SSLWantReadError:
            self._send()
            return
        except (ssl.SSLError, ValueError) as error:
            self._send()
            self._refuse(getattr(error, "verify_message", "") or getattr(error, "reason", None) or str(error))
            return
        self._established = True
        self._timer.cancel()
        self._handshakes.end(self)
        self._send()
        self._inner.connection_made(self)
        if not self._closed and self._incoming.pending:
            self._decrypt(b"")

    # --------------------------------------------------------------------------------------------- called by the inner one

    def write(self, data: Any) -> None:
        """Encrypt and write."""
        if self._closed:
            return
        view, records = memoryview(data), []
        try:
            for start in range(0, len(view), _RECORD):
                self._tls.write(view[start : start + _RECORD])
                records.append(self._outgoing.read())
        except ssl.SSLError:
            self.abort()
            return
        self._raw.write(b"".join(records))

    def writelines(self, list_of_data: Any) -> None:
        """Encrypt and write."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Say goodbye (close_notify), and write no more. What the client still sends is dropped."""
        self._say_goodbye()
        if not self._raw.is_closing():
            self._raw.write_eof()

    def close(self) -> None:
        """Say goodbye, and close once everything is written."""
        self._say_goodbye()
        self._raw.close()

    def abort(self) -> None:
        """Close at once."""
        self._closed = True
        self._raw.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return `credential`, `ssl_object`, or a fact about the socket."""
        if name == "credential":
            return self._credential
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    # ----------------------------------------------------------------------------------------------------------- private

    def _decrypt(self, data: bytes) -> None:
        view = memoryview(data)
        plain: list[bytes] = []
        try:
            for start in range(0, len(view) or 1, _READ_PIECE):
                self._incoming.write(view[start : start + _READ_PIECE])
                count = len(plain)
                self._read_into(plain)
                self._empty_pieces = 0 if len(plain) > count else self._empty_pieces + 1
                if self._empty_pieces > _MAX_EMPTY_PIECES:
                    self._refuse("records without data")
                    return
        except ssl.SSLZeroReturnError:
            self._pass_on(plain)
            self.close()
            return
        except ssl.SSLError as error:
            self._send()
            self._refuse(error.reason or "broken TLS")
            return
        self._send()
        self._pass_on(plain)

    def _read_into(self, plain: list[bytes]) -> None:
        """Read what can be decrypted now."""
        with contextlib.suppress(ssl.SSLWantReadError):
            while chunk := self._tls.read(_READ_PIECE * 4):
                plain.append(chunk)

    def _pass_on(self, plain: list[bytes]) -> None:
        if plain and not self._closed:
            self._inner.data_received(plain[0] if len(plain) == 1 else b"".join(plain))

    def _send(self) -> None:
        """Write what TLS itself has to say."""
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    def _say_goodbye(self) -> None:
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(ssl.SSLError):  # the client has not said goodbye yet, and need not
            self._tls.unwrap()
        self._send()

    def _refuse(self, reason: str) -> None:
        """Close, after the client has got the alert that is written already."""
        self._closed = True
        self._refused(self._address, reason)
        if self._established or self._timer.when() <= asyncio.get_running_loop().time():
            self._raw.abort()
        else:
            self._timer.cancel()
            self._raw.close()
