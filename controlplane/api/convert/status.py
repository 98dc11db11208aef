"""Conversion of problems to messages."""

from __future__ import annotations

from controlplane.api.convert.node import node_name
from controlplane.domain import Model
from controlplane.domain.collections import resource_name
from controlplane.generated.turnout.v1 import status_pb2 as pb
from controlplane.problems.reasons import About, Level, Problem

# Objects of one problem that are named.
MAX_OBJECTS = 100

LEVELS = {
    Level.OK: pb.STATUS_LEVEL_OK,
    Level.WARNING: pb.STATUS_LEVEL_WARNING,
    Level.CRITICAL: pb.STATUS_LEVEL_CRITICAL,
}


def problem_to_proto(problem: Problem) -> pb.Problem:
    """Return the message of a problem."""
    labels = problem.labels
    about_nodes = problem.reason.about is About.NODES
    return pb.Problem(
        reason=problem.reason.name,
        level=LEVELS[problem.level],
        objects=[node_name(x) if about_nodes else resource_name(Model, x) for x in labels[:MAX_OBJECTS]],
        object_count=len(labels),
        text=problem.text,
        action=problem.action,
    )
