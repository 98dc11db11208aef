"""Checks files without a server: the same translation and the same nouns, without what is live.

The only use that the command line makes of the server's code: a second translation would say other things than the server.
"""

from __future__ import annotations

from controlplane.api.convert import check_sound, gateway_from_proto, model_from_proto, secret_from_proto
from controlplane.domain import Gateway, Model, Object, Secret
from controlplane.domain.state import Changes, State
from controlplane.errors import Collector
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest


def check(manifest: Manifest) -> None:
    """Nothing when every object is valid and they fit together. Errors: all that is wrong, as the server would say it.

    A gateway or secret that the manifest lacks may be live: whether what names it fits is not looked at.
    """
    made: dict[str, Object] = {}
    c = Collector()
    for i, gateway in enumerate(manifest.gateways):
        with c.within(f"gateways[{i}]"):
            obj: Object = gateway_from_proto(gateway)
            made[obj.resource_name] = obj
    for i, model in enumerate(manifest.models):
        with c.within(f"models[{i}]"):
            obj = model_from_proto(model)
            made[obj.resource_name] = obj
    for i, secret in enumerate(manifest.secrets):
        with c.within(f"secrets[{i}]"):
            obj = secret_from_proto(secret)
            check_sound(secret)
            made[obj.resource_name] = obj
    c.check()
    whole = {n: o for n, o in made.items() if not isinstance(o, Gateway | Model) or _has_all(o, made)}
    known = {o.name for o in whole.values() if isinstance(o, Gateway)}
    fitting = {n: o for n, o in whole.items() if not isinstance(o, Model) or known.issuperset(o.gateways)}
    State().applied(Changes(fitting))


def _has_all(obj: Gateway | Model, made: dict[str, Object]) -> bool:
    return all(r.resource_name in made for r in obj.references if r.collection == Secret.collection)
