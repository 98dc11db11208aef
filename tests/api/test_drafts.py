"""Drafts: authors, reasons, and digests of requests without private keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.drafts import author, digest, draft, secret_fields, without_keys
from controlplane.domain.revision import Action
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1 import (
    model_pb2,
    model_service_pb2,
    revision_service_pb2,
    secret_pb2,
    secret_service_pb2,
)


class Context:
    """The part of a gRPC call that a draft reads."""

    def __init__(self, *metadata: tuple[str, str | bytes]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> Any:
        return self._metadata or None

    def peer(self) -> str:
        return "ipv4:10.0.0.1:5000"


def switch(**fields: Any) -> model_service_pb2.SwitchTrafficRequest:
    return model_service_pb2.SwitchTrafficRequest(**fields)


def secret(key: str, chain: str = "chain") -> secret_pb2.Secret:
    certificate = secret_pb2.TlsCertificate(certificate_chain_pem=chain, private_key_pem=key)
    return secret_pb2.Secret(name="edge", tls_certificate=certificate)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ann", "ann"),
        (" a b ", "a b"),
        ("", "unknown"),
        ("x" * 200, "x" * 200),
        (b"Ann\x00\n\xff", "Ann\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_the_printable_part_of_the_author_is_used(value: str | bytes, expected: str) -> None:
    assert author([("x-turnout-author", value)]) == expected


def test_an_author_in_utf8_has_priority() -> None:
    both: list[tuple[str, str | bytes]] = [("x-turnout-author", "J\\xf6rg"), ("x-turnout-author-bin", "Jörg".encode())]
    assert author(both) == author(both[::-1]) == "Jörg"
    assert author([("user-agent", "grpc")]) == "unknown"


@pytest.mark.parametrize(("key", "value"), [("x-turnout-author", "x" * 201), ("x-turnout-author-bin", ("ö" * 201).encode())])
def test_an_author_that_is_too_long_is_refused(key: str, value: str | bytes) -> None:
    with pytest.raises(Error) as caught:
        author([(key, value)])
    assert (caught.value.code, caught.value.violations[0].field) == (Code.INVALID_ARGUMENT, key)


def test_a_draft_has_the_author_and_reason_of_the_call_and_no_time() -> None:
    switched = draft(switch(reason="why", request_id="7"), Context(("x-turnout-author", "ann")), Action.SWITCH)
    assert (switched.author, switched.reason, switched.action, switched.request_id, switched.target) == (
        "ann",
        "why",
        Action.SWITCH,
        "7",
        0,
    )
    assert draft(switch(), Context(), Action.REVERT, target=3).target == 3
    assert switched.time == draft(switch(), Context(), Action.SWITCH).time == 0


@pytest.mark.parametrize("reason", ["x" * 1_001, "a\nb", "a\x1bb", "a\u2028b"])
def test_a_reason_is_one_short_line(reason: str) -> None:
    with pytest.raises(Error) as caught:
        draft(switch(reason=reason), Context(), Action.SWITCH)
    assert [v.field for v in caught.value.violations] == ["reason"]
    draft(switch(reason="x" * 1_000), Context(), Action.SWITCH)


def test_private_keys_are_left_out_of_a_copy() -> None:
    request = secret_service_pb2.CreateSecretRequest(secret=secret("key"), reason="why")
    copy = without_keys(request)
    assert (copy.secret.tls_certificate.private_key_pem, copy.secret.tls_certificate.certificate_chain_pem) == ("", "chain")
    assert request.secret.tls_certificate.private_key_pem == "key"
    authorities = secret_pb2.Secret(name="ca", ca_certificates=secret_pb2.CaCertificates(ca_certificates_pem="ca"))
    manifest = revision_service_pb2.Manifest(secrets=[secret("a"), authorities, secret("b")])
    apply = without_keys(revision_service_pb2.ApplyRequest(manifest=manifest))
    assert [s.tls_certificate.private_key_pem for s in apply.manifest.secrets] == ["", "", ""]
    assert apply.manifest.secrets[1] == authorities
    plain = switch()
    assert without_keys(plain) is plain


def test_exactly_the_messages_with_a_secret_have_secret_fields() -> None:
    keys = (("tls_certificate", "private_key_pem"), ("opaque", "value"))
    assert secret_fields(secret_service_pb2.UpdateSecretRequest.DESCRIPTOR) == tuple(("secret", *key) for key in keys)
    applied = tuple(("manifest", "secrets", *key) for key in keys)
    assert secret_fields(revision_service_pb2.ApplyRequest.DESCRIPTOR) == applied
    assert secret_fields(model_service_pb2.UpdateModelRequest.DESCRIPTOR) == ()


def test_an_unset_message_stays_unset_without_its_keys() -> None:
    request = revision_service_pb2.ApplyRequest(reason="why")
    assert without_keys(request) == request
    assert not without_keys(request).HasField("manifest")


@given(st.text(max_size=5), st.text(max_size=5), st.text(min_size=1, max_size=5))
def test_a_digest_depends_on_everything_but_the_key(chain: str, key: str, other: str) -> None:
    request = secret_service_pb2.CreateSecretRequest(secret=secret(key, chain))
    assert digest(request) == digest(secret_service_pb2.CreateSecretRequest(secret=secret(key + other, chain)))
    assert digest(request) != digest(secret_service_pb2.CreateSecretRequest(secret=secret(key, chain + other)))
    assert digest(request) != digest(secret_service_pb2.UpdateSecretRequest(secret=secret(key, chain)))


def test_a_digest_does_not_depend_on_the_order_of_a_map() -> None:
    def update(*versions: str) -> model_service_pb2.UpdateModelRequest:
        return model_service_pb2.UpdateModelRequest(model=model_pb2.Model(split=dict.fromkeys(versions, 1)))

    assert digest(update("a", "b", "c")) == digest(update("c", "a", "b"))
