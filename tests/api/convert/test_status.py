"""Conversion of problems."""

from controlplane.api.convert.status import problem_to_proto
from controlplane.generated.turnout.v1 import status_pb2 as pb
from controlplane.problems.reasons import REASONS, Problem


def test_a_problem_names_its_objects() -> None:
    message = problem_to_proto(Problem(REASONS["VERSION_FAILS"], "it fails", models=("iris",)))
    assert (message.reason, message.level, message.text) == ("VERSION_FAILS", pb.STATUS_LEVEL_CRITICAL, "it fails")
    assert (list(message.objects), message.object_count) == (["models/iris"], 1)
    assert message.action.startswith("`turnout traffic iris`")


def test_a_hundred_objects_are_named_and_all_are_counted() -> None:
    nodes = tuple(f"eu/{i}" for i in range(300))
    message = problem_to_proto(Problem(REASONS["NODES_GONE"], "gone", nodes=nodes))
    assert (message.objects[0], len(message.objects), message.object_count) == ("nodes/eu%2F0", 100, 300)
