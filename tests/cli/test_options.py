"""Names as people type them, and the help text of a command."""

from __future__ import annotations

import uuid

import pytest
import typer

from controlplane.cli.options import help_text, request_id, resource, revision_name


def test_a_short_and_a_full_name_are_the_same() -> None:
    assert resource("models", "iris") == resource("models", "models/iris") == "models/iris"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("7", "revisions/7"),
        ("revisions/7", "revisions/7"),
        ("latest", "revisions/latest"),
        ("7a0b93c1-7", "revisions/7a0b93c1-7"),
    ],
)
def test_revisions(text: str, name: str) -> None:
    assert revision_name(text) == name


@pytest.mark.parametrize("text", ["", "x", "-1", "7.0", "revisions/", "²", "models/7", "7a0b93c1-latest"])
def test_other_texts_are_no_revisions(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a revision: write a number"):
        revision_name(text)


def test_the_newest_revision_is_no_earlier_one() -> None:
    assert revision_name("7", earlier=True) == "revisions/7"
    with pytest.raises(typer.BadParameter, match="name an earlier one"):
        revision_name("latest", earlier=True)


def test_each_request_id_is_a_new_uuid4() -> None:
    first, second = request_id(), request_id()
    assert uuid.UUID(first).version == 4
    assert first != second


def test_a_block_in_a_docstring_keeps_its_lines() -> None:
    def command() -> None:
        r"""Do something.

        \b
        turnout x
        """

    assert help_text(command) == "Do something.\n\n\b\nturnout x"
