"""The judgement: all problems of the control plane, its fleet and its traffic, and one line that sums them up.

The line is `OK` only if the fleet and the traffic are fine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.domain.revision import Head
from controlplane.fleet import Fleet, NodeState
from controlplane.problems.nodes import named, no_revision, node_problems, outdated_nodes
from controlplane.problems.reasons import REASONS, About, Level, Problem
from controlplane.problems.traffic import percent, traffic_problems, unknown_traffic
from controlplane.traffic import Traffic

# Problems that the line names; the others are counted.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Observed:
    """The state of desired state, fleet and traffic that is judged."""

    # The newest revision in the store.
    head: Head
    fleet: Fleet
    traffic: Traffic
    # The error of the newest change, if the store could not write it.
    store_failure: str = ""
    # The reason why the newest revision is not served.
    not_served: str = ""


def problems_of(observed: Observed, now: float) -> list[Problem]:
    """Return all problems: the worst level first, and within a level in the order of the table of reasons.

    `now` is in seconds since the epoch. The cost grows with the number of nodes and models.
    """
    order = list(REASONS)
    return sorted(_problems(observed, now), key=lambda p: (-p.level, order.index(p.reason.name)))


def _problems(observed: Observed, now: float) -> Iterator[Problem]:
    head, fleet, traffic = observed.head, observed.fleet, observed.traffic
    if not head.number:
        yield no_revision(fleet)
    if observed.store_failure:
        yield Problem(REASONS["STORE_FAILS"], f"the newest change could not be saved: {observed.store_failure}")
    if observed.not_served:
        yield Problem(REASONS["NOT_SERVED"], f"revision {head.number} is not served: {observed.not_served}")
    yield from node_problems(fleet, head.time, now)
    yield from outdated_nodes(fleet, head.state)
    yield from traffic_problems(head, traffic, now)
    yield from unknown_traffic(fleet, traffic, now)


def level_of(problems: Sequence[Problem]) -> Level:
    """Return the level of the worst problem; OK without problems."""
    return max((p.level for p in problems), default=Level.OK)


def summary(observed: Observed, problems: Sequence[Problem], left_out: int = 0) -> str:
    """Return one line: everything is fine, or the first problems. `left_out` problems are not selected by a filter."""
    level = level_of(problems)
    if left_out and not problems:
        return f"{level.name}: no problem matches the filter; {left_out:,} more {'exists' if left_out == 1 else 'exist'}"
    if not problems:
        return f"{level.name}: {_fleet_sentence(observed.fleet)}; {_traffic_sentence(observed)}"
    count = f"{len(problems):,} problem" + ("" if len(problems) == 1 else "s")
    more = f" and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
    return f"{level.name}: {count}: {', '.join(map(_short, problems[:_NAMED]))}{more}"


def _short(problem: Problem) -> str:
    """Return the reason of a problem and the objects that have it, without texts of clients."""
    objects = {About.SERVER: "", About.NODES: f" {named(problem.nodes)}"}
    return problem.reason.name + objects.get(problem.reason.about, f" models/{', models/'.join(problem.models[:_NAMED])}")


def _fleet_sentence(fleet: Fleet) -> str:
    synced = fleet.counts[NodeState.SYNCED]
    nodes = f"{synced:,} node" + ("" if synced == 1 else "s")
    waiting = f", {fleet.counts[NodeState.BEHIND]:,} more not yet" if fleet.counts[NodeState.BEHIND] else ""
    return f"revision {fleet.revision} is held by {nodes}{waiting}"


def _traffic_sentence(observed: Observed) -> str:
    tries, failed = observed.traffic.finished()
    if not tries:
        return "no requests now"
    return f"{tries / 1000:,.1f} tries/s, {f'{percent(failed / tries)} errors' if failed else 'no errors'}"
