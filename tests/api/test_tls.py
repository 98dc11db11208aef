"""TLS on the API's port: the certificate and the authorities follow their files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.api.tls import ApiTls, ApiTlsPaths, api_tls, server_credentials
from controlplane.errors import Error
from tests import pki


def paths(folder: Path, authority: pki.Authority, client_ca: bool = False) -> ApiTlsPaths:
    """Write a new certificate of an authority for this host."""
    cert, key = authority.pair("localhost", "127.0.0.1").files(folder, "api")
    (folder / "ca.pem").write_text(authority.certificate)
    return ApiTlsPaths(Path(cert), Path(key), folder / "ca.pem" if client_ca else None)


@asynccontextmanager
async def serving(files: ApiTls) -> AsyncIterator[int]:
    """Serve one method over TLS, and return the port."""

    async def name(request: bytes, context: Any) -> bytes:
        return b"".join(context.auth_context().get("x509_subject_alternative_name", []))

    server = grpc.aio.server()
    methods = {"Name": grpc.unary_unary_rpc_method_handler(name)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("x", methods),))
    port = server.add_secure_port("127.0.0.1:0", server_credentials(files))
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


async def call(port: int, authority: pki.Authority, client: pki.Pair | None = None) -> str:
    """Return the name in the client's certificate, or the code of the error."""
    pair = (client.key.encode(), client.certificate.encode()) if client else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate.encode(), *pair)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials) as channel:
        try:
            answer: bytes = await channel.unary_unary("/x/Name")(b"", timeout=10)  # type: ignore[call-arg]
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return answer.decode()


async def test_the_next_handshake_uses_the_newest_certificate(tmp_path: Path) -> None:
    old, new = pki.Authority("old"), pki.Authority("new")
    files = api_tls(paths(tmp_path, old))
    async with serving(files) as port:
        assert [await call(port, old), await call(port, new)] == ["", "UNAVAILABLE"]
        paths(tmp_path, new)
        assert files.refresh()
        assert [await call(port, old), await call(port, new)] == ["UNAVAILABLE", ""]
        # Half of a pair changes nothing.
        new.pair("localhost").files(tmp_path, "other")
        (tmp_path / "api.key").write_text((tmp_path / "other.key").read_text())
        assert not files.refresh()
        assert await call(port, new) == ""


async def test_clients_need_a_certificate_of_the_authorities(tmp_path: Path) -> None:
    mine, other = pki.Authority("mine"), pki.Authority("other")
    files = api_tls(paths(tmp_path, mine, client_ca=True))
    async with serving(files) as port:
        client = mine.pair("ci.test")
        assert await call(port, mine, client) == "ci.test"
        assert await call(port, mine) == "UNAVAILABLE"
        assert await call(port, mine, other.pair("ci.test")) == "UNAVAILABLE"
        # An authority is dropped, and another one comes.
        (tmp_path / "ca.pem").write_text(other.certificate)
        assert files.refresh()
        assert await call(port, mine, client) == "UNAVAILABLE"
        assert await call(port, mine, other.pair("ci.test")) == "ci.test"


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("api.pem", "", "api_tls_cert: .*/api.pem has no certificates in PEM"),
        ("api.pem", "-----BEGIN CERTIFICATE-----\nMII", "api_tls_cert: .*/api.pem is cut off"),
        ("api.key", "x", "api_tls_key: .*/api.key and .*/api.pem are no pair of key and certificate"),
        ("ca.pem", "x", "api_client_ca: .*/ca.pem has no certificates in PEM"),
        ("ca.pem", None, "api_client_ca: .*/ca.pem can't be read: no such file or directory"),
    ],
)
def test_files_that_can_not_be_used_are_named(tmp_path: Path, file: str, content: str | None, problem: str) -> None:
    used = paths(tmp_path, pki.authority(), client_ca=True)
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_text(content)
    with pytest.raises(Error, match=problem):
        api_tls(used)
