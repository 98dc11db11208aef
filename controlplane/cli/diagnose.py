"""Causes of an address that does not answer as an operator API. Each is an error of its own, and says what to do.

| reason | cause |
|---|---|
| UNKNOWN_HOST | the name has no address |
| CONNECTION_REFUSED | nothing listens on the port |
| UNREACHABLE | the host does not answer |
| NOT_GRPC | something else listens: a web server, the metrics port |
| TLS | the server expects TLS, or does not; the certificate of one side is not accepted |
| UNAVAILABLE | a gRPC server ended the call: it starts, stops, or a proxy in between has no server |
| WRONG_PORT | a gRPC server without the operator API: the xDS port, another program, an older Turnout |
"""

from __future__ import annotations

import socket
import ssl

from controlplane.errors import Code, Error, shortened

# Seconds for one connection, and for its first bytes.
_TIMEOUT = 2.0
# An HTTP/1 server answers this. A gRPC server sends its HTTP/2 SETTINGS, or ends the connection.
_QUESTION = b"GET /metrics HTTP/1.0\r\n\r\n"
# The type of a SETTINGS frame, and where it is in a frame's header.
_SETTINGS, _TYPE = 4, 3
_TLS_RECORDS = (b"\x15\x03", b"\x16\x03")
_METRIC = b"turnout_"
# Part of the answer of Turnout's xDS port to a call of the operator API.
XDS_PORT = "this is the xDS port"
_REQUIRED = "CERTIFICATE_REQUIRED"
# By words of gRPC and BoringSSL: the problem of a handshake, and what to do.
_TLS_PROBLEMS = {
    "WRONG_VERSION_NUMBER": "the server does not use TLS here: leave --ca and TURNOUT_CA out, or check the address",
    "Hostname Verification Check failed": "the server's certificate is for another name: call it by a name that is in it",
    "CERTIFICATE_VERIFY_FAILED": "no authority of --ca (TURNOUT_CA) has signed the server's certificate, or it has expired",
    _REQUIRED: "the server asks for a client certificate that its authorities have signed: give --cert and --key "
    "(TURNOUT_CERT, TURNOUT_KEY)",
    "UNKNOWN_CA": "no authority of the server has signed the client's certificate (--cert)",
    "CERTIFICATE_EXPIRED": "the client's certificate (--cert) has expired",
}
_ADVICE = "give the address of the API with --api HOST:PORT or TURNOUT_API"


def no_answer(address: str, details: str, *, tls: bool = False) -> Error:
    """Return the error of a server that can't be reached. Connect to it once to find the cause.

    `details` are gRPC's words. `tls` says that the client used TLS.
    """
    if tls and (error := _tls_error(address, details)):
        return error
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _TIMEOUT) as connection:
            first = _first_bytes(connection)
    except socket.gaierror:
        return _error("UNKNOWN_HOST", f"the host of {address} has no address: check its name, or {_ADVICE}")
    except ConnectionRefusedError:
        return _error(
            "CONNECTION_REFUSED",
            f"nothing listens at {address}\n{_ADVICE}, or start a server with `turnout serve`",
        )
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or str(error) or "no answer"
        return _error("UNREACHABLE", f"{address} can't be reached: {cause.lower()}\ncheck the network, or {_ADVICE}")
    if first is None:
        return _error("NOT_GRPC", f"{address} accepts connections and sends nothing, so it is no gRPC server\n{_ADVICE}")
    if first.startswith(b"HTTP/1"):
        server = "Turnout's metrics port" if _METRIC in first else "a web server"
        return _error("NOT_GRPC", f"{address} is {server}, not an operator API\n{_ADVICE}; the default port is 18080")
    if not first and (alert := _tls_alert(host.strip("[]"), int(port))) is not None:
        if not tls:
            first = _TLS_RECORDS[0]
        elif refused := _tls_error(address, alert):
            return refused
    if first.startswith(_TLS_RECORDS):
        return _error("TLS", f"{address} expects TLS: give the file of its authorities with --ca or TURNOUT_CA, or {_ADVICE}")
    if first[_TYPE : _TYPE + 1] == bytes([_SETTINGS]) or not first:
        text = f": {shortened(details, 200)}" if details else ""
        return _error("UNAVAILABLE", f"{address} ended the call{text}\nif it is just starting or stopping, repeat the command")
    return _error("NOT_GRPC", f"{address} does not speak gRPC\n{_ADVICE}; the default port is 18080")


def _tls_alert(host: str, port: int) -> str | None:
    """Return the alert of a TLS server for a client without a certificate, "" if it accepts such clients; None without TLS.

    gRPC's server sends no alert and ends the connection. Nothing is sent over it, so it does not matter who the server is.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host, port), _TIMEOUT) as connection, context.wrap_socket(connection) as encrypted:
            try:
                return "" if encrypted.recv(1) else _REQUIRED
            except ssl.SSLError as error:
                return error.reason or ""
            except OSError:
                return ""
    except (OSError, ValueError):
        return None


def _tls_error(address: str, details: str) -> Error | None:
    """Return the error of a handshake that failed, from gRPC's words; None for something else."""
    for words, problem in _TLS_PROBLEMS.items():
        if words in details:
            return _error("TLS", f"{address}: {problem}")
    return None


def wrong_port(address: str, details: str) -> Error:
    """Return the error of a gRPC server that does not have the method. `details` are its words."""
    known = "the port for Envoys" if XDS_PORT in details else "a gRPC server"
    return _error(
        "WRONG_PORT",
        f"{address} is {known}, without this method of Turnout's operator API\n"
        f"{_ADVICE}; the default port is 18080. An older version of Turnout does not have every method: `turnout version`",
    )


def _first_bytes(connection: socket.socket) -> bytes | None:
    """Return the first bytes that a server sends: empty if it closes the connection, None if it sends none in time."""
    connection.settimeout(_TIMEOUT)
    received = b""
    try:
        connection.sendall(_QUESTION)
        while data := connection.recv(4096):
            received += data
            if _METRIC in received or len(received) > 2**16 or not received.startswith(b"HTTP/1"):
                break
    except TimeoutError:
        return received or None
    except OSError:
        pass
    return received


def _error(reason: str, message: str) -> Error:
    return Error(Code.UNAVAILABLE, reason, message)
