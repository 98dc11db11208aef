"""Impacts as messages, with the probes of the versions that traffic moves to."""

from __future__ import annotations

from typing import Any

from controlplane.api.convert.revision import impact_to_proto
from controlplane.domain.collections import resource_name
from controlplane.domain.model import Model
from controlplane.generated.turnout.v1 import revision_pb2
from controlplane.probe import VersionProbe, warnings
from controlplane.writer import Outcome, Writer

# Versions whose probes a response lists.
_MAX_PROBES = 100


async def impact_with_probes(writer: Writer, outcome: Outcome, request: Any) -> revision_pb2.Impact:
    """Return the impact of a write. Probe the versions whose shares rise from 0, unless the request has `no_probe`.

    Requests that can't move traffic to another version have no such field. It takes at most a second.
    """
    impact = impact_to_proto(outcome.impact)
    if not getattr(request, "no_probe", True):
        probes = await writer.probe(outcome, validate_only=request.validate_only)
        impact.warnings.extend(warnings(probes))
        impact.probes.extend(probe_to_proto(p) for p in probes[:_MAX_PROBES])
    return impact


def probe_to_proto(probe: VersionProbe) -> revision_pb2.VersionProbe:
    """Return the message of a probe."""
    return revision_pb2.VersionProbe(
        model=resource_name(Model, probe.model),
        version=probe.version,
        endpoints=probe.total,
        probed=probe.probed,
        answering=probe.answering,
        failures=[revision_pb2.EndpointFailure(endpoint=e.address, reason=e.reason) for e in probe.failures],
    )
