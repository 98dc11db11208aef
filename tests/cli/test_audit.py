"""`turnout audit`: what changes and refusals leave in the log of a real server, and what `verify` finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.audit.files import AuditFiles, paths, unwritable
from controlplane.cli.exits import Exit
from tests.cli.conftest import Run, Server
from tests.pki import marks, pair

FRONT = pair("front.example")


def listed(run: Run, server: Server, *options: str | Path) -> list[dict[str, Any]]:
    result = run("audit", "--data", server.data, *options, "-o", "json")
    assert result.code == 0, result.err
    entries: list[dict[str, Any]] = result.json["entries"]
    return entries


def test_each_change_and_each_refusal_has_an_entry(run: Run, applied: Server, tmp_path: Path) -> None:
    certificate, key = FRONT.files(tmp_path, "front")
    assert run("secret", "set", "front", "--cert", certificate, "--key", key, "-r", "new edge").code == 0
    assert run("switch", "iris", "--to", "green", "--no-wait", "-r", "canary is fine").code == 0
    assert run("switch", "iris", "--to", "blue", "--dry-run").code in (0, 1)
    assert run("switch", "iris", "--to", "nothing").code != 0
    assert run("get", "models").code == 0
    entries = listed(run, applied)
    calls = [(e["event"], e["call"], e.get("code"), e.get("objects"), e.get("reason", "")) for e in entries]
    assert calls[1:] == [
        ("call", "RevisionService/Apply", "OK", ["secrets/front"], "new edge"),
        ("call", "ModelService/SwitchTraffic", "OK", ["models/iris"], "canary is fine"),
        ("stranger", "ModelService/SwitchTraffic", entries[3]["code"], ["models/iris"], ""),
    ]
    assert calls[0][:4] == ("call", "RevisionService/Apply", "OK", ["gateways/edge", "models/iris"])
    assert entries[3]["code"] != "OK"
    assert entries[2]["author_note"] == "ada@tests"
    assert entries[2]["from"].startswith("127.0.0.1:")
    assert str(entries[2]["revision"]).endswith("3")
    content = b"".join(path.read_bytes() for path in paths(applied.data / "audit"))
    assert not any(mark.encode() in content for mark in marks(FRONT.key))
    everything = listed(run, applied, "--all", "-n", "100")
    assert [e["event"] for e in everything].count("attempt") == 4
    assert everything[0]["event"] == "begin"


def test_the_list_has_filters_and_a_table(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green", "--no-wait")
    run("switch", "iris", "--to", "nothing")
    assert [e["call"] for e in listed(run, applied, "--object", "models/iris", "--call", "switch", "-n", "1")]
    assert [e.get("code") for e in listed(run, applied, "--refused")] != ["OK"]
    assert len(listed(run, applied, "--refused")) == 1
    assert len(listed(run, applied, "--who", "ada")) == 3
    assert listed(run, applied, "--who", "hugo") == []
    assert len(listed(run, applied, "--since", "1h")) == 3
    assert listed(run, applied, "--since", "2099-01-01") == []
    table = run("audit", "--data", applied.data).out
    assert "TIME" in table
    assert "(ada@tests)" in table
    assert "revision 2" in table or "-2" in table
    wrong = run("audit", "--data", applied.data, "--since", "yesterday")
    assert (wrong.code, "is neither an age" in wrong.err) == (Exit.INVALID, True)


def test_verify_finds_a_cut_end_while_the_server_runs_and_after_it(run: Run, applied: Server) -> None:
    run("switch", "iris", "--to", "green", "--no-wait")
    whole = run("audit", "verify", "--data", applied.data)
    assert (whole.code, "The audit log is whole: entries 1 to " in whole.out) == (0, True), whole.err
    applied.stop()
    (path,) = paths(applied.data / "audit")
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:-1]))
    cut = run("audit", "verify", "--data", applied.data)
    assert (cut.code, "are missing: the store knows the log up to" in cut.err) == (Exit.INVALID, True)
    path.write_bytes(content.replace(b"models/iris", b"models/wine"))
    edited = run("audit", "verify", "--data", applied.data, "-o", "json")
    assert (edited.code, "its hash does not fit" in edited.json["problems"][0]) == (Exit.INVALID, True)


def test_a_change_is_refused_when_its_entry_can_not_be_written(
    run: Run, applied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise unwritable(OSError(28, "No space left on device"), applied.data / "audit")

    with monkeypatch.context() as patch:
        patch.setattr(AuditFiles, "append", full)
        refused = run("switch", "iris", "--to", "green", "--no-wait")
        assert refused.code == Exit.CONFLICT
        assert f"there is no space left for the audit log in {applied.data / 'audit'}: free some" in refused.err
        assert run("get", "models").code == 0
    assert run("history", "-o", "name").out.count("revisions/") == 1
    assert run("switch", "iris", "--to", "green", "--no-wait").code == 0
    assert [e["reason_code"] for e in listed(run, applied, "--refused")] == ["AUDIT_FULL"]
    assert run("audit", "verify", "--data", applied.data).code == 0


def test_a_folder_without_a_log(run: Run, tmp_path: Path) -> None:
    missing = run("audit", "--data", tmp_path)
    assert (missing.code, "has no audit log" in missing.err) == (Exit.CONFLICT, True)
    off = run("audit", "--data", tmp_path, "--audit", "off")
    assert (off.code, "turn the audit log off" in off.err) == (Exit.CONFLICT, True)
