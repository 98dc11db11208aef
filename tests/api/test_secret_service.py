"""The service for secrets; no response contains a private key."""

from __future__ import annotations

import json
import uuid
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from controlplane.api.drafts import without_keys
from controlplane.domain import TlsCertificate
from controlplane.generated.turnout.v1 import gateway_pb2, model_pb2, secret_pb2
from controlplane.generated.turnout.v1 import revision_service_pb2 as rpb
from controlplane.generated.turnout.v1 import secret_service_pb2 as pb
from tests.api.api import Api, gateway
from tests.pki import Pair, authority, marks, pair
from tests.store.opening import etag

OLD, NEW, OTHER = pair("old.example"), pair("new.example"), pair("other.example")


def tls(of: Pair, name: str = "edge", *, key: str | None = None, **fields: Any) -> secret_pb2.Secret:
    content = secret_pb2.TlsCertificate(certificate_chain_pem=of.certificate, private_key_pem=of.key if key is None else key)
    return secret_pb2.Secret(name=name, tls_certificate=content, **fields)


def ca(name: str = "ca") -> secret_pb2.Secret:
    return secret_pb2.Secret(name=name, ca_certificates=secret_pb2.CaCertificates(ca_certificates_pem=authority().certificate))


def assert_no_key(*responses: Message) -> None:
    """Assert that no response contains a part of a private key."""
    text = "".join(repr(r) + str(r.SerializeToString()) for r in responses)
    assert "PRIVATE" not in text
    assert not any(mark in text for p in (OLD, NEW, OTHER) for mark in marks(p.key))


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = str(caught.value.trailing_metadata())
    assert not any(mark in trailers + str(caught.value) for p in (OLD, NEW, OTHER) for mark in marks(p.key))
    return caught.value.code().name, str(caught.value.details())


async def test_create_read_update_list_and_delete(empty: Api) -> None:
    created = await empty.secrets.CreateSecret(pb.CreateSecretRequest(secret=tls(OLD), reason="first"))
    assert (created.revision, created.secret.name, created.secret.etag) == (1, "secrets/edge", etag(1))
    leaf = created.secret.tls_certificate.leaf
    assert (leaf.subject, list(leaf.sans), len(leaf.sha256)) == ("CN=old.example", ["old.example"], 64)
    assert leaf.not_after.seconds - leaf.not_before.seconds == 90 * 86_400
    assert created.secret.tls_certificate.private_key_pem == ""
    read = await empty.secrets.GetSecret(pb.GetSecretRequest(name="edge"))
    assert read.secret == created.secret
    assert await refused(empty.secrets.CreateSecret(pb.CreateSecretRequest(secret=tls(OLD)))) == (
        "ALREADY_EXISTS",
        "secrets/edge already exists",
    )
    renewed = await empty.secrets.UpdateSecret(
        pb.UpdateSecretRequest(secret=tls(NEW, etag=etag(1)), update_mask=FieldMask(paths=["tls_certificate"]))
    )
    assert (renewed.revision, renewed.secret.tls_certificate.leaf.subject) == (2, "CN=new.example")
    assert (await refused(empty.secrets.UpdateSecret(pb.UpdateSecretRequest(secret=tls(OLD, etag=etag(1))))))[0] == "ABORTED"
    listed = await empty.secrets.ListSecrets(pb.ListSecretsRequest())
    history = await empty.revisions.ListRevisions(rpb.ListRevisionsRequest(object_name="secrets/edge"))
    diff = await empty.revisions.DiffRevisions(rpb.DiffRevisionsRequest(**{"from": "revisions/1"}, to="revisions/2"))
    lines = diff.changes[0].lines
    assert lines[0].startswith(f"certificate: sha256 {leaf.sha256[:16]}… -> ")
    assert lines[1] == "subject: CN=old.example -> CN=new.example"
    deleted = await empty.secrets.DeleteSecret(pb.DeleteSecretRequest(name="secrets/edge", etag=etag(2)))
    assert deleted.revision == 3
    assert_no_key(created, read, renewed, listed, history, diff, deleted)
    back = await empty.revisions.RevertTo(rpb.RevertToRequest(name="revisions/1", force=True))
    assert_no_key(back)
    content = empty.store.head.value.state.secrets["edge"].content
    assert isinstance(content, TlsCertificate)
    assert content.private_key_pem == OLD.key


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (tls(OLD, key=NEW.key), "secret.tls_certificate.private_key_pem: is not the key of the certificate"),
        (tls(OLD, key=""), "secret.tls_certificate.private_key_pem: is required"),
        (tls(OLD, key=OLD.key[:90]), "secret.tls_certificate.private_key_pem: is not a readable private key in PEM"),
        (
            tls(Pair(OLD.key, OLD.key, 0)),
            "secret.tls_certificate.certificate_chain_pem: holds a private key; give certificates only",
        ),
        (secret_pb2.Secret(name="edge"), "secret: one of tls_certificate, ca_certificates and opaque is required"),
        (
            secret_pb2.Secret(name="edge", ca_certificates=secret_pb2.CaCertificates(ca_certificates_pem=OLD.key)),
            "secret.ca_certificates.ca_certificates_pem: holds a private key; give certificates only",
        ),
        # A key in the wrong field: the error must not quote it.
        (secret_pb2.Secret(name=OLD.key, ca_certificates=ca().ca_certificates), None),
    ],
)
async def test_errors_do_not_quote_keys(empty: Api, secret: secret_pb2.Secret, text: str | None) -> None:
    code, details = await refused(empty.secrets.CreateSecret(pb.CreateSecretRequest(secret=secret)))
    assert code == "INVALID_ARGUMENT"
    assert text is None or details == text
    assert (await refused(empty.apply(secret)))[0] == "INVALID_ARGUMENT"
    assert empty.number == 0


