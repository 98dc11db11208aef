"""The security of a whole server: settings, TLS, tokens, certificates and rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from controlplane.access.tokens import hashed
from controlplane.app import App
from controlplane.config import Address, Config
from controlplane.errors import Error
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.generated.turnout.v1.model_service_pb2_grpc import ModelServiceStub
from tests import pki
from tests.api.api import refused

TOKEN = "turnout_" + "a" * 43
RULES = "rules:\n- {who: ['token:ci', 'certificate:ci.test'], role: viewer}\n"
LOCAL = Address("127.0.0.1", 0)
REQUEST = mpb.ListModelsRequest()


def settings(folder: Path, *, tokens: bool = True, tls: bool = False, client_ca: bool = False, **more: Any) -> Config:
    """Write the files of a server, and return its settings."""
    (folder / "access.yaml").write_text(RULES)
    (folder / "tokens.yaml").write_text(f"tokens:\n- {{name: ci, sha256: {hashed(TOKEN)}}}\n")
    (folder / "ca.pem").write_text(pki.authority().certificate)
    cert, key = pki.authority().pair("127.0.0.1").files(folder, "api")
    return Config(
        **{
            "data": folder / "data",
            "api": LOCAL,
            "xds": LOCAL,
            "metrics": None,
            "grace": 0.1,
            "access": folder / "access.yaml",
            "api_tokens": folder / "tokens.yaml" if tokens else None,
            "api_tls_cert": Path(cert) if tls else None,
            "api_tls_key": Path(key) if tls else None,
            "api_client_ca": folder / "ca.pem" if client_ca else None,
            **more,
        }
    )


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[App]:
    app = App(config)
    await app.start()
    try:
        yield app
    finally:
        await app.stop(0)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


async def test_a_token_over_tls_and_none_over_plain_text(tmp_path: Path) -> None:
    async with running(settings(tmp_path, tls=True)) as app:
        credentials = grpc.ssl_channel_credentials(pki.authority().certificate.encode())
        async with grpc.aio.secure_channel(f"127.0.0.1:{app.api_port}", credentials) as channel:
            models: Any = ModelServiceStub(channel)
            assert await models.ListModels(REQUEST, metadata=bearer(TOKEN))
            assert (await refused(models.ListModels(REQUEST))).reason == "NO_CREDENTIAL"
            assert (await refused(models.ListModels(REQUEST, metadata=bearer(TOKEN[:-1] + "b")))).reason == "UNKNOWN_TOKEN"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
            plain: Any = ModelServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await plain.ListModels(REQUEST, metadata=bearer(TOKEN), timeout=5)
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_client_certificate(tmp_path: Path) -> None:
    async with running(settings(tmp_path, tokens=False, tls=True, client_ca=True)) as app:
        for name, reason in (("ci.test", ""), ("other.test", "NEEDS_ROLE")):
            pair = pki.authority().pair(name)
            credentials = grpc.ssl_channel_credentials(
                pki.authority().certificate.encode(), pair.key.encode(), pair.certificate.encode()
            )
            async with grpc.aio.secure_channel(f"127.0.0.1:{app.api_port}", credentials) as channel:
                models: Any = ModelServiceStub(channel)
                if reason:
                    refusal = await refused(models.ListModels(REQUEST))
                    assert (refusal.reason, refusal.message) == (reason, f"needs viewer; certificate:{name} has no role")
                else:
                    assert await models.ListModels(REQUEST)


async def test_an_access_file_without_any_credential_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Error, match="no credential can be checked: give --api-tokens or --api-client-ca, or write `oidc`"):
        await App(settings(tmp_path, tokens=False)).start()


async def test_a_provider_in_the_access_file_is_a_credential(tmp_path: Path) -> None:
    config = settings(tmp_path, tokens=False)
    (tmp_path / "access.yaml").write_text("oidc: {issuer: http://127.0.0.1:1/none, audience: turnout}\n" + RULES)
    async with running(config) as app, grpc.aio.insecure_channel(f"127.0.0.1:{app.api_port}") as channel:
        models: Any = ModelServiceStub(channel)
        assert (await refused(models.ListModels(REQUEST, metadata=bearer("a.b.c")))).reason == "BAD_TOKEN"


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"access": None}, "api_tokens: says who a caller is, and --access is missing"),
        ({"api_tls_cert": Path("c")}, "api_tls_cert: TLS on the API's port needs also --api-tls-key"),
        ({"api_tls_key": Path("k")}, "api_tls_key: TLS on the API's port needs also --api-tls-cert"),
        ({"api_client_ca": Path("c")}, "api_client_ca: needs also --api-tls-cert and --api-tls-key"),
        ({"api": Address("0.0.0.0", 0)}, "access: tokens would be sent to 0.0.0.0:0 in the clear"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, wrong: dict[str, Any], problem: str) -> None:
    with pytest.raises(Error, match=problem):
        settings(tmp_path, **wrong)
