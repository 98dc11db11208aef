"""Checks files without a server: the same translation and the same nouns, without what is live.

The only use that the command line makes of the server's code: a second translation would say other things than the server.
"""

from __future__ import annotations

from controlplane.errors import Collector
from controlplane.model import Model, Object
from controlplane.operator.v1.revision_service_pb2 import Manifest
from controlplane.server.convert import gateway_from_proto, model_from_proto
from controlplane.state import Changes, State


def check(manifest: Manifest) -> None:
    """Nothing when every object is valid and they fit together. Errors: all that is wrong, as the server would say it.

    A gateway that the manifest lacks may be live: whether a model fits there is not looked at.
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
    c.check()
    known = {o.name for o in made.values() if not isinstance(o, Model)}
    fitting = {n: o for n, o in made.items() if not isinstance(o, Model) or known.issuperset(o.gateways)}
    State().applied(Changes(fitting))
