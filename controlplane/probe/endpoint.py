"""The probe of one address: a TCP connect, or the health check of the version."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any

from controlplane.domain import HealthCheck
from controlplane.http2.frames import ConnectionFault
from controlplane.probe.health_check import failure, greet
from controlplane.probe.targets import Target


async def probe_address(address: str, port: int, target: Target, context: ssl.SSLContext | None) -> str:
    """Return the reason why an IP address does not answer; "" if it answers. The caller limits the time.

    `context` is for the version's TLS. If the version has TLS and no context is given, only the TCP connect is tried.
    """
    version = target.version
    name = version.tls.server_name if version.tls else ""
    # Without both, only the TCP connect is tried.
    can_speak = version.tls is None or context is not None
    check, handshake = (version.health_check, target.handshake) if can_speak else (None, False)
    tls: dict[str, Any] = {"ssl": context, "server_hostname": name or address} if (check or handshake) and context else {}
    try:
        reader, writer = await asyncio.open_connection(address, port, **tls)
    except ssl.SSLCertVerificationError as error:
        return f"TLS: {error.verify_message.rstrip('.')}"
    except OSError as error:
        return _reason(error)
    try:
        if check is not None:
            return await _health_failure(reader, writer, check, target, "https" if context else "http")
        return await _handshake_failure(reader, writer, target) if handshake else ""
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


async def _handshake_failure(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: Target) -> str:
    """Return the reason why an endpoint does not speak the protocol of its version; "" if it does."""
    protocol = target.version.protocol
    try:
        await greet(reader, writer, protocol, target.version.health_host(target.model))
    except (EOFError, OSError, ValueError, ConnectionFault):
        return f"it does not speak {protocol.value}" + (" over TLS" if target.version.tls else " without TLS")
    return ""


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {(error.reason or 'failed').lower().replace('_', ' ')}"
    return os.strerror(error.errno).lower() if error.errno else "can't connect"
