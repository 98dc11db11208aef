"""The watched files of TLS: what is taken over, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from structlog.testing import capture_logs

from controlplane.errors import Error
from controlplane.xds.events import Identified
from controlplane.xds_server.tls_files import TlsFiles, TlsPaths, read_certificate
from tests.pki import Authority, Pair, authority

RULES = "identities: [{match: '{name}', ids: '{name}', clusters: '*', metadata: {'*': '*'}}]"


def write(directory: Path, server: Pair, *authorities: Authority, rules: str = RULES, crl: bytes | None = None) -> TlsPaths:
    """Write the files, each in one step."""

    def put(name: str, content: str | bytes) -> Path:
        new = directory / f"{name}.new"
        new.write_bytes(content.encode() if isinstance(content, str) else content)
        return new.rename(directory / name)

    return TlsPaths(
        put("cert.pem", server.certificate),
        put("key.pem", server.key),
        put("ca.pem", "".join(a.certificate for a in authorities)),
        put("identities.yaml", rules),
        None if crl is None else put("crl.pem", crl),
    )


def encrypted() -> str:
    """Return a private key with a passphrase."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")).decode()


def certificate(pair: Pair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate.encode())


def test_new_files_are_taken_over_together(tmp_path: Path) -> None:
    old, new = Authority("old"), Authority("new")
    tls = TlsFiles(write(tmp_path, old.pair("localhost"), old))
    first = tls.context
    assert not tls.refresh()
    write(tmp_path, new.pair("localhost"), old, new)
    assert tls.refresh()
    assert tls.generation == 2
    assert tls.context is not first
    assert len(tls.context.get_ca_certs()) == 2
    write(tmp_path, new.pair("localhost"), new)
    assert tls.refresh()
    assert len(tls.context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / "cert.pem").write_text((d / "cert.pem").read_text()[:-40]), "is cut off"),
        (lambda d: (d / "ca.pem").write_text((d / "ca.pem").read_text()[:300]), "is cut off"),
        (lambda d: (d / "ca.pem").write_text(""), "has no CERTIFICATE"),
        (lambda d: (d / "key.pem").write_text(Authority().pair("a").key), "is not the key of the certificate in"),
        (lambda d: (d / "key.pem").write_text("x"), "has no private key in PEM"),
        (lambda d: (d / "key.pem").write_text(encrypted()), "is encrypted"),
        (
            lambda d: (d / "cert.pem").write_text(authority().pair("a", lifetime=-timedelta(minutes=1)).certificate),
            "has expired, on",
        ),
        (lambda d: (d / "key.pem").unlink(), "can't be read"),
        (lambda d: (d / "identities.yaml").write_text("identities: ["), "is not YAML"),
        (lambda d: (d / "identities.yaml").write_text("identities: [{}]"), "must be a rule"),
        (lambda d: (d / "crl.pem").write_bytes(Authority("stranger").crl()), "no authority"),
        (lambda d: (d / "crl.pem").write_bytes((d / "crl.pem").read_bytes()[:50]), "is cut off"),
    ],
)
def test_a_bad_file_changes_nothing_and_is_reported(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    authority = Authority()
    files = write(tmp_path, authority.pair("localhost"), authority, crl=authority.crl())
    tls = TlsFiles(files)
    loaded = tls.loaded
    damage(tmp_path)
    with capture_logs() as lines:
        assert not tls.refresh()
        assert not tls.refresh()  # reported once
    assert tls.loaded is loaded
    (line,) = lines
    assert message in line["error"]
    assert str(tmp_path) in line["error"]
    with pytest.raises(Error, match=str(tmp_path)):
        TlsFiles(files)


def test_the_end_of_the_servers_certificate_is_logged_once(tmp_path: Path) -> None:
    authority = Authority()
    tls = TlsFiles(write(tmp_path, authority.pair("localhost"), authority))
    start, end = tls.loaded.validity
    with capture_logs() as lines:
        tls.warn_of_end(start + 0.8 * (end - start))
        for now in (start + 0.95 * (end - start), end + 1):
            tls.warn_of_end(now)
    assert [(line["log_level"], line["file"]) for line in lines] == [("warning", str(tmp_path / "cert.pem"))]


def test_an_identity_is_the_spiffe_id_or_the_first_name(tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.pair("a.example", "spiffe://td/a", lifetime=timedelta(hours=1))
    credential = read_certificate(certificate(pair))
    assert credential.identity == "spiffe://td/a"
    assert credential.expires == certificate(pair).not_valid_after_utc.timestamp()
    assert read_certificate(certificate(authority.pair("a.example", "b.example"))).identity == "a.example"
    assert read_certificate(certificate(authority.pair("10.0.0.1"))).identity == "10.0.0.1"  # the common name
    with pytest.raises(ValueError, match="more than one SPIFFE ID"):
        read_certificate(certificate(authority.pair("spiffe://td/a", "spiffe://td/b")))


def test_a_revoked_certificate_is_refused(tmp_path: Path) -> None:
    authority = Authority()
    bad, good = authority.pair("bad"), authority.pair("good")
    tls = TlsFiles(write(tmp_path, authority.pair("localhost"), authority, crl=authority.crl(bad)))
    der = x509.load_pem_x509_certificate(good.certificate.encode())
    assert tls.credential(der.public_bytes(Encoding.DER)).identity == "good"
    with pytest.raises(ValueError, match="revoked"):
        tls.credential(certificate(bad).public_bytes(Encoding.DER))


def test_the_rules_of_the_example_are_valid(tmp_path: Path) -> None:
    rules = (Path(__file__).parents[2] / "examples" / "xds-tls" / "identities.yaml").read_text()
    authority = Authority()
    loaded = TlsFiles(write(tmp_path, authority.pair("localhost"), authority, rules=rules)).loaded.rules
    assert not loaded.check("edge-1.edge.example.org", Identified("edge-1", "edge")).shared
    pod = Identified("shop/web/pod-7", "shop", {"tenant": "shop", "turnout.models": ["iris"]})
    assert loaded.check("spiffe://example.org/ns/shop/sa/web", pod).shared
