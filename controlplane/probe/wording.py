"""Warnings about versions that don't answer, as sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

from controlplane.probe.results import EndpointProbe, VersionProbe

# The number of endpoints that a warning names, and of versions that get a warning of their own.
_ENDPOINTS = 3
_VERSIONS = 10


def warnings(probes: Sequence[VersionProbe]) -> list[str]:
    """Return a warning for each version with an endpoint that does not answer; from the eleventh, only their number."""
    failing = [p for p in probes if p.failures]
    texts = [_warning(p) for p in failing[:_VERSIONS]]
    if len(failing) > _VERSIONS:
        texts.append(f"as seen from the control plane, endpoints of {len(failing) - _VERSIONS:,} more versions don't answer")
    return texts


def failures_in_words(probe: VersionProbe) -> str:
    """Return `as seen from the control plane: 10.0.0.5:80 connection refused, …`."""
    return f"as seen from the control plane: {_listed(probe.failures)}"


def _warning(probe: VersionProbe) -> str:
    """Return `as seen from the control plane, iris/green: 0 of 2 endpoints answer: 10.0.0.5:80 connection refused, …`."""
    noun, verb = ("endpoint", "answers") if probe.probed == 1 else ("endpoints", "answer")
    sample = f" that were probed, of {probe.total:,}," if probe.probed < probe.total else ""
    counts = f"{probe.answering} of {probe.probed} {noun}{sample} {verb}"
    return f"as seen from the control plane, {probe.model}/{probe.version}: {counts}: {_listed(probe.failures)}"


def _listed(failures: Sequence[EndpointProbe]) -> str:
    """Return `10.0.0.5:80 connection refused, 10.0.0.6:80 …`."""
    text = ", ".join(f"{e.address} {e.reason}" for e in failures[:_ENDPOINTS])
    more = len(failures) - _ENDPOINTS
    return text + (f" and {more:,} more" if more > 0 else "")
