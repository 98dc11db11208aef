"""`turnout apply` and `turnout validate`, on a real control plane."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from controlplane.cli import envoy
from controlplane.cli.exits import Exit
from controlplane.compiler.validation import Validator
from controlplane.envoy_types import ENDPOINTS
from controlplane.snapshot import Resource
from tests.cli.conftest import MINIMAL, Run, Server

ROOT = Path(__file__).parents[2]
EXAMPLES = [*sorted((ROOT / "examples").glob("*.yaml")), ROOT / "examples" / "many-models"]
EMPTY: dict[str, list[object]] = {"gateways": [], "models": [], "secrets": []}
# Moves all live traffic to green.
MOVED = MINIMAL.replace("{blue: 10000}", "{green: 10000}")


def test_apply_makes_one_revision(run: Run, server: Server, minimal: Path) -> None:
    result = run("apply", "-f", minimal, "--reason", "first")
    assert (result.code, result.err) == (0, "")
    assert "Revision 1 by ada@tests: first" in result.out
    assert "+ gateways/edge" in result.out
    assert "+ models/iris" in result.out
    assert "Sent to 0 nodes: " in result.out
    again = run("apply", "-f", minimal)
    assert again.out == "Nothing to change: revision 1 is like this already.\n"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_are_ready_to_apply(run: Run, server: Server, path: Path) -> None:
    result = run("apply", "-f", path, "-o", "json", "--wait")
    assert (result.code, result.err) == (0, "")
    assert result.json["revision"]["number"] == "1"
    assert result.json["progress"]["complete"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_examples_can_be_applied_again_after_a_switch(run: Run, server: Server, path: Path) -> None:
    assert run("apply", "-f", path).code == 0
    assert run("apply", "-f", path).out.startswith("Nothing to change")
    moved = 0
    for model in run("get", "models", "-o", "json").json["models"]:
        assert list(model["split"]) == [model["versions"][0]["name"]]
        if len(model["versions"]) > 1:
            last = model["versions"][-1]["name"]
            assert run("switch", model["name"], "--to", last, "--no-wait").code == 0
            moved += 1
    assert run("apply", "-f", path).out == f"Nothing to change: revision {1 + moved} is like this already.\n"


def test_stdin_and_json_output(run: Run, server: Server) -> None:
    result = run("apply", "-f", "-", "-o", "json", stdin=MINIMAL)
    assert result.code == 0
    assert result.json["changed"] is True
    assert result.json["revision"]["author"] == "ada@tests"
    assert run("apply", "-f", "-", "-o", "name", stdin=MINIMAL).out == "revisions/1\n"


def test_dry_run_shows_both_sides_and_changes_nothing(run: Run, applied: Server) -> None:
    applied.connect("edge-1")
    result = run("apply", "-f", "-", "--dry-run", stdin=MOVED)
    assert result.code == Exit.DIFFERENCE
    assert "~ models/iris" in result.out
    assert "split: blue 10000 -> green 10000" in result.out
    assert "Would be sent to 1 node: 1 RouteConfiguration, 0 Listeners, " in result.out
    assert (
        "Applying it needs --force:\n<stdin>:12: models[0].split: the split of models/iris differs from the live split"
        in result.out
    )
    assert run("get", "models", "-o", "json").json["models"][0]["split"] == {"blue": 10000}
    assert run("apply", "-f", "-", "--dry-run", "-o", "json", stdin=MOVED).json["needsForce"] is True
    same = run("apply", "-f", "-", "--dry-run", stdin=MINIMAL)
    assert (same.code, same.out.startswith("Nothing would change")) == (Exit.OK, True)


def test_moving_live_traffic_needs_force(run: Run, applied: Server) -> None:
    result = run("apply", "-f", "-", stdin=MOVED)
    assert result.code == Exit.CONFLICT
    assert result.err == (
        "Error: <stdin>:12: models[0].split: the split of models/iris differs from the live split, "
        "so applying it would move traffic\n"
        "Use `turnout switch` or `turnout split` to move traffic, or repeat with --force.\n"
    )
    assert run("apply", "-f", "-", "--force", stdin=MOVED).code == 0
    assert run("get", "models", "-o", "json").json["models"][0]["split"] == {"green": 10000}


def test_an_etag_in_the_file_is_checked(run: Run, applied: Server) -> None:
    history = run("get", "models", "iris", "-o", "json").json["models"][0]["etag"].removesuffix("-1")
    for etag, code, text in (
        (
            "77",
            Exit.INVALID,
            "'77' is an etag of an earlier version of Turnout. An etag now names the history and the revision, ",
        ),
        (f"{history}-77", Exit.CONFLICT, "has changed since the file was written"),
        ("ffffffff-1", Exit.CONFLICT, f"is of history ffffffff, and this control plane has history {history}"),
        (f"{history}-1", Exit.OK, ""),
    ):
        result = run("apply", "-f", "-", stdin=MOVED.replace("name: iris", f"name: iris\n    etag: '{etag}'"))
        assert result.code == code
        assert text in result.err


@pytest.mark.parametrize(
    ("old", "new", "code", "line", "expected"),
    [
        ("8002}]", "80020}]", 3, 11, "80020 is not a port"),
        ("{blue: 10000}", "{blue: 9000}", 3, 12, "must sum to 10,000"),
        ("{blue: 10000}", "{red: 10000}", 3, 12, "there is no version 'red'"),
        ("[{host: 127.0.0.1, port: 8001}]", "[]", 3, 12, "has no endpoints"),
        ("name: iris", "name: Iris", 3, 5, "is not a DNS label"),
        ("[edge]", "[elsewhere]", 5, 6, "gateways/elsewhere does not exist"),
        ("port: 10000\n", "port: 10000\n  - name: other\n    port: 10000\n", 5, None, "listens on"),
    ],
)
def test_an_error_of_the_server_names_the_line(
    run: Run, server: Server, old: str, new: str, code: int, line: int | None, expected: str
) -> None:
    assert old in MINIMAL
    text = MINIMAL.replace(old, new, 1)
    for command in (["apply"], ["apply", "--dry-run"], ["validate"], ["validate", "--offline"]):
        if "--offline" in command and "elsewhere" in new:
            continue  # it may be live
        result = run(*command, "-f", "-", stdin=text)
        assert result.code == code, result
        assert expected in result.err
        assert f"<stdin>:{line}: " in result.err if line else "<stdin>:" in result.err
    assert run("get", "all", "-o", "json").json == EMPTY


@pytest.mark.parametrize("command", [["validate", "--offline"], ["apply"]])
def test_an_unreadable_authority_is_an_error_with_its_line(run: Run, server: Server, command: list[str]) -> None:
    tls = (
        "    tls: {server_name: a.b, ca_certificates_pem: "
        '"-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n"}\n'
    )
    text = f"models:\n- name: iris\n  gateways: [edge]\n  versions:\n  - name: blue\n{tls}"
    result = run(*command, "-f", "-", stdin=text)
    assert (result.code, result.out) == (Exit.INVALID, "")
    assert "<stdin>:6: models[0].versions[0].tls.ca_certificates_pem: holds a certificate that can't be read" in result.err


def test_a_resource_that_envoy_would_refuse_is_an_error_with_its_line(
    run: Run, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Validator.check

    def check(self: Validator, resources: list[Resource], snapshot: object) -> None:
        original(self, [Resource.of(r.type_url, r.name, b"") for r in resources if r.type_url == ENDPOINTS])

    monkeypatch.setattr(Validator, "check", check)
    result = run("apply", "-f", "-", stdin=MINIMAL)
    assert result.code == Exit.INVALID
    assert "<stdin>:5: models[0]: Envoy would refuse ClusterLoadAssignment[iris/blue].cluster_name: " in result.err


def test_two_models_that_a_request_cannot_tell_apart(run: Run, applied: Server) -> None:
    other = "models: [{name: wine, gateways: [edge], keys: [iris], versions: [{name: v, endpoints: [{host: h, port: 1}]}]}]"
    result = run("apply", "-f", "-", stdin=other)
    assert result.code == Exit.CONFLICT
    assert "'iris' means models/iris" in result.err


def test_validate(run: Run, server: Server, minimal: Path) -> None:
    assert run("validate", "-f", minimal).out == "Valid: 1 gateway, 1 model.\n"
    assert run("history", "-o", "json").json == {"revisions": [], "nextPageToken": ""}


def test_validate_prints_resource_names(run: Run, server: Server, minimal: Path) -> None:
    for offline in ([], ["--offline"]):
        assert run("validate", *offline, "-f", minimal, "-o", "name").out == "gateways/edge\nmodels/iris\n"
    names = {"gateways": [{"name": "gateways/edge"}], "models": [{"name": "models/iris"}]}
    assert run("validate", "--offline", "-f", minimal, "-o", "json").json == names


@pytest.mark.envoy
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name)
def test_a_real_envoy_accepts_the_examples(run: Run, server: Server, path: Path) -> None:
    result = run("apply", "-f", path, "--validate-with-envoy", "--dry-run")
    assert result.code == Exit.DIFFERENCE
    assert "accepts it" in result.err
    assert run("validate", "-f", path, "--with-envoy").code == 0
    assert run("get", "all", "-o", "json").json == EMPTY


@pytest.mark.envoy
def test_an_envoy_without_the_module_of_a_filter_says_which_file_it_lacks(run: Run, server: Server) -> None:
    example = ROOT / "examples" / "patch-wasm"
    result = run("apply", "-f", example, "--validate-with-envoy")
    assert result.code == Exit.REFUSED
    assert "Invalid path: /etc/envoy/module.wasm" in result.err
    assert run("apply", "-f", example).code == 0


@pytest.mark.envoy
def test_a_configuration_that_a_real_envoy_refuses_is_not_applied(
    run: Run, server: Server, minimal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_bootstrap = '{"static_resources": {"clusters": [{"name": "c", "connect_timeout": "-1s"}]}}'
    original = envoy.validate
    monkeypatch.setattr(envoy, "validate", lambda bootstraps: original([*bootstraps, refused_bootstrap]))
    result = run("apply", "-f", minimal, "--validate-with-envoy")
    assert result.code == Exit.REFUSED
    assert "Expected positive duration" in result.err
    assert run("get", "all", "-o", "json").json == EMPTY


def test_a_saved_state_can_be_applied_later(run: Run, applied: Server, tmp_path: Path) -> None:
    saved = tmp_path / "saved.yaml"
    saved.write_text(run("get", "all", "-o", "yaml").out)
    assert "is like this already" in run("apply", "-f", saved).out
    run("switch", "iris", "--to", "green")
    outdated = run("apply", "-f", saved)
    assert (outdated.code, outdated.out) == (Exit.CONFLICT, "")
    line = max(i for i, text in enumerate(saved.read_text().splitlines(), 1) if text.strip().startswith("etag:"))
    first, advice = outdated.err.splitlines()
    assert first == f"Error: {saved}:{line}: etag: models/iris has changed since the file was written"
    assert "`turnout diff -f FILE` shows what the file would change" in advice
    assert "repeat with --force, or remove the `etag:` lines" in advice
    assert "split: green 10000 -> blue 10000" in run("diff", "-f", saved).out
    assert run("apply", "-f", saved, "--force").code == 0
    assert run("get", "models/iris", "-o", "json").json["models"][0]["split"] == {"blue": 10000}


def test_a_saved_state_of_another_history_is_a_conflict(run: Run, applied: Server, tmp_path: Path) -> None:
    saved = tmp_path / "saved.yaml"
    saved.write_text(re.sub(r"etag: [0-9a-f]{8}-", "etag: 00000000-", run("get", "models", "-o", "yaml").out))
    other = run("apply", "-f", saved)
    assert (other.code, "etag: models/iris is of history 00000000" in other.err) == (Exit.CONFLICT, True)
    assert "is like this already" in run("apply", "-f", saved, "--force").out
    saved.write_text(re.sub(r"\n *etag: .*", "", saved.read_text()))
    assert "is like this already" in run("apply", "-f", saved).out
