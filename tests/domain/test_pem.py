"""Certificates and keys: which ones are accepted and refused. No error text may quote a private key."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from controlplane.domain import pem
from controlplane.errors import Error
from tests import pki

AUTHORITY = pki.Authority()
PAIR = AUTHORITY.pair("a.example", "10.0.0.1")


def refused(chain: str, key: str) -> Error:
    with pytest.raises(Error) as caught:
        pem.key_pair(chain, key, "chain", "key")
    return caught.value


def test_a_pair_is_read_and_described() -> None:
    chain, key, described = pem.key_pair(PAIR.certificate + AUTHORITY.certificate, PAIR.key, "chain", "key")
    assert (chain, key) == (PAIR.certificate + AUTHORITY.certificate, PAIR.key)
    leaf = described[0]
    assert (leaf.subject, leaf.sans) == ("CN=a.example", ("a.example", "10.0.0.1"))
    assert len(leaf.sha256) == 64
    assert leaf.not_after - leaf.not_before == 90 * 86_400
    assert [c.subject for c in described] == ["CN=a.example", "CN=test authority"]


def test_different_encodings_become_one_value() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pair = AUTHORITY.pair("a.example", key=key)
    older = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
    assert older != pair.key
    normalised = pem.key_pair("Bag Attributes: junk\n" + pair.certificate.replace("\n", "\r\n"), older, "chain", "key")
    assert normalised[:2] == (pair.certificate, pair.key)


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("", "is required"),
        ("no key", "is not a readable private key in PEM"),
        (pki.pem(ec.generate_private_key(ec.SECP256R1())), "is not the key of the certificate"),
        (PAIR.key[:60] + "A" * 8 + PAIR.key[68:], "is not a readable private key in PEM"),
        (pki.pem(ec.generate_private_key(ec.SECP256K1())), "is ECDSA on secp256k1: Envoy accepts P-256, P-384 and P-521"),
        (pki.pem(rsa.generate_private_key(65537, 1024)), "is RSA of 1,024 bits: Envoy accepts 2,048 or more"),
        (
            ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "is neither RSA nor ECDSA: Envoy accepts no other keys",
        ),
        (
            ec.generate_private_key(ec.SECP256R1())
            .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
            .decode(),
            "has a passphrase, which Envoy does not support: remove it",
        ),
    ],
)
def test_a_refused_key_is_not_quoted(key: str, problem: str) -> None:
    error = refused(PAIR.certificate, key)
    assert error.message == f"key: {problem}"
    assert not any(
        mark in repr((error, error.violations, error.metadata)) for mark in (pki.marks(key) if "-----" in key else ())
    )


def test_an_rsa_pair_is_accepted_and_one_with_a_broken_number_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pair = AUTHORITY.pair("a.example", key=key)
    assert pem.key_pair(pair.certificate, pair.key, "chain", "key")[1] == pair.key
    pem.check_key_numbers(pair.key, "key")
    good = key.private_numbers()
    bad = rsa.RSAPrivateNumbers(good.p, good.q, good.d, good.dmp1 + 2, good.dmq1, good.iqmp, good.public_numbers)
    broken = pki.pem(bad.private_key(unsafe_skip_rsa_key_validation=True))
    with pytest.raises(Error, match="key: is a private key whose numbers don't fit together"):
        pem.check_key_numbers(broken, "key")


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        ("", "is required"),
        ("text", "holds no certificate in PEM"),
        (PAIR.key, "holds a private key; give certificates only"),
        ("-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n", "holds a certificate that can't be read"),
        (AUTHORITY.certificate + PAIR.certificate, "the certificate that the key belongs to must come first"),
        (PAIR.certificate + PAIR.certificate, "each certificate must be signed by the one after it"),
        ("x" * (pem.MAX_BYTES + 1), "is 262,145 bytes long: at most 262,144"),
    ],
)
def test_an_invalid_chain_is_refused(chain: str, problem: str) -> None:
    assert refused(chain, PAIR.key).message == f"chain: {problem}"


def test_a_placeholder_is_a_valid_pair() -> None:
    certificate, key = pem.placeholder(1_700_000_000.0)
    (described,) = pem.key_pair(certificate, key, "chain", "key")[2]
    assert (described.subject, described.not_before) == ("CN=placeholder", 1_700_000_000.0)
