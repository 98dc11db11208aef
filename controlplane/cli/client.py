"""A client of the operator API: it sends the author, retries safely, and raises `Error` for failed calls."""

from __future__ import annotations

import getpass
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from threading import Event, Thread
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from controlplane.cli.credentials import Credentials
from controlplane.cli.diagnose import no_answer, wrong_port
from controlplane.errors import Code, Error, Violation
from controlplane.generated.turnout.v1.model_service_pb2_grpc import ModelServiceStub
from controlplane.generated.turnout.v1.node_service_pb2_grpc import NodeServiceStub
from controlplane.generated.turnout.v1.revision_service_pb2_grpc import RevisionServiceStub
from controlplane.generated.turnout.v1.status_service_pb2_grpc import StatusServiceStub
from controlplane.generated.turnout.v1.traffic_service_pb2_grpc import TrafficServiceStub

DEFAULT_API = "127.0.0.1:18080"
NO_CREDENTIALS = Credentials()
# Seconds that one call may take. Compiling thousands of models takes a few.
CALL_TIMEOUT = 60.0
# Seconds between attempts when the server does not answer.
_RETRY_EVERY = 0.3
_MAX_MESSAGE = 256 * 2**20
_MAX_AUTHOR = 200
# Milliseconds between two checks whether the watched call has ended.
_POLL_TIMEOUT = 500

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_CODES = {
    grpc.StatusCode.CANCELLED: Code.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: Code.UNAVAILABLE,
    grpc.StatusCode.OUT_OF_RANGE: Code.INVALID_ARGUMENT,
}


def default_author() -> str:
    """Return `$TURNOUT_AUTHOR`, or user@host."""
    if author := os.environ.get("TURNOUT_AUTHOR"):
        return author
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _author_metadata(author: str) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata that names the author: in ASCII, and if needed also in UTF-8, which gRPC allows in `-bin` keys.

    A name that is too long is cut to one character more than the server allows, so that the server refuses it.
    """
    printable = "".join(c for c in author if c.isprintable())[: _MAX_AUTHOR + 1]
    if printable.isascii():
        return (("x-turnout-author", printable),)
    plain = printable.encode("ascii", "backslashreplace").decode()[:_MAX_AUTHOR]
    return (("x-turnout-author", plain), ("x-turnout-author-bin", printable.encode()))


def _watch_reader(answers: Any, ended: Event, unread: Event) -> None:
    """Cancel a call when the reader of stdout is gone. Without updates, no write would fail and the call would never end."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)  # poll reports errors without being asked to
    except (OSError, ValueError):
        return  # stdout is not a file
    while not ended.is_set():
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(_POLL_TIMEOUT)):
            unread.set()
            answers.cancel()
            return


class Client:
    """A connection to the operator API. Calls block."""

    def __init__(
        self,
        address: str,
        *,
        retry_for: float,
        notice: Callable[[str], None],
        call_timeout: float = CALL_TIMEOUT,
        credentials: Credentials = NO_CREDENTIALS,
    ) -> None:
        """Make a client, which connects at its first call. Errors: those of `Credentials.channel`."""
        self.address = address
        # Seconds for which calls to an unreachable server are repeated.
        self.retry_for = retry_for
        self._call_timeout = call_timeout
        self._notice = notice
        self._author_metadata = _author_metadata(default_author())
        self._credentials = credentials
        self._channel = credentials.channel(
            address,
            [
                ("grpc.initial_reconnect_backoff_ms", 200),
                # Also the time limit of one attempt to connect, so a busy machine needs more than the first backoff.
                ("grpc.min_reconnect_backoff_ms", 2000),
                ("grpc.max_reconnect_backoff_ms", 1000),
                # A watch on a host that went away without a reset ends after 30 s.
                ("grpc.keepalive_time_ms", 20_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.enable_http_proxy", 0),
                ("grpc.max_receive_message_length", _MAX_MESSAGE),
                ("grpc.max_send_message_length", _MAX_MESSAGE),
            ],
        )
        self.models = ModelServiceStub(self._channel)
        self.nodes = NodeServiceStub(self._channel)
        self.revisions = RevisionServiceStub(self._channel)
        self.status = StatusServiceStub(self._channel)
        self.traffic = TrafficServiceStub(self._channel)

    @property
    def _metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """The metadata of a call: the author, and the token as it is now."""
        return (*self._author_metadata, *self._credentials.metadata(self.address))

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def service(self, noun: str, stub: str) -> Any:
        """Return a stub of the service of a noun, which is defined in `NOUN_service.proto`."""
        module = import_module(f"controlplane.generated.turnout.v1.{noun}_service_pb2_grpc")
        return getattr(module, stub)(self._channel)

    def call(self, rpc: grpc.UnaryUnaryMultiCallable[_Request, _Response], request: _Request) -> _Response:
        """Return the answer to one call, repeated while the server is unreachable.

        A mutation has a request id, so the server makes it only once. Errors: Error.
        """
        deadline = time.monotonic() + self.retry_for
        noticed = False
        while True:
            try:
                return rpc(request, timeout=self._call_timeout, metadata=self._metadata)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() >= deadline:
                    raise self.error(error) from None
            if not noticed:
                self._notice(f"{self.address} does not answer; retrying for {self.retry_for:g} s …")
                noticed = True
            time.sleep(min(_RETRY_EVERY, max(0.0, deadline - time.monotonic())))

    def stream(
        self, rpc: grpc.UnaryStreamMultiCallable[_Request, _Response], request: _Request, timeout: float | None = None
    ) -> Iterator[_Response]:
        """Yield the answers of a stream for `timeout` seconds, or without it until the reader of stdout is gone.

        Errors: TimeoutError after `timeout` seconds; BrokenPipeError when the reader is gone; Error when the stream fails.
        """
        answers = rpc(request, timeout=timeout, metadata=self._metadata)
        ended, unread = Event(), Event()
        if timeout is None:
            Thread(target=_watch_reader, args=(answers, ended, unread), daemon=True).start()
        try:
            yield from answers
        except grpc.RpcError as error:
            if unread.is_set():
                raise BrokenPipeError from None
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError from None
            raise self.error(error) from None
        finally:
            ended.set()
            answers.cancel()  # type: ignore[no-untyped-call]

    def error(self, error: Any) -> Error:
        """Return the Error of a failed call. It has the details of google.rpc.Status if the server sent them."""
        code = error.code()
        try:
            status = rpc_status.from_call(error)
        except ValueError:
            status = None
        details = str(error.details() or "")
        if status is None and code is grpc.StatusCode.UNAVAILABLE:
            return no_answer(self.address, details, tls=bool(self._credentials.ca))
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return Error(Code.UNAVAILABLE, "NO_ANSWER", f"{self.address} did not answer within {self._call_timeout:g} s")
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return wrong_port(self.address, details)
        mapped = _CODES.get(code) or (Code[code.name] if code.name in Code.__members__ else Code.INTERNAL)
        return _from_status(mapped, details or code.name, status)


def _from_status(code: Code, message: str, status: Any) -> Error:
    reason, metadata = code.name, {}
    violations: list[Violation] = []
    for detail in status.details if status is not None else ():
        info, bad, failure = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.PreconditionFailure(),
        )
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations += [Violation(v.field, v.description) for v in bad.field_violations]
        elif detail.Unpack(failure):
            violations += [Violation(v.subject, v.description) for v in failure.violations]
    return Error(code, reason, message, violations=tuple(violations), metadata=metadata)
