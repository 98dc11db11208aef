"""The table of reasons."""

import re

from controlplane.problems.reasons import REASONS, About, Level, Problem


def test_names_are_in_capitals_and_each_row_says_what_to_do() -> None:
    for name, row in REASONS.items():
        assert re.fullmatch(r"[A-Z]+(_[A-Z]+)*", name)
        assert row.name == name
        assert row.level is not Level.OK
        assert row.action.endswith(".")
        assert not re.search("{names?}", row.action) or row.about is not About.SERVER


def test_a_problem_has_the_level_of_its_reason_unless_a_check_lowers_it() -> None:
    row = REASONS["VERSION_FAILS"]
    assert Problem(row, "x", models=("iris",)).level is Level.CRITICAL
    assert Problem(row, "x", models=("iris",), level=Level.WARNING).level is Level.WARNING


def test_the_action_names_the_first_object() -> None:
    problem = Problem(REASONS["NODES_REFUSE"], "x", models=("iris",), nodes=("edge-1", "edge-2"))
    assert problem.labels == ("edge-1", "edge-2")
    assert problem.action.startswith("`turnout nodes edge-1` shows")
    assert Problem(REASONS["NO_REVISION"], "x").labels == ()


def test_the_action_names_up_to_ten_objects_that_a_command_takes() -> None:
    ids = tuple(f"n{i}" for i in range(11))
    assert "`turnout nodes forget n0 n1`" in Problem(REASONS["NODES_GONE"], "x", nodes=ids[:2]).action
    assert "`turnout nodes forget n0 n1 n2 n3 n4 n5 n6 n7 n8 n9 ...`" in Problem(REASONS["NODES_GONE"], "x", nodes=ids).action
