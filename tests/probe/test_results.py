"""Counts of probes."""

from __future__ import annotations

from controlplane.probe import Answer, EndpointProbe, VersionProbe


def test_endpoints_of_a_probe_are_counted_by_answer() -> None:
    endpoints = tuple(EndpointProbe(str(answer), answer) for answer in Answer)
    result = VersionProbe("iris", "green", 5, endpoints)
    assert (result.answering, result.probed, len(result.failures), result.dead) == (1, 2, 1, False)


def test_a_version_is_dead_only_if_every_endpoint_was_probed() -> None:
    failing = EndpointProbe("10.0.0.1:80", Answer.NO)
    assert VersionProbe("iris", "green", 1, (failing,)).dead
    assert not VersionProbe("iris", "green", 2, (failing,)).dead
    assert not VersionProbe("iris", "green", 0, ()).dead
