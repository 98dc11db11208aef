"""The files of plug-ins, their hashes and their copies."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from controlplane.errors import Error
from controlplane.patch_functions import Plugin, PluginStore, installed


def test_the_hash_is_of_all_paths_and_contents() -> None:
    files = {"a.py": b"x", "b/c.py": b"y"}
    same = Plugin(dict(reversed(files.items())))
    assert Plugin(files).hash == same.hash
    others = [{"a.py": b"x"}, {**files, "a.py": b"z"}, {"a.py": b"x", "b/d.py": b"y"}, {"a.py": b"xb", "/c.py": b"y"}]
    assert len({Plugin(f).hash for f in (files, *others)}) == 5


def test_a_module_is_found_by_its_name_and_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one_module_patches.py").write_text("a = 1\n")
    package = tmp_path / "a_package_of_patches"
    (package / "__pycache__").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "table.json").write_text("{}")
    (package / "__pycache__" / "x.pyc").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name, files in (
        ("one_module_patches", {"one_module_patches.py"}),
        ("a_package_of_patches", {"a_package_of_patches/__init__.py", "a_package_of_patches/table.json"}),
    ):
        by_name = installed(name)
        path = tmp_path / (f"{name}.py" if len(files) == 1 else name)
        by_path = installed(str(path))
        assert by_name is not None
        assert by_path is not None
        assert set(by_name.files) == files
        assert by_name.hash == by_path.hash


def test_without_a_module_the_entry_points_are_the_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed("") is None
    (tmp_path / "patches_of_a_package.py").write_text("")
    metadata = tmp_path / "some_package-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Name: some-package\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[turnout.patches]\nteam = patches_of_a_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin = installed("")
    assert plugin is not None
    assert set(plugin.files) == {"patches_of_a_package.py"}


@pytest.mark.parametrize("module", ["no_such_module_of_patches", "a-b", "/nowhere/x.py", "/nowhere", "sys"])
def test_what_is_no_module_is_refused(module: str) -> None:
    with pytest.raises(Error, match=f"patches: .*'{module}'"):
        installed(module)


def test_a_large_plugin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"#" * (16 << 20) + b"\n")
    with pytest.raises(Error, match=r"16,777,217 bytes, but may have 1,000 of 16,777,216"):
        installed(str(tmp_path / "a.py"))


def test_copies_stay_and_a_damaged_one_is_found_and_replaced(tmp_path: Path) -> None:
    one, two = Plugin({"a.py": b"1"}), Plugin({"a.py": b"2", "b/__init__.py": b""})
    store = PluginStore(tmp_path / "copies")
    assert store.find(one.hash) is None
    store.add(one)
    store.add(two)
    folders = [store.find(plugin.hash) for plugin in (one, two)]
    assert None not in folders
    first = folders[0]
    assert first is not None
    (first / "a.py").write_bytes(b"3")
    assert store.find(one.hash) is None
    store.add(one)
    assert PluginStore(tmp_path / "copies").find(one.hash) == first
    assert sorted(p.name for p in (tmp_path / "copies").iterdir()) == sorted((one.hash, two.hash))
