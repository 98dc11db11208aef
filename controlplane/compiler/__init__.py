"""The compiler: it turns desired state and live endpoints into the snapshot of an audience.

It does no I/O, and knows nothing of streams.
"""

from __future__ import annotations

from controlplane.compiler.audience import AudienceResolver, audience, audiences
from controlplane.compiler.compile import NO_META, Compiler

__all__ = ["NO_META", "AudienceResolver", "Compiler", "audience", "audiences"]
