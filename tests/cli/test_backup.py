"""`turnout backup` and `turnout restore`, end to end: with secrets, and with the sealing key kept in another place."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from controlplane.cli.exits import Exit
from controlplane.errors import Error
from tests.cli.conftest import Run, Server, split_of
from tests.pki import marks, pair
from tests.structure.tree import ROOT

FRONT = pair("front.example")


@pytest.fixture
def filled(run: Run, applied: Server, tmp_path: Path) -> Server:
    """The control plane after a secret was set, as revision 2."""
    certificate, key = FRONT.files(tmp_path, "front")
    assert run("secret", "set", "front", "--cert", certificate, "--key", key).code == 0
    return applied


def test_a_backup_brings_everything_back_but_the_sealing_key(
    run: Run, filled: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, file, kept_key = tmp_path / "data", tmp_path / "backup.db", tmp_path / "kept" / "secret.key"
    made = run("backup", file, "--data", data)
    assert re.match(r"Backup of revision 2 \(.*, history [0-9a-f]{8}\): .*backup\.db, \d+ KB, checked\.\n", made.out)
    assert f"Keep a copy of the sealing key (the file secret.key in {data}" in made.out
    assert file.stat().st_mode & 0o777 == 0o600
    content = file.read_bytes()
    key = (data / "secret.key").read_bytes().strip()
    assert key not in content
    assert not any(mark.encode() in content for mark in marks(FRONT.key))

    # Lost after the backup: a switch, and its etag.
    assert run("switch", "iris", "--to", "green", "--no-wait").code == 0
    lost = run("get", "models", "-o", "yaml").out
    assert run("restore", file, "--data", data, "--replace").code == Exit.CONFLICT, "the server uses it"
    filled.stop()
    kept_key.parent.mkdir()
    kept_key.write_bytes(key)
    kept_key.chmod(0o600)

    restored = tmp_path / "restored"
    result = run("restore", file, "--data", restored)
    assert result.code == 0
    assert "Restored revision 2 " in result.out
    assert "are refused (OTHER_HISTORY)" in result.out
    assert "Envoys get the state of revision 2: later revisions are lost" in result.out
    assert f"{restored / 'secret.key'} does not open them: put your copy of the sealing key there" in result.out
    with pytest.raises(Error, match=r"secret\.key does not exist: it holds the key that private keys are sealed with"):
        Server(restored)
    (restored / "secret.key").write_bytes(kept_key.read_bytes())
    (restored / "secret.key").chmod(0o600)

    server = Server(restored)
    try:
        monkeypatch.setenv("TURNOUT_API", server.api)
        assert split_of(run) == {"blue": 10000}
        assert run("get", "secrets", "-o", "name").out == "secrets/front\n"
        assert [r["number"] for r in run("history", "-o", "json").json["revisions"]] == ["2", "1"]
        stale = run("apply", "-f", "-", stdin=lost)
        assert stale.code == Exit.CONFLICT
        assert "its store was restored from a backup" in stale.err
        # The number of the lost revision is used again, under another history.
        assert run("switch", "iris", "--to", "green", "--no-wait", "-o", "json").json["revision"]["number"] == "3"
        assert run("get", "models", "-o", "yaml").out != lost
    finally:
        server.stop()


def test_as_data(run: Run, filled: Server, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "backup.db"
    made = run("backup", file, "--data", data, "-o", "json").json
    assert (made["revision"], made["file"], made["bytes"]) == (2, str(file), file.stat().st_size)
    assert len(made["sealingKeyIds"]) == 1
    checked = run("restore", file, "--dry-run", "-o", "json").json
    assert checked == made
    assert "revision 2 (" in run("restore", file, "--dry-run").out
    restored = run("restore", file, "--data", tmp_path / "new", "-o", "json").json
    assert restored["restoredHistory"] == made["history"] != restored["history"]
    assert (restored["data"], restored["revision"]) == (str(tmp_path / "new"), 2)
    assert run("restore", file, "--data", tmp_path / "new", "--replace", "-o", "name").out == f"{tmp_path / 'new'}\n"
    assert run("backup", tmp_path / "second.db", "--data", tmp_path / "new", "-o", "name").out == f"{tmp_path / 'second.db'}\n"


def test_errors(run: Run, filled: Server, tmp_path: Path) -> None:
    assert run("backup", tmp_path / "b.db", "--data", tmp_path / "x").code == Exit.CONFLICT
    missing = run("restore", tmp_path / "b.db", "--dry-run")
    assert (missing.code, "is not a file" in missing.err) == (Exit.CONFLICT, True)
    assert run("backup", tmp_path / "b.db", "--data", tmp_path / "data").code == 0
    again = run("backup", tmp_path / "b.db", "--data", tmp_path / "data")
    assert (again.code, "exists already: name a new file" in again.err) == (Exit.CONFLICT, True)
    damaged = bytearray((tmp_path / "b.db").read_bytes())
    damaged[damaged.index(b'{"name":"edge"') + 9] ^= 1
    (tmp_path / "b.db").write_bytes(damaged)
    refused = run("restore", tmp_path / "b.db", "--data", tmp_path / "new")
    assert refused.code == Exit.CONFLICT
    assert "is damaged, or not a backup: table objects, revision 1, gateways/edge" in refused.err


def test_the_key_beside_a_restored_store_is_recognised(run: Run, filled: Server, tmp_path: Path) -> None:
    data, file = tmp_path / "data", tmp_path / "backup.db"
    run("backup", file, "--data", data)
    filled.stop()
    result = run("restore", file, "--data", data, "--replace")
    assert f"The files that were there before are in {data}/before-restore-" in result.out
    assert "does not open them" not in result.out


def test_the_page_has_the_commands_that_work(run: Run, applied: Server, tmp_path: Path) -> None:
    """Run each block of docs/backup.md that is a command, in its order."""
    page = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```\n *(turnout .*)\n *```$", page, re.MULTILINE)
    assert [block.split()[1] for block in blocks] == ["backup", "restore", "restore"]
    applied_data = str(tmp_path / "data")
    for block, data in zip(blocks, (applied_data, applied_data, str(tmp_path / "new")), strict=True):
        command = re.sub(r"/backups/turnout-.+?\.db", str(tmp_path / "backup.db"), block).replace("DIR", data)
        result = run(*shlex.split(command)[1:])
        assert (result.code, result.err) == (0, ""), command
