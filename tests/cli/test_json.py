"""`-o json` of every command: exactly the message that docs/cli.md names, and the documented extra keys."""

from __future__ import annotations

import re

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.json_format import ParseDict

from controlplane.cli.exits import Exit
from controlplane.cli.reference import page
from tests.cli.conftest import Run, Server

WAITED = {"changed", "progress", "disconnectedNodes"}
CASES: dict[str, tuple[list[str], str, set[str]]] = {
    "switch": (["switch", "iris", "--to", "green"], "SwitchTrafficResponse", WAITED),
    "switch --no-wait": (["switch", "iris", "--to", "green", "--no-wait"], "SwitchTrafficResponse", {"changed"}),
    "split": (["split", "iris", "blue=50%", "green=50%"], "SwitchTrafficResponse", WAITED),
    "undo": (["undo", "iris"], "UndoModelsResponse", WAITED),
    "revert": (["revert", "2", "--yes"], "RevertRevisionResponse", {"progress", "disconnectedNodes"}),
    "restore-state": (["restore-state", "1", "--yes"], "RestoreStateResponse", {"progress", "disconnectedNodes"}),
    "apply": (["apply", "-f", "FILE"], "ApplyResponse", set()),
    "apply --wait": (["apply", "-f", "FILE", "--wait"], "ApplyResponse", {"progress", "disconnectedNodes"}),
    "apply --dry-run": (["apply", "-f", "FILE", "--dry-run"], "ApplyResponse", {"changed", "dryRun", "needsForce"}),
    "validate": (["validate", "-f", "FILE"], "ApplyResponse", set()),
    "validate --offline": (["validate", "-f", "FILE", "--offline"], "Manifest", set()),
    "get all": (["get", "all"], "Manifest", set()),
    "get models": (["get", "models"], "Manifest", set()),
    "get nodes": (["get", "nodes"], "ListNodesResponse", set()),
    "get revisions": (["get", "revisions"], "ListRevisionsResponse", set()),
    "delete": (["delete", "models/iris", "--yes", "--allow-cut"], "ApplyResponse", set()),
    "traffic": (["traffic"], "ListTrafficResponse", set()),
    "traffic MODEL": (["traffic", "iris"], "GetTrafficResponse", set()),
    "nodes": (["nodes"], "ListNodesResponse", set()),
    "nodes NODE": (["nodes", "edge-1"], "GetNodeStatusResponse", set()),
    "nodes NODE --reconnect": (["nodes", "edge-1", "--reconnect"], "ReconnectNodeResponse", set()),
    "history": (["history"], "ListRevisionsResponse", set()),
    "diff": (["diff"], "DiffRevisionsResponse", set()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_command_prints_its_message(run: Run, applied: Server, minimal: object, name: str) -> None:
    args, message, extra = CASES[name]
    applied.connect("edge-1")
    if args[0] in ("undo", "revert"):
        run("switch", "iris", "--to", "green", "--no-wait")
    result = run(*(str(minimal) if arg == "FILE" else arg for arg in args), "-o", "json")
    assert result.code == (Exit.DIFFERENCE if args[0] == "diff" else Exit.OK), result.err
    value = result.json
    assert extra <= value.keys()
    descriptor = descriptor_pool.Default().FindMessageTypeByName(f"turnout.v1.{message}")
    # `changed` is a field of ApplyResponse only.
    own = {field.json_name for field in descriptor.fields}
    fields = {key: part for key, part in value.items() if key in own}
    assert value.keys() - extra - own == set()
    ParseDict(fields, message_factory.GetMessageClass(descriptor)())
    assert message in page().partition(f"### turnout {args[0]}\n")[2].partition("\n### ")[0]
    assert not re.search(r'"\w+_\w+":', result.out), "a key in snake_case"


def test_status_prints_the_status_and_the_models(run: Run, applied: Server) -> None:
    value = run("status", "-o", "json").json
    models = value.pop("models")
    assert value.keys() == {"level", "text", "problems", "summary", "nodes"}
    for message, part in (("Status", value), ("Model", models[0])):
        descriptor = descriptor_pool.Default().FindMessageTypeByName(f"turnout.v1.{message}")
        ParseDict(part, message_factory.GetMessageClass(descriptor)())
    assert "models" not in run("status", "--problems", "-o", "json").json


def test_yaml_has_the_names_of_files(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    text = run("switch", "iris", "--to", "green", "-o", "yaml").out
    assert "create_time: " in text
    assert "disconnected_nodes: []" in text
    assert not re.search(r"^\s*(- )?[a-z]+[A-Z]\w*:", text, re.MULTILINE)
