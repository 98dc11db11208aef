"""The compiler: from desired state and live endpoints to what an audience should hold. Pure, and unaware of streams."""

from __future__ import annotations

from controlplane.compiler.audience import AudienceResolver, audience, audiences
from controlplane.compiler.compile import Compiler

__all__ = ["AudienceResolver", "Compiler", "audience", "audiences"]
