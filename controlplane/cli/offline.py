"""Check files without a server, with the server's own conversion and domain classes.

A second implementation of the checks in the command line would differ from the server's.
"""

from __future__ import annotations

from controlplane.api.convert import CONVERTERS
from controlplane.domain import Gateway, Model, Object, Secret
from controlplane.domain.collections import COLLECTIONS
from controlplane.domain.state import Changes, State
from controlplane.errors import Collector
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest


def check(manifest: Manifest) -> None:
    """Check that every object is valid and that they fit together. Errors: all problems, with the server's texts.

    A gateway or secret that is not in the manifest may be live, so objects that refer to it are not checked against it.
    """
    objects: dict[str, Object] = {}
    c = Collector()
    for row in COLLECTIONS:
        for i, message in enumerate(getattr(manifest, row.name)):
            with c.within(f"{row.name}[{i}]"):
                obj = CONVERTERS[row.noun].from_proto(message, None)
                objects[obj.resource_name] = obj
    c.check()
    with_secrets = {n: o for n, o in objects.items() if not isinstance(o, Gateway | Model) or _has_secrets(o, objects)}
    gateways = {o.name for o in with_secrets.values() if isinstance(o, Gateway)}
    complete = {n: o for n, o in with_secrets.items() if not isinstance(o, Model) or gateways.issuperset(o.gateways)}
    State().applied(Changes(complete))


def _has_secrets(obj: Gateway | Model, objects: dict[str, Object]) -> bool:
    return all(r.resource_name in objects for r in obj.references if r.collection == Secret.collection)
