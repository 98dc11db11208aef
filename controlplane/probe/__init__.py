"""Probes: the control plane connects to the endpoints of a version, before or after traffic moves to the version.

A probe is a TCP connect or, if the version has a health check, that check. It takes at most a second. Its result is only the
view of the control plane, because an Envoy may be in another network. So a probe causes a warning, and neither refuses nor
delays a change. There is one exception: a change that replaces all endpoints of a version that has traffic, takes its
fallbacks, or changes its protocol, TLS or host waits for the probe, and is a cut (`domain/cuts.py`) if no endpoint answers.

A caller must not be able to reach, through the control plane, what the caller can't reach directly. So a probe follows no
redirect, keeps only the status of an answer, and does not connect to loopback and link-local addresses, unless the control
plane itself can only be reached from its own machine. A DNS name is resolved first, and its addresses are checked.
"""

from controlplane.probe.prober import Prober
from controlplane.probe.results import Answer, EndpointProbe, VersionProbe
from controlplane.probe.targets import Target, is_known, replaced, rising, target
from controlplane.probe.wording import failures_in_words, warnings

__all__ = [
    "Answer",
    "EndpointProbe",
    "Prober",
    "Target",
    "VersionProbe",
    "failures_in_words",
    "is_known",
    "replaced",
    "rising",
    "target",
    "warnings",
]
