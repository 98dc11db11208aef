"""The gRPC service for secrets."""

from __future__ import annotations

from typing import Any

from controlplane.access.roles import Permission
from controlplane.access.rules import Target
from controlplane.api.authorization import authorization
from controlplane.api.convert.names import label, timestamp
from controlplane.api.objects import Objects
from controlplane.domain import Secret
from controlplane.generated.turnout.v1 import secret_service_pb2 as pb
from controlplane.generated.turnout.v1 import secret_service_pb2_grpc
from controlplane.reconciler.purge_keys import purge_keys
from controlplane.store import Store
from controlplane.writer import Writer


class SecretService(secret_service_pb2_grpc.SecretServiceServicer):
    """Manages the secrets in desired state. No response contains a private key."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._objects = Objects(Secret, writer, store)
        self._writer = writer

    async def GetSecret(self, request: pb.GetSecretRequest, context: Any) -> pb.GetSecretResponse:
        return pb.GetSecretResponse(secret=self._objects.get(request.name))

    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Any) -> pb.ListSecretsResponse:
        secrets, token = self._objects.page(request)
        return pb.ListSecretsResponse(secrets=secrets, next_page_token=token)

    async def CreateSecret(self, request: pb.CreateSecretRequest, context: Any) -> pb.CreateSecretResponse:
        return pb.CreateSecretResponse(**await self._objects.create(request, context))

    async def UpdateSecret(self, request: pb.UpdateSecretRequest, context: Any) -> pb.UpdateSecretResponse:
        return pb.UpdateSecretResponse(**await self._objects.update(request, context))

    async def DeleteSecret(self, request: pb.DeleteSecretRequest, context: Any) -> pb.DeleteSecretResponse:
        return pb.DeleteSecretResponse(**await self._objects.delete(request, context))

    async def PurgeKeys(self, request: pb.PurgeKeysRequest, context: Any) -> pb.PurgeKeysResponse:
        secret = label(request.name, Secret, "name")
        if not request.validate_only:
            authorization().require(Permission.SECRETS, Target(f"{Secret.collection}/{secret}"))
        keys = await purge_keys(self._writer, lambda key: key.secret == secret, validate_only=request.validate_only)
        return pb.PurgeKeysResponse(keys=[pb.WithdrawnKey(id=key.id, withdraw_time=timestamp(key.time)) for key in keys])
