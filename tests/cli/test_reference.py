"""docs/cli.md is up to date and complete, and each JSON message that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool

from controlplane.cli import reference
from controlplane.cli.commands import COMMANDS
from controlplane.cli.exits import Exit

ROOT = Path(__file__).parents[2]
NAMES = [name for commands in COMMANDS.values() for name in commands]
# They change or read no state of the server, so they print no message of the API.
WITHOUT_OUTPUT = ("serve", "schema", "completion", "login")
OWN_JSON = ("audit", "can", "check", "rotate-key", "backup", "bootstrap", "demo", "restore", "version")


def section(name: str) -> str:
    """Return one command's part of the page."""
    return reference.page().partition(f"### turnout {name}\n")[2].partition("\n### ")[0]


def test_the_page_in_the_repository_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TURNOUT_API", "10.0.0.1:1")
    page = reference.page()
    assert page == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), "run `make protos`"
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", page)


def test_every_command_and_exit_code_is_on_the_page() -> None:
    page = reference.page()
    for name in [*NAMES, "secret set"]:
        assert page.count(f"### turnout {name}\n") == 1
    for code in Exit:
        if code is not Exit.BROKEN_PIPE:
            assert f"| {code.value} | " in page


@pytest.mark.parametrize("name", [*(n for n in NAMES if n not in (*WITHOUT_OUTPUT, *OWN_JSON)), "secret set"])
def test_every_command_that_reads_or_changes_state_says_which_message_it_prints(name: str) -> None:
    text = section(name)
    assert "`-o, --output" in text
    messages = re.findall(
        r"\b(?:[A-Z][a-z]+){2,}\b|\bManifest\b|\bStatus\b", text.partition("\nJSON: ")[2].partition("\n\n")[0]
    )
    assert messages
    for message in messages:
        assert descriptor_pool.Default().FindMessageTypeByName(f"turnout.v1.{message}")


@pytest.mark.parametrize("name", WITHOUT_OUTPUT)
def test_a_command_without_output_says_so(name: str) -> None:
    assert "Takes no --output: " in section(name)
    assert "`-o, --output" not in section(name)
