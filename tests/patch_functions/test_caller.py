"""Functions of a plug-in, called in real child processes: their results, and every way in which a call fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2

from controlplane.compiler.functions import FunctionCall, FunctionFailed
from controlplane.patch_functions import PluginFunctions, PluginStore, caller
from controlplane.patch_functions.sandbox import unenforced
from tests.patch_functions.plugins import CLUSTER, a_call, functions_of, plugin_of

CODE = """
count = 0
started = str(time.monotonic_ns())


def rename(cluster: Cluster, settings: dict) -> Cluster:
    print("a line on stdout")
    cluster.alt_stat_name = settings["name"]
    return cluster


def lines(cluster: Cluster, settings: dict) -> Cluster:
    return (
        rename(cluster, settings)
    )


def hangs(cluster: Cluster, settings: dict) -> Cluster:
    while True:
        pass


def sleeps(cluster: Cluster, settings: dict) -> Cluster:
    time.sleep(60)
    return cluster


def grows(cluster: Cluster, settings: dict) -> Cluster:
    bytearray(1 << 30)
    return cluster


def connects(cluster: Cluster, settings: dict) -> Cluster:
    socket.socket()
    return cluster


def random_name(cluster: Cluster, settings: dict) -> Cluster:
    cluster.alt_stat_name = str(random.random())
    return cluster


def counts(cluster: Cluster, settings: dict) -> Cluster:
    global count
    count += 1
    cluster.alt_stat_name = str(count)
    return cluster


def process(cluster: Cluster, settings: dict) -> Cluster:
    cluster.alt_stat_name = str(os.getpid())
    return cluster


def imported(cluster: Cluster, settings: dict) -> Cluster:
    cluster.alt_stat_name = started
    return cluster


def returns_none(cluster: Cluster, settings: dict):
    pass


def exits(cluster: Cluster, settings: dict) -> Cluster:
    os._exit(3)


def hash_of_text(cluster: Cluster, settings: dict) -> Cluster:
    cluster.alt_stat_name = str(hash("a"))
    return cluster


def environment(cluster: Cluster, settings: dict) -> Cluster:
    cluster.alt_stat_name = ",".join(sorted(os.environ))
    return cluster


def of_routes(routes: RouteConfiguration, settings: dict) -> RouteConfiguration:
    return routes


def helper(text: str) -> str:
    return text
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginFunctions]:
    functions = functions_of(tmp_path_factory.mktemp("copies"), CODE)
    yield functions
    functions.close()


def test_no_call_leaves_anything_for_the_next_one(functions: PluginFunctions) -> None:
    assert [stat_name(a_call(functions, "counts", settings)) for settings in ("{}", "[]")] == ["1", "1"]


def stat_name(body: bytes) -> str:
    return str(cluster_pb2.Cluster.FromString(body).alt_stat_name)


def test_a_function_gets_a_typed_message_and_its_settings(functions: PluginFunctions) -> None:
    body = a_call(functions, "rename", '{"name": "x"}', cluster_pb2.Cluster(name="a").SerializeToString())
    assert cluster_pb2.Cluster.FromString(body) == cluster_pb2.Cluster(name="a", alt_stat_name="x")


FAILURES = [
    ("rename", "KeyError: 'name' (team.py, line 16, in rename: cluster.alt_stat_name = settings[\"name\"])"),
    ("lines", "KeyError: 'name' (team.py, line 16, in rename: cluster.alt_stat_name = settings[\"name\"])"),
    ("hangs", "took more than 1 s of CPU time"),
    ("grows", "needs more than 256 MiB: MemoryError (team.py, line 37, in grows: bytearray(1 << 30))"),
    ("process", "gives two results for the same arguments, but must be pure"),
    ("imported", "gives two results for the same arguments, but must be pure"),
    ("random_name", "gives two results for the same arguments, but must be pure"),
    ("returns_none", "must return a Cluster, but returned a NoneType"),
    ("exits", "ended its process, with status 3"),
    ("of_routes", "takes a RouteConfiguration, but patches of this object change a Cluster"),
    (
        "helper",
        "is not in the plug-in; there are: connects, counts, environment, exits, grows, hangs, hash_of_text, imported, ",
    ),
]
CONFINED = [
    ("sleeps", "failed: PermissionError: [Errno 1] Operation not permitted (team.py, line 32, in sleeps: time.sleep(60))"),
    ("connects", "failed: PermissionError: [Errno 1] Operation not permitted (team.py, line 42, in connects: "),
]


