"""The commands of docs/backup.md: a backup of a store that is open can be checked, restored, and opened."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.store.opening import open_store
from tests.store.places import filled
from tests.structure.tree import ROOT


def commands(directory: Path, backups: Path) -> list[str]:
    """Return the blocks of the page that need only Python, for this data directory and this folder of backups."""
    text = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
    blocks = [block for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) if "python3 -c" in block]
    file = f"{backups}/backup.db"
    blocks = [re.sub(r"/backups/turnout-.+?\.db", file, block).replace("DIR/", f"{directory}/") for block in blocks]
    return [block.replace("python3 -c", f"{sys.executable} -c") for block in blocks]


def run(command: str) -> str:
    """Run a block in a shell, and return its output."""
    return subprocess.run(["bash", "-euc", command], capture_output=True, text=True, check=True).stdout


async def test_a_backup_that_is_made_as_the_page_says_is_the_whole_history(tmp_path: Path) -> None:
    directory, backups, restored = tmp_path / "data", tmp_path / "backups", tmp_path / "restored"
    backups.mkdir()
    store = await open_store(directory)
    heads = await filled(store)
    make, check = commands(directory, backups)
    run(make)
    assert run(check).split() == ["ok", str(heads[-1].number)]
    backup = backups / "backup.db"
    assert [file.name for file in backups.iterdir()] == [backup.name]
    assert backup.stat().st_mode & 0o777 == 0o600
    await store.close()

    restored.mkdir(mode=0o700)
    shutil.copy2(backup, restored / "turnout.db")
    shutil.copy2(directory / "secret.key", restored / "secret.key")
    again = await open_store(restored)
    assert again.head.value == heads[-1]
    await again.close()


def test_a_wrong_path_makes_no_empty_backup(tmp_path: Path) -> None:
    make, _ = commands(tmp_path / "nowhere", tmp_path)
    assert subprocess.run(["bash", "-euc", make], capture_output=True, check=False).returncode != 0
    assert list(tmp_path.iterdir()) == []