async def test_a_secret_that_was_read_can_be_applied_again_and_keeps_its_key(empty: Api) -> None:
    await empty.apply(tls(OLD), ca())
    manifest = (await empty.revisions.GetRevision(rpb.GetRevisionRequest(name="revisions/1", include_manifest=True))).manifest
    assert_no_key(manifest)
    again = await empty.revisions.Apply(rpb.ApplyRequest(manifest=manifest))
    assert (again.changed, again.revision.number) == (False, 1)
    # A certificate for another key needs that key.
    code, details = await refused(empty.apply(tls(NEW, key="")))
    assert (code, details.partition(": ")[0]) == ("INVALID_ARGUMENT", "manifest.secrets[0].tls_certificate.private_key_pem")
    assert details.endswith(": is required: the stored key does not belong to this certificate")


async def test_a_used_secret_can_be_neither_deleted_nor_changed_to_the_other_kind(empty: Api) -> None:
    tls_gateway = gateway(tls=gateway_pb2.GatewayTls(certificate="secrets/edge", client_ca="secrets/ca"))
    code, details = await refused(empty.apply(tls_gateway))
    assert code == "FAILED_PRECONDITION"
    assert "secrets/edge does not exist; there are no secrets yet" in details
    upstream = model_pb2.UpstreamTls(server_name="a.b", ca_certificates="secrets/ca", client_certificate="edge")
    version = model_pb2.Version(name="blue", endpoints=[model_pb2.Endpoint(host="10.0.0.1", port=80)], tls=upstream)
    iris = model_pb2.Model(name="iris", gateways=["edge"], versions=[version])
    await empty.apply(tls_gateway, iris, tls(OLD), ca())
    read = (await empty.revisions.GetRevision(rpb.GetRevisionRequest(name="revisions/1", include_manifest=True))).manifest
    assert read.gateways[0].tls == gateway_pb2.GatewayTls(
        certificate="secrets/edge", client_ca="secrets/ca", min_version=gateway_pb2.TLS_VERSION_1_2
    )
    assert read.models[0].versions[0].tls.client_certificate == "secrets/edge"
    for name in ("edge", "ca"):
        code, details = await refused(empty.secrets.DeleteSecret(pb.DeleteSecretRequest(name=name)))
        assert code == "FAILED_PRECONDITION"
        assert (
            f"secrets/{name} can't be deleted while gateways/edge, models/iris use it: change or delete those first" in details
        )
    code, details = await refused(empty.apply(ca("edge")))
    assert "secrets/edge can't become a secret of another kind while gateways/edge, models/iris use it" in details
    swapped = gateway(tls=gateway_pb2.GatewayTls(certificate="ca"))
    assert (
        "secrets/ca is of kind ca_certificates, but tls_certificate is needed here" in (await refused(empty.apply(swapped)))[1]
    )
    assert (await refused(empty.revisions.Apply(rpb.ApplyRequest(delete_names=["secrets/ca"], force=True))))[0] == (
        "FAILED_PRECONDITION"
    )
    # A secret can be deleted together with its users.
    await empty.revisions.Apply(rpb.ApplyRequest(delete_names=["models/iris", "gateways/edge", "secrets/edge"], force=True))
    assert list(empty.store.head.value.state.secrets) == ["ca"]