@pytest.mark.parametrize(("function", "text"), [*FAILURES, *([] if unenforced() else CONFINED)])
def test_a_failure_names_the_function_the_error_and_its_place(functions: PluginFunctions, function: str, text: str) -> None:
    with pytest.raises(FunctionFailed) as raised:
        a_call(functions, function)
    assert f"the function '{function}' " in str(raised.value)
    assert text in str(raised.value)
    assert stat_name(a_call(functions, "rename", '{"name": "still"}')) == "still"


def test_a_second_server_gets_the_same_results_without_its_environment_and_after_its_child_was_killed(
    functions: PluginFunctions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    other = functions_of(tmp_path, CODE)
    assert stat_name(a_call(functions, "hash_of_text")) == stat_name(a_call(other, "hash_of_text"))
    assert "PYTHONHASHSEED" in stat_name(a_call(other, "environment"))
    assert "AWS_SECRET_ACCESS_KEY" not in stat_name(a_call(other, "environment"))
    first = a_call(other, "rename", '{"name": "x"}')
    pair: Any = other._pairs[other.installed]
    child = pair._children[1]._process
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert a_call(other, "rename", '{"name": "x"}') is first
    assert stat_name(a_call(other, "rename", '{"name": "y"}')) == "y"
    other.close()


def test_a_plugin_that_can_not_be_imported_says_where(tmp_path: Path) -> None:
    functions = functions_of(tmp_path, "\nraise ValueError('bad\\x1b[31m')\n")
    with pytest.raises(
        FunctionFailed, match=r"can't be imported: ValueError: bad\\u001b\[31m \(team.py, line 10, in <module>"
    ):
        a_call(functions, "rename")
    functions.close()


def test_the_functions_of_an_earlier_plugin_still_run_and_those_of_an_unknown_one_do_not(tmp_path: Path) -> None:
    before = functions_of(tmp_path, CODE)
    before.close()
    functions = PluginFunctions(PluginStore(tmp_path), plugin_of(CODE.replace('settings["name"]', '"new"')))
    body = functions.call(FunctionCall(before.installed, "rename", '{"name": "old"}', CLUSTER, b""))
    assert stat_name(body) == "old"
    assert stat_name(a_call(functions, "rename")) == "new"
    with pytest.raises(FunctionFailed, match=f"of which this server has no copy; the installed one has {functions.installed}"):
        functions.call(FunctionCall("0" * 32, "rename", "{}", CLUSTER, b""))
    functions.close()


def test_a_server_without_a_plugin_has_no_functions(tmp_path: Path) -> None:
    functions = PluginFunctions(PluginStore(tmp_path), None)
    assert functions.installed == ""
    with pytest.raises(FunctionFailed, match=r"no copy; none is installed. Start the server with that plug-in"):
        functions.call(FunctionCall("0" * 32, "rename", "{}", CLUSTER, b""))


def test_results_are_known_after_a_restart_unless_the_copy_of_the_plugin_is_lost(tmp_path: Path) -> None:
    before = functions_of(tmp_path, CODE)
    result = a_call(before, "rename", '{"name": "x"}')
    before.close()
    after = functions_of(tmp_path, CODE)
    assert a_call(after, "rename", '{"name": "x"}') == result
    assert not after._pairs
    assert stat_name(a_call(after, "rename", '{"name": "y"}')) == "y"
    after.close()
    (tmp_path / after.installed / "team.py").unlink()
    without = PluginFunctions(PluginStore(tmp_path), None)
    with pytest.raises(FunctionFailed, match="of which this server has no copy"):
        without.call(FunctionCall(after.installed, "rename", '{"name": "x"}', CLUSTER, b""))


def test_a_full_file_of_results_is_written_anew_with_those_that_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "_RESULTS", 150)
    functions = functions_of(tmp_path, CODE)
    for i in range(4):
        a_call(functions, "rename", f'{{"name": "{i:060}"}}')
    functions.close()
    again = functions_of(tmp_path, CODE)
    assert stat_name(a_call(again, "rename", f'{{"name": "{3:060}"}}')).endswith("3")
    assert not again._pairs
