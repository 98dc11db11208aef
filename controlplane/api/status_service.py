"""The gRPC service for the status: the problems that exist now, in the fleet and in the traffic."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from typing import Any

from controlplane.api.convert import label
from controlplane.api.convert.node import STATES, node_to_proto, summary_of
from controlplane.api.convert.status import LEVELS, problem_to_proto
from controlplane.api.pages import max_items
from controlplane.domain import Model
from controlplane.domain.state import State
from controlplane.errors import invalid
from controlplane.generated.turnout.v1 import status_pb2, status_service_pb2_grpc
from controlplane.generated.turnout.v1 import status_service_pb2 as pb
from controlplane.problems import judge
from controlplane.problems.judge import Observed
from controlplane.problems.reasons import REASONS
from controlplane.problems.selection import Selection

_STATES = {value: state for state, value in STATES.items()}


class StatusService(status_service_pb2_grpc.StatusServiceServicer):
    """Judges the fleet and the traffic."""

    def __init__(self, observe: Callable[[], Observed], clock: Callable[[], float] = time.time) -> None:
        """Make the service. `observe` returns what is judged; `clock` returns seconds since the epoch."""
        self._observe = observe
        self._clock = clock

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        max_nodes = max_items(request.max_nodes, "max_nodes")
        observed = self._observe()
        fleet, selection = observed.fleet, _selection(request, observed.head.state)
        everything = judge.problems_of(observed, self._clock())
        problems = selection.problems(everything, fleet)
        status = status_pb2.Status(
            level=LEVELS[judge.level_of(problems)],
            text=judge.summary(observed, problems, len(everything) - len(problems)),
            problems=map(problem_to_proto, problems),
            summary=summary_of(fleet),
            nodes=[node_to_proto(fleet, node) for node in islice(selection.nodes(fleet), max_nodes)],
        )
        return pb.GetStatusResponse(status=status)


def _selection(request: pb.GetStatusRequest, state: State) -> Selection:
    """Return what a request selects. Errors: INVALID_ARGUMENT; NOT_FOUND for a model that does not exist."""
    models = [state.require(Model, label(name, Model, f"models[{i}]")) for i, name in enumerate(request.models)]
    for i, value in enumerate(request.states):
        if value not in _STATES:
            raise invalid(f"states[{i}]", f"{value} is not the state of a node")
    for i, reason in enumerate(request.ignored_reasons):
        if reason not in REASONS:
            raise invalid(f"ignored_reasons[{i}]", f"'{reason[:80]}' is not a reason. There are: {', '.join(REASONS)}")
    return Selection(
        models=frozenset(model.name for model in models),
        states=frozenset(_STATES[value] for value in request.states),
        error=request.error.lower(),
        ignored_reasons=frozenset(request.ignored_reasons),
    )
