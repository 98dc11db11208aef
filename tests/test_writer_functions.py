"""The writer and functions of plug-ins: hashes are filled in, and a head whose functions fail can be repaired."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from envoy.config.listener.v3 import listener_pb2

from controlplane.compiler import Compiler
from controlplane.compiler.decode import decoded
from controlplane.compiler.functions import FunctionCall, FunctionFailed, Functions
from controlplane.domain import Gateway, Patch, PatchTarget
from controlplane.envoy_types import LISTENER
from controlplane.errors import Error
from controlplane.snapshot import Audience
from controlplane.store import Store
from controlplane.writer import CachingCompiler, Outcome, Writer
from tests.store.opening import open_store
from tests.test_writer import EDGE, IRIS, SWITCHED, draft, to

OLD, NEW = "0" * 32, "1" * 32
CALL = Patch("a", PatchTarget.FUNCTION, "{}", function="f")
PATCHED = replace(EDGE, patches=(CALL,))
BACKLOGS = {OLD: 7, NEW: 8}


@dataclass
class Backlogs(Functions):
    """A function that sets the backlog of a listener, to another number in each plug-in."""

    known: set[str] = field(default_factory=lambda: {OLD, NEW})
    installed: str = ""

    def call(self, call: FunctionCall) -> bytes:
        if call.hash not in self.known:
            raise FunctionFailed(f"the function 'f' is of the plug-in with the hash {call.hash}, which is gone")
        listener = listener_pb2.Listener.FromString(call.body)
        listener.tcp_backlog_size.value = BACKLOGS[call.hash]
        return bytes(listener.SerializeToString())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await open_store(tmp_path)
    yield store
    await store.close()


def a_writer(store: Store, functions: Functions, plugin: str) -> Writer:
    functions.installed = plugin
    return Writer(store, CachingCompiler(Compiler(functions)), functions=functions)


def backlog(outcome: Outcome) -> int:
    (listener,) = outcome.snapshots[Audience(("edge",))].resources[LISTENER].values()
    return int(decoded(listener).tcp_backlog_size.value)


def live_hashes(store: Store) -> list[str]:
    return [patch.hash for patch in store.head.value.state.gateways["edge"].patches]


async def test_the_same_file_moves_an_object_to_a_new_plugin_and_everything_else_leaves_it(store: Store) -> None:
    functions = Backlogs()
    first = a_writer(store, functions, OLD)
    assert backlog(await first.write(to(PATCHED, IRIS), draft())) == 7
    assert not (await first.write(to(PATCHED), draft())).changed
    second = a_writer(store, functions, NEW)
    assert backlog(await second.write(to(SWITCHED), draft())) == 7
    assert live_hashes(store) == [OLD]
    planned = await second.write(to(PATCHED), draft(), validate_only=True)
    assert (backlog(planned), planned.impact.types, planned.impact.warnings) == (8, {LISTENER: (1, 0)}, ())
    assert live_hashes(store) == [OLD]
    assert backlog(await second.write(to(PATCHED), draft())) == 8
    assert live_hashes(store) == [NEW]


async def test_a_failing_function_refuses_the_revision(store: Store) -> None:
    writer = a_writer(store, Backlogs(set()), OLD)
    await writer.write(to(EDGE, IRIS), draft())
    with pytest.raises(Error, match=r"gateways/edge\.patches\[0\]\.function: the function 'f' is of the plug-in") as raised:
        await writer.write(to(PATCHED), draft())
    assert raised.value.reason == "PATCH_FUNCTION_FAILED"
    assert store.head.value.state.gateways["edge"] == EDGE


@pytest.mark.parametrize("repaired", [PATCHED, EDGE, Gateway("edge", 8081)])
async def test_a_head_whose_function_fails_is_repaired_by_a_change_and_only_by_one_that_repairs_it(
    store: Store, repaired: Gateway
) -> None:
    functions = Backlogs()
    await a_writer(store, functions, OLD).write(to(PATCHED, IRIS), draft())
    functions.known = {NEW}
    writer = a_writer(store, functions, NEW)
    with pytest.raises(Error, match=f"{OLD}, which is gone"):
        await writer.write(to(SWITCHED), draft())
    assert store.head.value.number == 1
    outcome = await writer.write(to(repaired), draft())
    assert outcome.changed
    (warning,) = outcome.impact.warnings
    assert warning.startswith("a patch of revision 1 fails here (gateways/edge.patches[0].function: ")
    after = await writer.write(to(SWITCHED), draft())
    assert (after.changed, after.impact.warnings, len(after.impact.types)) == (True, (), 1)


async def test_the_impact_of_a_past_revision_is_known_without_its_plugin(store: Store) -> None:
    functions = Backlogs()
    writer = a_writer(store, functions, OLD)
    for gateway in (PATCHED, EDGE):
        await writer.write(to(gateway), draft())
    functions.known = set()
    again = a_writer(store, functions, "")
    impact = await again.impact(await store.at(1), await store.at(2))
    assert "a patch of revision 1 fails here" in impact.warnings[0]
