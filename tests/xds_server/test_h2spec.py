"""h2spec against the real xDS server, plain and over TLS.

It sends GET for `/`, which an xDS server refuses before the request is complete, so later frames are for a closed stream.
The cases of `_NOT_TRIED` can't work then. `tests/http2/test_h2spec.py` runs all of them against the protocol alone.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from controlplane.http2.peer import Credential
from controlplane.store import Store
from controlplane.xds_server.limits import StreamLimits
from controlplane.xds_server.transports import http2_server, listening
from tests.http2.conformance import build, under_pages, verdict
from tests.pki import Authority
from tests.xds_server.rig import running
from tests.xds_server.rig import store as _store

store = _store

# GET is answered with 405 at its HEADERS, and the stream is closed on both sides. A client may still send frames on it, and
# they are ignored (RFC 9113, section 5.1, "closed").
_NO_BODY = "waits for DATA, and a refusal has none"
_NEVER_MANY = "no stream stays open, so there are never too many"
_CLOSED = "a fault on a stream that is already closed"
_NOT_TRIED = {
    "generic/2/2": _NO_BODY,  # WINDOW_UPDATE on a half-closed stream
    "generic/2/3": _NO_BODY,  # PRIORITY on a half-closed stream
    "http2/5.1.2/1": _NEVER_MANY,
    "http2/6.9/2": _CLOSED,  # a WINDOW_UPDATE of 0
    "http2/6.9.1/3": _CLOSED,  # a window above 2^31-1
    "http2/8.1/1": _CLOSED,  # a second HEADERS without END_STREAM
    "http2/8.1.2.6/1": _CLOSED,  # content-length that is not the length
    "http2/8.1.2.6/2": _CLOSED,
}

# Cases that h2spec itself skips when a response has no body to cut to a window.
_WITHOUT_BODY = 4


class ServerOnly:
    """TLS without certificates of clients: h2spec has none."""

    def __init__(self, certificate: str, key: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        self.context.set_alpn_protocols(["h2"])

    def credential(self, certificate: bytes) -> Credential:
        raise ValueError(certificate)


@pytest.fixture(scope="module")
def h2spec() -> Path:
    return build()


async def test_the_xds_server_plain_and_over_tls(h2spec: Path, store: Store, tmp_path: Path) -> None:
    cases = (await under_pages(h2spec, tmp_path)).cases
    assert set(_NOT_TRIED) < set(cases)
    tried = [case for case in cases if case not in _NOT_TRIED]
    certificates = ServerOnly(*Authority().pair("127.0.0.1").files(tmp_path, "server"))
    async with running(store) as rig:
        secure = http2_server(rig.discovery, StreamLimits())
        await secure.start(listening("127.0.0.1", 0), certificates)
        try:
            plain = await verdict(h2spec, rig.port, tmp_path / "plain.xml", *tried)
            over_tls = await verdict(h2spec, secure.port, tmp_path / "tls.xml", "--tls", "--insecure", *tried)
        finally:
            await secure.stop(0)
    for result in plain, over_tls:
        assert (len(result.cases), result.failures) == (len(tried), {})
        assert len(result.skipped) <= _WITHOUT_BODY
