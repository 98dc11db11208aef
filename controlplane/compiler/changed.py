"""Call the functions of the objects that a change touches, before the change is compiled.

One thread compiles at a time, and the event loop may wait for it. So slow functions must not be called then. Called here
first, with the same arguments, they have their results ready.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from controlplane.compiler.audience import audiences
from controlplane.compiler.functions import Functions
from controlplane.compiler.resources import CompiledObjects
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.patch_functions import names_functions
from controlplane.domain.revision import ObjectMeta
from controlplane.domain.state import State


def call_functions(state: State, changed: Collection[str], meta: Mapping[str, ObjectMeta], functions: Functions) -> None:
    """Call the functions of the objects of a state that change, and of the models at gateways that change.

    `changed` are resource names. `meta` has the revision in which each object last changed. Errors: those of the compiler.
    """
    gateways = [g for g in state.gateways.values() if g.resource_name in changed]
    labels = {gateway.name for gateway in gateways}
    models = [m for m in state.models.values() if m.resource_name in changed or labels.intersection(m.gateways)]
    gateways, models = [g for g in gateways if names_functions(g)], [m for m in models if names_functions(m)]
    compiled = CompiledObjects(functions)
    for gateway in gateways:
        compiled.listener(gateway)
    for audience in audiences(state) if models else ():
        for model in models:
            known = meta.get(model.resource_name)
            compiled.model(state, NO_LIVE_ENDPOINTS, model, audience, known.revision if known else 0)
