"""Warnings about versions that don't answer."""

from __future__ import annotations

from controlplane.probe import Answer, EndpointProbe, VersionProbe, warnings


def probe(*reasons: str, version: str = "green", total: int = 0) -> VersionProbe:
    """Return a probe with an endpoint for each reason; "" is one that answers."""
    endpoints = tuple(
        EndpointProbe(f"10.0.0.{i}:80", Answer.NO if reason else Answer.YES, reason) for i, reason in enumerate(reasons, 1)
    )
    return VersionProbe("iris", version, total or len(endpoints), endpoints)


def test_versions_that_answer_have_no_warning() -> None:
    unknown = VersionProbe("iris", "blue", 1, (EndpointProbe("127.0.0.1:80", Answer.UNKNOWN, "not probed"),))
    assert warnings([probe("", ""), unknown]) == []


def test_warnings() -> None:
    refused = "connection refused"
    assert warnings([probe(refused), probe("", refused, version="v7")]) == [
        "as seen from the control plane, iris/green: 0 of 1 endpoint answers: 10.0.0.1:80 connection refused",
        "as seen from the control plane, iris/v7: 1 of 2 endpoints answer: 10.0.0.2:80 connection refused",
    ]
    assert warnings([probe(*[refused] * 5, total=100)]) == [
        "as seen from the control plane, iris/green: 0 of 5 endpoints that were probed, of 100, answer: "
        "10.0.0.1:80 connection refused, 10.0.0.2:80 connection refused, 10.0.0.3:80 connection refused and 2 more"
    ]


def test_many_versions() -> None:
    texts = warnings([probe("connection refused", version=f"v{i}") for i in range(15)])
    assert len(texts) == 11
    assert texts[-1] == "as seen from the control plane, endpoints of 5 more versions don't answer"
