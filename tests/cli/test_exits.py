"""Exit codes and the errors of files."""

from __future__ import annotations

from controlplane.cli.exits import (
    MEANINGS,
    Exit,
    FilesError,
    Place,
    Problem,
    exit_code,
    file_error,
    unreadable,
    with_elements,
    with_fields,
)
from controlplane.errors import Code, Error, Violation


def test_every_error_has_an_exit_code() -> None:
    assert {code: exit_code(Error(code, "X", "x")) for code in Code} == {
        Code.INVALID_ARGUMENT: 3,
        Code.NOT_FOUND: 4,
        Code.ALREADY_EXISTS: 5,
        Code.PERMISSION_DENIED: 5,
        Code.UNAUTHENTICATED: 5,
        Code.FAILED_PRECONDITION: 5,
        Code.ABORTED: 5,
        Code.RESOURCE_EXHAUSTED: 5,
        Code.UNAVAILABLE: 6,
        Code.INTERNAL: 70,
    }


def test_every_exit_code_but_that_of_a_closed_pipe_is_explained() -> None:
    assert set(MEANINGS) == set(Exit) - {Exit.BROKEN_PIPE}
    assert [code.value for code in MEANINGS] == sorted(code.value for code in MEANINGS)


def test_fields_get_other_names_in_violations_and_message() -> None:
    error = Error(
        Code.INVALID_ARGUMENT, "X", "a.b: is wrong", violations=(Violation("a.b", "is wrong"), Violation("", "also"))
    )
    renamed = with_fields(error, lambda field: field.replace("a.b", "--flag"))
    assert (renamed.code, renamed.reason, renamed.message) == (Code.INVALID_ARGUMENT, "X", "--flag: is wrong")
    assert renamed.violations == (Violation("--flag", "is wrong"), Violation("", "also"))


def test_an_error_names_the_elements_of_a_repeated_field() -> None:
    names = [f"models/m{i}" for i in range(12)]
    fields = ("switches[1].version", "switches[11]", "reason")
    error = Error(Code.INVALID_ARGUMENT, "X", "x", violations=tuple(Violation(f, "is wrong") for f in fields))
    renamed = with_elements(error, "switches", names)
    assert [v.field for v in renamed.violations] == ["models/m1", "models/m11", "reason"]


def test_a_problem_names_its_place_and_field() -> None:
    problem = Problem(Place("a.yaml", 3), "models[0].name", "is empty")
    assert str(problem) == "a.yaml:3: models[0].name: is empty"
    assert str(Problem(Place("a.yaml", 0), "", "can't be read")) == "a.yaml: can't be read"
    assert str(Problem(None, "models/x.keys", "is wrong")) == "models/x.keys: is wrong"
    error = FilesError([problem, problem])
    assert (error.code, error.problems) == (Code.INVALID_ARGUMENT, (problem, problem))
    assert str(error).count("\n") == 1


def test_an_unreadable_file_is_named_with_the_systems_words() -> None:
    error = unreadable("a.yaml", PermissionError(13, "Permission denied"))
    assert str(error) == "a.yaml: can't be read: permission denied"
    assert str(unreadable("a.yaml", OSError("Broken"))) == "a.yaml: can't be read: broken"
    assert str(file_error("a.yaml", 3, "is empty")) == "a.yaml:3: is empty"
