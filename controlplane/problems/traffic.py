"""Problems of traffic: versions whose tries end with errors, and nodes whose traffic is unknown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane.domain import Model
from controlplane.fleet import Fleet
from controlplane.problems.nodes import PATIENCE, named
from controlplane.problems.reasons import REASONS, Level, Problem
from controlplane.traffic import ClusterTraffic, Traffic, model_clusters

# Shares of a version's tries that end with an error.
WARNING_SHARE, CRITICAL_SHARE = 0.05, 0.5


def traffic_problems(models: Mapping[str, Model], traffic: Traffic) -> Iterator[Problem]:
    """Yield the versions that fail, those with the largest number of errors first."""
    failing = [
        (observed, model, version, copies)
        for model in models.values()
        for cluster, version, copies in model_clusters(model)
        if error_share(observed := traffic.cluster(cluster)) >= WARNING_SHARE
    ]
    for observed, model, version, copies in sorted(failing, key=lambda entry: (-entry[0].rate.failed, entry[1].name)):
        share, rate = error_share(observed), (observed.rate.succeeded + observed.rate.failed) / 1000
        users = not copies and model.split.get(version, 0) > 0
        level = Level.CRITICAL if share >= CRITICAL_SHARE and users else Level.WARNING
        receivers = f"the copies for {version}" if copies else f"version {version}"
        text = f"models/{model.name}: {percent(share)} of the tries at {receivers} end with an error ({rate:,.1f} tries/s)"
        yield Problem(REASONS["VERSION_FAILS"], text, models=(model.name,), level=level)


def unknown_traffic(fleet: Fleet, traffic: Traffic, now: float) -> Iterator[Problem]:
    """Yield the connected nodes that do not report their load."""
    silent = (n for n in fleet.nodes.values() if n.connect_time is not None and not traffic.reports(n.id))
    ids = tuple(sorted(n.id for n in silent if now - (n.connect_time or now) > PATIENCE))
    if ids:
        verb = "does" if len(ids) == 1 else "do"
        text = f"{named(ids)} {verb} not report the load: whether the requests there succeed is unknown"
        yield Problem(REASONS["TRAFFIC_UNKNOWN"], text, nodes=ids)


def error_share(observed: ClusterTraffic) -> float:
    """Return the share of the finished tries that ended with an error, from 0 to 1, in the newest reports."""
    rate = observed.rate
    return rate.failed / (rate.succeeded + rate.failed) if rate.failed else 0.0


def percent(share: float) -> str:
    """Return `0.1%`, `12.5%`; at least `<0.1%`."""
    return f"{share * 100:.1f}".removesuffix(".0") + "%" if share >= 0.001 else "<0.1%"
