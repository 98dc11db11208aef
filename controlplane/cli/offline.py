"""Check files without a server, with the server's own conversion and domain classes.

A second implementation of the checks in the command line would differ from the server's.
"""

from __future__ import annotations

from controlplane.api.convert import check_sound, gateway_from_proto, model_from_proto, secret_from_proto
from controlplane.domain import Gateway, Model, Object, Secret
from controlplane.domain.state import Changes, State
from controlplane.errors import Collector
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest


def check(manifest: Manifest) -> None:
    """Check that every object is valid and that they fit together. Errors: all problems, with the server's texts.

    A gateway or secret that is not in the manifest may be live, so objects that refer to it are not checked against it.
    """
    objects: dict[str, Object] = {}
    c = Collector()
    for i, gateway in enumerate(manifest.gateways):
        with c.within(f"gateways[{i}]"):
            obj: Object = gateway_from_proto(gateway)
            objects[obj.resource_name] = obj
    for i, model in enumerate(manifest.models):
        with c.within(f"models[{i}]"):
            obj = model_from_proto(model)
            objects[obj.resource_name] = obj
    for i, secret in enumerate(manifest.secrets):
        with c.within(f"secrets[{i}]"):
            obj = secret_from_proto(secret)
            check_sound(secret)
            objects[obj.resource_name] = obj
    c.check()
    with_secrets = {n: o for n, o in objects.items() if not isinstance(o, Gateway | Model) or _has_secrets(o, objects)}
    gateways = {o.name for o in with_secrets.values() if isinstance(o, Gateway)}
    complete = {n: o for n, o in with_secrets.items() if not isinstance(o, Model) or gateways.issuperset(o.gateways)}
    State().applied(Changes(complete))


def _has_secrets(obj: Gateway | Model, objects: dict[str, Object]) -> bool:
    return all(r.resource_name in objects for r in obj.references if r.collection == Secret.collection)
