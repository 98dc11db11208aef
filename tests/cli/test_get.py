"""`turnout get`: objects of desired state, on a real control plane."""

from __future__ import annotations

import yaml

from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server


def test_get(run: Run, applied: Server) -> None:
    table = run("get", "all").out
    assert "gateways/edge" in table
    assert "blue 100%" in table
    assert run("get", "models", "-o", "name").out == "models/iris\n"
    assert run("get", "model", "iris", "-o", "name").out == "models/iris\n"
    assert run("get", "gateway", "gateways/edge", "-o", "json").json["gateways"][0]["port"] == 10000
    assert yaml.safe_load(run("get", "models", "iris", "-o", "yaml").out)["models"][0]["split"] == {"blue": 10000}
    missing = run("get", "models", "wine")
    assert missing.code == Exit.NOT_FOUND
    assert "models/wine does not exist; there are: iris" in missing.err


def test_the_output_of_get_can_be_applied(run: Run, applied: Server) -> None:
    for form in ("yaml", "json"):
        everything = run("get", "all", "-o", form).out
        result = run("apply", "-f", "-", stdin=everything)
        assert (result.code, result.out) == (0, "Nothing to change: revision 1 is like this already.\n")


def test_get_before_the_first_revision(run: Run, server: Server) -> None:
    for kind in ("models", "gateways", "all", "nodes", "revisions"):
        result = run("get", kind)
        assert (result.code, result.out) == (0, "")
        assert result.err


def test_every_way_to_name_an_object(run: Run, applied: Server) -> None:
    for args in (["models/iris"], ["model/iris"], ["models", "iris"], ["model", "iris"], ["models", "models/iris"]):
        assert run("get", *args, "-o", "name").out == "models/iris\n"
    both = run("get", "models/iris", "gateway/edge", "-o", "json").json
    assert {kind: [obj["name"] for obj in objects] for kind, objects in both.items()} == {
        "gateways": ["gateways/edge"],
        "models": ["models/iris"],
    }
    assert run("get", "revisions/1", "-o", "name").out == run("get", "revision", "1", "-o", "name").out == "revisions/1\n"
    for args in (["iris"], ["models/iris"], ["model", "iris"]):
        assert run("history", *args, "-o", "name").out == "revisions/1\n"
    assert run("delete", "model", "iris", "--yes", "-o", "name").out == "revisions/2\n"


def test_a_mistyped_name_has_a_suggestion(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    assert "models/irsi does not exist; did you mean 'iris'?" in run("get", "models/irsi").err
    assert "models/irsi does not exist; did you mean 'iris'?" in run("switch", "irsi", "--to", "green").err
    assert "there is no version 'gren'; there are: blue, green; did you mean 'green'?" in run("switch", "iris=gren").err
    assert "nodes/egde-1 does not exist; did you mean 'edge-1'?" in run("nodes", "egde-1").err


def test_the_version(run: Run) -> None:
    assert run("--version").out == run("version").out
    assert run("--version").out.startswith("turnout ")
