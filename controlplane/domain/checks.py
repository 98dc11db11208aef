"""Checks of single values. Each check returns None, or raises `Error` with the name of the field."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from controlplane.errors import invalid

FULL_SHARE = 10_000  # basis points


def percent_of_traffic(share: int) -> str:
    """Return a share of `FULL_SHARE` basis points as `90%`, `12.5%` or `0.05%`."""
    return f"{share / 100:g}%"


# Minimum and maximum of whole numbers, by field.
BOUNDS: Mapping[str, tuple[int, int]] = {
    "port": (1, 65_535),
    "expected_nodes": (0, 20_000),
    "split": (0, FULL_SHARE),
    "weight": (1, 10_000),
    "basis_points": (1, FULL_SHARE),
    "requests": (1, 1_000_000),
    "max_users": (1, 1_000_000),
    "segment": (1, 16),
    "max_body_bytes": (64 << 10, 1 << 30),
    "attempts": (0, 10),
    "request_body_buffer_limit": (1, 2**30),
    "max_request_bytes": (1, 2**30),
    "healthy_threshold": (1, 100),
    "unhealthy_threshold": (1, 100),
    "consecutive_failures": (1, 10_000),
    "max_ejection_percent": (1, 100),
    "max_connections": (1, 2**31 - 1),
    "max_pending_requests": (1, 2**31 - 1),
    "max_requests": (1, 2**31 - 1),
    "max_retries": (0, 2**31 - 1),
}

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*\.?", re.I)
# RFC 9110, section 5.5, without obs-text and tabs.
_HEADER_VALUE = re.compile(r"[!-~]([ -~]{0,4094}[!-~])?")
HEADER = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,100}")

# Names as Hugging Face and Ollama write them: `meta-llama/Llama-3.1-8B-Instruct`, `llama3.1:8b`. A name is one line of ASCII.
MODEL_NAME = re.compile(r"[A-Za-z0-9._~@+:/-]{1,253}")

# Headers that belong to the request itself, or to the connection. None of them can name a model, a user or a version.
_RESERVED_HEADERS = frozenset({"host", "connection", "content-length", "transfer-encoding", "te", "upgrade"})

# Headers of responses that mean something to clients, proxies or Envoy. None of them can say who answered.
_RESPONSE_HEADER = re.compile(
    r"""
      accept-ranges | age | allow | alt-svc | cache-control | content-.+ | date | etag | expires | keep-alive | last-modified
    | link | location | pragma | refresh | retry-after | server | set-cookie | strict-transport-security | trailer | vary | via
    | traceparent | tracestate | warning | (proxy|www)-authenticate | proxy-connection | x-content-type-options
    | x-frame-options | x-request-id | (access-control|grpc|sec-websocket)-.+
    """,
    re.X,
)


def check_label(value: str, name: str = "name") -> None:
    """Check that a value is a DNS label (RFC 1123)."""
    if not _LABEL.fullmatch(value):
        problem = f"'{value[:80]}' is not a DNS label" if value else "is required"
        raise invalid(name, f"{problem}: 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends")


def check_port(value: int, name: str = "port") -> None:
    """Check that a value is a TCP port."""
    if not BOUNDS["port"][0] <= value <= BOUNDS["port"][1]:
        raise invalid(name, f"{value} is not a port: 1 to 65535")


def check_header(value: str, name: str) -> None:
    """Check that a value is the lower-case name of an ordinary request header."""
    if not value:
        raise invalid(name, "is required")
    if value != value.lower():
        raise invalid(name, f"'{value[:80]}' must be in lower case: '{value[:80].lower()}'")
    if not HEADER.fullmatch(value) or value in _RESERVED_HEADERS or value.startswith(("x-envoy-", "x-turnout-")):
        raise invalid(name, f"'{value[:80]}' can't be used as the name of a header here")


def check_response_header(value: str, name: str) -> None:
    """Check that a value is the lower-case name of a response header that means nothing else to anybody."""
    check_header(value, name)
    if _RESPONSE_HEADER.fullmatch(value):
        raise invalid(name, f"'{value[:80]}' has a meaning in responses already: choose another name, like x-answered-by")


def check_model_name(value: str, name: str) -> None:
    """Check that a value can be the name by which a request names a model."""
    if not MODEL_NAME.fullmatch(value):
        raise invalid(name, f"'{value[:80]}' is not the name of a model: 1 to 253 letters, digits or any of . _ ~ @ + : / -")


def check_range(value: float, low: float, high: float, name: str, unit: str = "") -> None:
    """Check that a number is from `low` to `high`. The error text names both."""
    if not low <= value <= high:
        value_text, low_text, high_text = (f"{_text(number)}{unit}" for number in (value, low, high))
        raise invalid(name, f"{value_text} is out of range: {low_text} to {high_text}")


def _text(number: float) -> str:
    """Return a number in full, as people write it: `415,576,000,000`, `0.1`."""
    return f"{number:,.9f}".rstrip("0").rstrip(".") if number % 1 else f"{int(number):,}"


def check_bounds(noun: object, *names: str) -> None:
    """Check that fields of a noun are within `BOUNDS`. The error names the first field that is not."""
    for name in names:
        check_range(getattr(noun, name), *BOUNDS[name], name)


def check_distinct(values: Iterable[str], name: str) -> None:
    """Check that no value occurs twice. The error names the index of the second occurrence."""
    seen: set[str] = set()
    for i, value in enumerate(values):
        if value in seen:
            raise invalid(f"{name}[{i}]", f"'{value}' is named twice", "DUPLICATE")
        seen.add(value)


def host_port(host: str, port: int) -> str:
    """Return `10.0.0.5:80`, `model.example:80` or `[::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_ip(host: str) -> bool:
    """Return True for an IP address, False for a DNS name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def check_header_value(value: str, name: str) -> None:
    """Check that a value can be the value of a header: visible ASCII characters, with spaces between them."""
    if not value:
        raise invalid(name, "is empty: name the header under `remove` instead")
    if not _HEADER_VALUE.fullmatch(value):
        raise invalid(name, "is not the value of a header: 1 to 4,096 visible ASCII characters, with spaces between them")


def check_authority(value: str, name: str) -> None:
    """Check that a value is a host as in the Host header: a DNS name or an IP address, with or without a port."""
    host, colon, port = value.rpartition(":") if re.search(r":\d+$", value) and not is_ip(value) else (value, "", "")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bracketed = inner != host
    is_host = is_ip(inner) and (":" in inner) == bracketed if bracketed or is_ip(inner) else bool(HOST.fullmatch(inner))
    if not is_host or (colon and not BOUNDS["port"][0] <= int(port) <= BOUNDS["port"][1]):
        raise invalid(name, f"'{value[:80]}' is not a host, like model.example or model.example:8080")


def check_path(value: str, name: str) -> None:
    """Check that a value is the start of a URL's path."""
    if not value:
        raise invalid(name, "is required")
    if not re.fullmatch(r"/[!-\"$->@-~]{0,1023}", value):
        raise invalid(name, f"'{value[:80]}' is not a path: it starts with '/', and has no spaces, '?' or '#'")
