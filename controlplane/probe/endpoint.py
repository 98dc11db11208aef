"""The probe of one address: a TCP connect, or the health check of the version."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from controlplane.domain import HealthCheck
from controlplane.http2.frames import ConnectionFault
from controlplane.probe.health_check import failure
from controlplane.probe.targets import Target


async def probe_address(address: str, port: int, target: Target, context: ssl.SSLContext | None) -> str:
    """Return the reason why an IP address does not answer; "" if it answers. The caller limits the time.

    `context` is for the version's TLS. If the version has TLS and no context is given, only the TCP connect is tried.
    """
    version = target.version
    name = version.tls.server_name if version.tls else ""
    # None: only the TCP connect is tried.
    check = version.health_check if version.tls is None or context is not None else None
    tls: dict[str, Any] = {"ssl": context, "server_hostname": name or address} if check and context else {}
    try:
        reader, writer = await asyncio.open_connection(address, port, **tls)
    except ssl.SSLCertVerificationError as error:
        return f"TLS: {error.verify_message.rstrip('.')}"
    except OSError as error:
        return _reason(error)
    try:
        return "" if check is None else await _health_failure(reader, writer, check, target, "https" if context else "http")
    finally:
        writer.transport.abort()


async def _health_failure(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, check: HealthCheck, target: Target, scheme: str
) -> str:
    """Return what is wrong with the answer to a health check; "" if it passes."""
    version = target.version
    host = version.health_host(target.model)
    headers = tuple(version.request_headers.set.items()) if version.request_headers else ()
    try:
        async with asyncio.timeout(check.timeout):
            return await failure(reader, writer, check, version.protocol, host, scheme, headers)
    except TimeoutError:
        return f"health check: no answer within {check.timeout:g} s"
    except (EOFError, ConnectionError):
        return "health check: the connection was closed"
    except OSError as error:
        return f"health check: {_reason(error)}"
    except (ValueError, ConnectionFault):
        # The text of a malformed answer is not shown.
        return f"health check: the answer is not {version.protocol.value}"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').lower().replace('_', ' ')}"
    return os.strerror(error.errno).lower() if error.errno else "can't connect"
