"""Compilation without patches."""

from __future__ import annotations

from dataclasses import replace

from controlplane.compiler import Compiler
from controlplane.compiler.unpatched import UnpatchedCompiler
from controlplane.domain import Gateway, Patch, PatchTarget
from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS
from controlplane.domain.state import State
from controlplane.snapshot import Audience
from tests.compiler.values import everything


def test_resources_are_those_of_the_same_state_without_patches() -> None:
    patched = Gateway("edge", 80, patches=(Patch("a", PatchTarget.FUNCTION, "{}", function="f", hash="0" * 32),))
    states = [State({"edge": gateway}) for gateway in (patched, replace(patched, patches=()))]
    without = UnpatchedCompiler().compile(states[0], NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    plain = Compiler().compile(states[1], NO_LIVE_ENDPOINTS, Audience(("edge",)), 1)
    assert everything(without) == everything(plain)
