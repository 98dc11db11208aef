"""The status that ends a gRPC call, and its form in trailers (gRPC over HTTP2: Status, Status-Message, Status-Details)."""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass
from urllib.parse import quote

from controlplane.http2.headers import Headers

# Printable ASCII except "%" may stand in a Status-Message. Other bytes of the UTF-8 text are percent-encoded.
_SAFE = " !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class StatusCode(enum.IntEnum):
    """gRPC's status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """The status that ends a call."""

    code: StatusCode
    # One sentence for people; "" for OK.
    message: str = ""
    # A serialised google.rpc.Status; b"" for none.
    details: bytes = b""


OK = Status(StatusCode.OK)


class StatusError(Exception):
    """Ends a call with a status other than OK."""

    def __init__(self, code: StatusCode, message: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.status = Status(code, message, details)


def trailers(status: Status) -> Headers:
    """Return the trailers that end a call with this status."""
    fields: Headers = (("grpc-status", str(int(status.code))),)
    if status.code is StatusCode.OK:
        return fields
    fields += (("grpc-message", percent_encoded(status.message)),)
    if status.details:
        fields += (("grpc-status-details-bin", base64.b64encode(status.details).rstrip(b"=").decode()),)
    return fields


def percent_encoded(text: str) -> str:
    """Return the text in the encoding of a `grpc-message` field, which may not begin or end with a space."""
    return quote(text.strip(" "), safe=_SAFE)
