"""Compile states without their patches: to compare a change with a revision whose patches fail now."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.compiler.compile import NO_META, Compiler
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.patch_functions import without_patches
from controlplane.domain.revision import ObjectMeta
from controlplane.domain.state import State
from controlplane.snapshot import Audience, Snapshot


class UnpatchedCompiler:
    """A compiler that leaves out all patches. Not for several threads at a time."""

    def __init__(self) -> None:
        self._compiler = Compiler()

    def compile(
        self,
        state: State,
        endpoints: Endpoints,
        audience: Audience,
        revision: int,
        previous: Snapshot | None = None,
        meta: Mapping[str, ObjectMeta] = NO_META,
    ) -> Snapshot:
        """Return the snapshot of an audience, as `Compiler.compile` does, but without patches."""
        return self._compiler.compile(without_patches(state), endpoints, audience, revision, previous, meta)
