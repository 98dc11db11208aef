"""Secrets over gRPC."""

from __future__ import annotations

from typing import Any

from controlplane.api.convert import check_sound, label, secret_from_proto, secret_to_proto
from controlplane.api.masks import updated
from controlplane.api.request import check_new, draft, meta_of, named, number_of, page
from controlplane.domain import Secret
from controlplane.domain.collections import resource_name
from controlplane.domain.etag import check_etag
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, within
from controlplane.generated.turnout.v1 import secret_service_pb2 as pb
from controlplane.generated.turnout.v1 import secret_service_pb2_grpc
from controlplane.store import Store
from controlplane.writer import Outcome, Writer


class SecretService(secret_service_pb2_grpc.SecretServiceServicer):
    """Keeps the secrets of desired state."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._writer = writer
        self._store = store

    async def GetSecret(self, request: pb.GetSecretRequest, context: Any) -> pb.GetSecretResponse:
        head = self._store.head.value
        secret = head.state.require(Secret, label(request.name, Secret, "name"))
        return pb.GetSecretResponse(secret=secret_to_proto(secret, head.meta[secret.resource_name]))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Any) -> pb.ListSecretsResponse:
        head = self._store.head.value
        secrets, token = page(
            head.state.secrets,
            lambda n: secret_to_proto(head.state.secrets[n], head.meta[resource_name(Secret, n)]),
            request,
            "secrets",
        )
        return pb.ListSecretsResponse(secrets=secrets, next_page_token=token)

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Any) -> pb.CreateSecretResponse:
        with within("secret"):
            check_new(request.secret.etag)
            secret = secret_from_proto(request.secret)
            check_sound(request.secret)
        name = secret.resource_name

        def change(head: Head) -> Changes:
            if secret.name in head.state.secrets:
                raise Error(Code.ALREADY_EXISTS, "ALREADY_EXISTS", f"{name} exists already", metadata={"name": name})
            return Changes({name: secret})

        with named({name: "secret"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.CREATE), validate_only=request.validate_only
            )
        return pb.CreateSecretResponse(
            secret=_shown(outcome, secret.name, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, context: Any) -> pb.UpdateSecretResponse:
        short = label(request.secret.name, Secret, "secret.name")
        name = resource_name(Secret, short)

        def change(head: Head) -> Changes:
            live = head.state.require(Secret, short)
            check_etag(head, name, request.secret.etag, "secret.etag")
            proto = updated(secret_to_proto(live), request.secret, request.update_mask)
            with within("secret"):
                secret = secret_from_proto(proto, live)
                check_sound(proto)
            return Changes({name: secret})

        with named({name: "secret"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.UPDATE), validate_only=request.validate_only
            )
        return pb.UpdateSecretResponse(
            secret=_shown(outcome, short, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Any) -> pb.DeleteSecretResponse:
        short = label(request.name, Secret, "name")
        name = resource_name(Secret, short)

        def change(head: Head) -> Changes:
            head.state.require(Secret, short)
            check_etag(head, name, request.etag, "etag")
            return Changes({name: None})

        with named({name: "name"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.DELETE), validate_only=request.validate_only
            )
        return pb.DeleteSecretResponse(revision=number_of(outcome, request.validate_only))


def _shown(outcome: Outcome, short: str, validate_only: bool) -> Any:
    secret = outcome.head.state.secrets[short]
    return secret_to_proto(secret, meta_of(outcome, secret.resource_name, validate_only))
