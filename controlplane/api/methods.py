"""The table of all methods of the operator API, and what a caller needs for each. A method that is not in it is refused.

A caller needs one of the permissions of a row, on any object. The objects of the call are checked when they are known: see
`authorization.py`. A dry run, whose request has `validate_only`, needs only VIEW. `OPEN` needs no credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.access.roles import Permission
from controlplane.domain import Model
from controlplane.domain.collections import COLLECTIONS, resource_name

VIEW = (Permission.VIEW,)
SWITCH = (Permission.SWITCH,)
EDIT = (Permission.EDIT,)
# An update may move traffic only.
UPDATE = (Permission.SWITCH, Permission.EDIT)
SECRETS = (Permission.SECRETS,)
CUT = (Permission.CUT,)
# Any change of desired state.
CHANGE = (Permission.SWITCH, Permission.EDIT, Permission.SECRETS)
OPEN: tuple[Permission, ...] = ()

METHODS: Mapping[str, tuple[Permission, ...]] = {
    "/turnout.v1.GatewayService/GetGateway": VIEW,
    "/turnout.v1.GatewayService/ListGateways": VIEW,
    "/turnout.v1.GatewayService/CreateGateway": EDIT,
    "/turnout.v1.GatewayService/UpdateGateway": EDIT,
    "/turnout.v1.GatewayService/DeleteGateway": EDIT,
    "/turnout.v1.ModelService/GetModel": VIEW,
    "/turnout.v1.ModelService/ListModels": VIEW,
    "/turnout.v1.ModelService/CreateModel": EDIT,
    "/turnout.v1.ModelService/UpdateModel": UPDATE,
    "/turnout.v1.ModelService/DeleteModel": EDIT,
    "/turnout.v1.ModelService/SwitchTraffic": SWITCH,
    "/turnout.v1.ModelService/UndoModels": SWITCH,
    "/turnout.v1.SecretService/GetSecret": VIEW,
    "/turnout.v1.SecretService/ListSecrets": VIEW,
    "/turnout.v1.SecretService/CreateSecret": SECRETS,
    "/turnout.v1.SecretService/UpdateSecret": SECRETS,
    "/turnout.v1.SecretService/DeleteSecret": SECRETS,
    "/turnout.v1.SecretService/PurgeKeys": SECRETS,
    "/turnout.v1.RevisionService/Apply": CHANGE,
    "/turnout.v1.RevisionService/GetRevision": VIEW,
    "/turnout.v1.RevisionService/ListRevisions": VIEW,
    "/turnout.v1.RevisionService/DiffRevisions": VIEW,
    "/turnout.v1.RevisionService/RevertRevision": CHANGE,
    "/turnout.v1.RevisionService/RestoreState": CHANGE,
    "/turnout.v1.RevisionService/RevertTo": CHANGE,
    "/turnout.v1.RevisionService/WatchRevision": VIEW,
    "/turnout.v1.NodeService/GetNode": VIEW,
    "/turnout.v1.NodeService/GetNodeStatus": VIEW,
    "/turnout.v1.NodeService/ListNodes": VIEW,
    "/turnout.v1.NodeService/WatchNodes": VIEW,
    "/turnout.v1.NodeService/ReconnectNode": EDIT,
    "/turnout.v1.NodeService/ForgetNodes": EDIT,
    "/turnout.v1.NodeService/AdoptNodes": CUT,
    "/turnout.v1.NodeService/BlockNode": EDIT,
    "/turnout.v1.NodeService/UnblockNode": EDIT,
    "/turnout.v1.NodeService/ListNodeBlocks": VIEW,
    "/turnout.v1.TrafficService/GetTraffic": VIEW,
    "/turnout.v1.TrafficService/ListTraffic": VIEW,
    "/turnout.v1.StatusService/GetStatus": VIEW,
    "/envoy.service.status.v3.ClientStatusDiscoveryService/FetchClientStatus": VIEW,
    "/envoy.service.status.v3.ClientStatusDiscoveryService/StreamClientStatus": VIEW,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": VIEW,
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
}

# The longest name of an object in an error. Characters.
_NAME = 200


def named_object(request: Any) -> str:
    """Return the resource name of the first object that a request names, for an error text; "" if it names none alone."""
    for row in COLLECTIONS:
        if (message := getattr(request, row.singular, None)) is not None and message.name:
            return str(message.name if "/" in message.name else row.resource_name(message.name))[:_NAME]
    for moved in (*getattr(request, "switches", ()), *getattr(request, "undos", ())):
        return str(moved.model if "/" in moved.model else resource_name(Model, moved.model))[:_NAME]
    for name in (getattr(request, "name", ""), *getattr(request, "names", ())):
        if name:
            return str(name)[:_NAME]
    if client := getattr(request, "client", ""):
        return f"nodes/{client}"[:_NAME]
    return ""
