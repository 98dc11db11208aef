"""`turnout can`: questions to an access file."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, write_file

RULES = """
groups: {sre: ["user:bob"]}
rules:
- {who: ["everyone"], role: viewer}
- {who: ["user:anna", "group:ml"], role: switcher, on: [models/iris]}
- {who: ["group:sre"], role: editor, gateways: [edge]}
- {who: ["token:ci"], role: editor, labels: {team: ml}}
"""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("anna switch iris", "yes: user:anna is switcher on models/iris"),
        ("user:anna switch models/iris", "yes: user:anna is switcher on models/iris"),
        ("anna switch wine", "no: needs switcher on models/wine; user:anna is viewer, switcher on models/iris"),
        ("zoe switch iris --group ml", "yes: user:zoe is switcher on models/iris"),
        ("token:anna switch iris", "no: needs switcher on models/iris; token:anna is viewer"),
        ("bob edit gateways/edge", "yes: user:bob is editor at gateway edge"),
        ("bob edit models/x --gateway edge", "yes: user:bob is editor at gateway edge"),
        (
            "bob edit models/x --gateway edge --gateway b",
            "no: needs editor on models/x; user:bob is viewer, editor at gateway edge",
        ),
        ("token:ci edit models/x --label team=ml", "yes: token:ci is editor with team=ml"),
        ("anna admin", "no: needs admin; user:anna is viewer, switcher on models/iris"),
        ("anna view", "yes: user:anna is viewer"),
    ],
)
def test_answers(run: Run, tmp_path: Path, question: str, answer: str) -> None:
    result = run("can", *question.split(), "--access", write_file(tmp_path, RULES))
    assert (result.out, result.code) == (answer + "\n", Exit.OK if answer.startswith("yes") else Exit.DIFFERENCE)


def test_json_and_the_variable(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TURNOUT_ACCESS", str(write_file(tmp_path, RULES)))
    result = run("can", "anna", "switch", "iris", "-o", "json")
    assert result.json == {"allowed": True, "explanation": "user:anna is switcher on models/iris"}


@pytest.mark.parametrize(
    ("question", "code", "problem"),
    [
        ("anna swich iris", Exit.USAGE, "'swich' is not a permission; did you mean 'switch'?"),
        ("anna edit iris", Exit.USAGE, "'iris' is not COLLECTION/NAME, like models/iris"),
        ("anna edit models/x --label a", Exit.USAGE, "must be KEY=VALUE"),
        ("anna edit models/x --access none.yaml", Exit.INVALID, "none.yaml: can't be read: no such file or directory"),
    ],
)
def test_questions_that_make_no_sense(run: Run, tmp_path: Path, question: str, code: Exit, problem: str) -> None:
    result = run("can", "--access", write_file(tmp_path, RULES), *question.split())
    assert (result.code, problem in result.err) == (code, True), result.err


def test_a_wrong_file(run: Run, tmp_path: Path) -> None:
    file = write_file(tmp_path, "rules:\n- {who: [everyone], role: boss}\n")
    result = run("can", "anna", "view", "--access", file)
    assert (result.code, f"{file}:2: rules[0].role: 'boss' is not a role" in result.err) == (Exit.INVALID, True), result.err
