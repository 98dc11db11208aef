"""Functions of the objects that a change touches are called before it is compiled, with the same arguments."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.compiler import Compiler, audiences
from controlplane.compiler.changed import call_functions
from controlplane.domain import Gateway, Model
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.revision import ObjectMeta
from controlplane.domain.state import State
from tests.compiler.test_functions import GREEN, IRIS, InProcess, call

EDGE = Gateway("edge", 80, patches=(call(),), answered_by_header="x-answered-by")
INNER = Gateway("inner", 81)
MODEL = replace(
    IRIS, gateways=("edge", "inner"), versions=(IRIS.versions[0], replace(GREEN, patches=(call(),))), patches=(call(),)
)


@pytest.mark.parametrize("changed", [EDGE, MODEL, INNER])
def test_compiling_the_change_calls_nothing_else(changed: Gateway | Model) -> None:
    functions = InProcess(lambda message: None)
    state = State({"edge": EDGE, "inner": INNER}, {"iris": MODEL, "plain": replace(IRIS, name="plain")})
    meta = {o.resource_name: ObjectMeta(i, 0.0, 0.0) for i, o in enumerate(state.objects(), 5)}
    call_functions(state, {changed.resource_name}, meta, functions)
    before = set(functions.calls)
    assert before
    for audience in audiences(state):
        Compiler(functions).compile(state, NO_LIVE_ENDPOINTS, audience, 7, meta=meta)
    more = set(functions.calls) - before
    # Of objects that do not change, which a compiler that has compiled the head remembers.
    assert all(c.message_type.endswith("Listener") for c in more) if changed is not EDGE else not more


def test_objects_without_functions_cost_nothing() -> None:
    functions = InProcess(lambda message: None)
    call_functions(State({"inner": INNER}, {}), {"gateways/inner"}, {}, functions)
    assert functions.calls == []
