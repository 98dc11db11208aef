"""Problems of traffic: versions whose tries end with errors, and nodes whose traffic is unknown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controlplane.domain import Model
from controlplane.domain.revision import Head
from controlplane.fleet import Fleet
from controlplane.problems.nodes import PATIENCE, named
from controlplane.problems.reasons import REASONS, Level, Problem
from controlplane.traffic import ClusterTraffic, Receiver, Traffic, receiver_of

# Shares of a version's tries that end with an error. If other tries succeed, fewer errors than FEW within a minute are no
# problem.
WARNING_SHARE, CRITICAL_SHARE, FEW = 0.05, 0.5, 5
# If the last tries at a version with a share failed, and it gets none any more, it counts as failing for this long. Seconds.
MEMORY = 600.0


@dataclass(frozen=True, slots=True)
class _Judged:
    """One version of a model, or the copies that a mirror sends to it."""

    model: Model
    receiver: str
    # True for the copies of a mirror.
    copies: bool
    # False for copies, and for a version without a share.
    serves_users: bool
    traffic: ClusterTraffic
    # When the model last changed: errors from before say nothing about its versions now.
    changed: float


def traffic_problems(head: Head, traffic: Traffic, now: float) -> Iterator[Problem]:
    """Yield the versions that fail, those with the most errors first, and the versions that clients leave."""
    judged = []
    for cluster, observed in traffic.suspicious(WARNING_SHARE):
        receiver = receiver_of(cluster)
        model = head.state.models.get(receiver.model)
        if model is None or all(v.name != receiver.version for v in model.versions):
            continue  # it has left desired state
        users = not receiver.copies and model.split.get(receiver.fallback_for or receiver.version, 0) > 0
        meta = head.meta.get(model.resource_name)
        judged.append(_Judged(model, _words(receiver), receiver.copies, users, observed, meta.update_time if meta else 0.0))
    judged.sort(key=lambda one: (-one.traffic.rate.failed, one.model.name))
    for one in judged:
        yield from _failing(one, now)
    for one in judged:
        yield from _left(one, now)


def _words(receiver: Receiver) -> str:
    """Return the words for a receiver of tries in a sentence."""
    if receiver.copies:
        return f"the copies for {receiver.version}"
    fallback = f" as the fallback of {receiver.fallback_for}" if receiver.fallback_for else ""
    return f"version {receiver.version}{fallback}"


def _failing(one: _Judged, now: float) -> Iterator[Problem]:
    """Yield the problem of a version whose tries end with errors, in the newest reports or in the last ones with tries."""
    rate, recent = one.traffic.rate, one.traffic.recent(now)
    finished, subject = rate.succeeded + rate.failed, f"models/{one.model.name}: "
    if finished:
        share = rate.failed / finished
        if share < WARNING_SHARE or (recent.failed < FEW and recent.succeeded):
            return
        text = f"{percent(share)} of the tries at {one.receiver} end with an error ({rate.tries / 1000:,.1f} tries/s)"
    else:
        share, age = 1.0, now - one.traffic.last_failure
        since = max(one.traffic.last_success, one.changed)
        if not one.serves_users or one.traffic.last_failure <= since or age > MEMORY:
            return
        text = f"the last tries at {one.receiver} ended with an error {age:.0f} s ago, and none has succeeded since"
    critical = share >= CRITICAL_SHARE and one.serves_users
    level = Level.CRITICAL if critical else Level.WARNING
    yield Problem(REASONS["VERSION_FAILS"], subject + text, models=(one.model.name,), level=level)


def _left(one: _Judged, now: float) -> Iterator[Problem]:
    """Yield the problem of a version that most clients leave before it answers. Without any answer, users are affected."""
    succeeded, failed, gone, _ = one.traffic.recent(now)
    ended = succeeded + failed + gone
    if gone < FEW or gone < CRITICAL_SHARE * ended:
        return
    level = Level.CRITICAL if one.serves_users and not succeeded else Level.WARNING
    # Nobody waits for a copy. It is gone if it was too large, or had no answer in time.
    why = "they were too large, or had no answer in time" if one.copies else "the client left before an answer"
    share = f"{percent(gone / ended)} of the tries at {one.receiver} are gone: {why}"
    yield Problem(REASONS["CLIENTS_LEAVE"], f"models/{one.model.name}: {share}", models=(one.model.name,), level=level)


def unknown_traffic(fleet: Fleet, traffic: Traffic, now: float) -> Iterator[Problem]:
    """Yield the connected nodes that do not report their load."""
    silent = (n for n in fleet.nodes.values() if n.connect_time is not None and not traffic.reports(n.id))
    ids = tuple(sorted(n.id for n in silent if now - (n.connect_time or now) > PATIENCE))
    if ids:
        verb = "does" if len(ids) == 1 else "do"
        text = f"{named(ids)} {verb} not report the load: whether the requests there succeed is unknown"
        yield Problem(REASONS["TRAFFIC_UNKNOWN"], text, nodes=ids)


def percent(share: float) -> str:
    """Return `0.1%`, `12.5%`; at least `<0.1%`."""
    return f"{share * 100:.1f}".removesuffix(".0") + "%" if share >= 0.001 else "<0.1%"