async def test_a_repeated_request_is_recognised_without_its_private_key(empty: Api) -> None:
    request = pb.CreateSecretRequest(secret=tls(OLD), request_id=str(uuid.uuid4()))
    assert without_keys(request).secret.tls_certificate.private_key_pem == ""
    assert request.secret.tls_certificate.private_key_pem == OLD.key
    first = await empty.secrets.CreateSecret(request)
    assert await empty.secrets.CreateSecret(request) == first
    request.secret.CopyFrom(tls(NEW))
    assert (await refused(empty.secrets.CreateSecret(request)))[0] == "INVALID_ARGUMENT"


async def test_bootstraps_have_placeholders_for_certificates_with_keys(empty: Api) -> None:
    tls_gateway = gateway(tls=gateway_pb2.GatewayTls(certificate="secrets/edge", client_ca="secrets/ca"))
    manifest = rpb.Manifest(gateways=[tls_gateway], secrets=[tls(OLD), ca()])
    answer = await empty.revisions.Apply(rpb.ApplyRequest(manifest=manifest, validate_only=True, include_bootstraps=True))
    (text,) = answer.bootstraps
    assert not any(mark in text for mark in marks(OLD.key))
    secrets = {s["name"]: s for s in json.loads(text)["static_resources"]["secrets"]}
    assert OLD.certificate not in secrets["edge"]["tls_certificate"]["certificate_chain"]["inline_string"]
    assert secrets["ca"]["validation_context"]["trusted_ca"]["inline_string"] == authority().certificate
    assert empty.number == 0


async def test_withdrawn_keys_are_purged_and_nobody_can_go_back_to_them(empty: Api) -> None:
    await empty.secrets.CreateSecret(pb.CreateSecretRequest(secret=tls(OLD)))
    await empty.secrets.UpdateSecret(pb.UpdateSecretRequest(secret=tls(NEW)))
    dry = await empty.secrets.PurgeKeys(pb.PurgeKeysRequest(name="secrets/edge", validate_only=True))
    purged = await empty.secrets.PurgeKeys(pb.PurgeKeysRequest(name="secrets/edge"))
    assert_no_key(dry, purged)
    assert (len(purged.keys), purged) == (1, dry)
    assert purged.keys[0].withdraw_time.seconds > 0
    assert not (await empty.secrets.PurgeKeys(pb.PurgeKeysRequest(name="secrets/edge"))).keys
    request = rpb.RestoreStateRequest(name="revisions/1", force=True, allow_cut=True)
    code, text = await refused(empty.revisions.RestoreState(request))
    assert (code, "was purged, so nobody can go back to it" in text) == ("FAILED_PRECONDITION", True), text
    assert (await refused(empty.secrets.PurgeKeys(pb.PurgeKeysRequest(name="models/edge"))))[0] == "INVALID_ARGUMENT"
