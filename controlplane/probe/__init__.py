"""Probes: the control plane asks the endpoints of a version itself, before or after traffic moves to it.

A probe is a TCP connect or, if the version has one, its health check. It takes at most a second, and what it finds is only the
view of the control plane: an Envoy may be in another network. So a probe gives a warning, and neither refuses nor delays a
change. There is one exception: a change that replaces all endpoints of a version that has traffic waits for the probe, and is
a cut (`domain/cuts.py`) if none of the new endpoints answers.

The control plane must not become a tool to reach what the caller can't reach. So a probe follows no redirect, keeps nothing of
an answer but its status, and does not connect to loopback and link-local addresses, unless the control plane itself can only
be reached from its own machine. A DNS name is resolved first, and the addresses are checked.
"""

from controlplane.probe.prober import Prober
from controlplane.probe.results import Answer, EndpointProbe, VersionProbe
from controlplane.probe.targets import Target, rising, target
from controlplane.probe.wording import failures_in_words, warnings

__all__ = ["Answer", "EndpointProbe", "Prober", "Target", "VersionProbe", "failures_in_words", "rising", "target", "warnings"]
