"""Decide which changes of one type to send now, so that nothing that the client uses ever breaks (rules 9, 10, 25).

Order ("Eventual consistency considerations"; make before break). A pass goes over the types in the order CDS, EDS, SDS, LDS,
SRDS, RDS. For each name at which the client differs from the newest snapshot, one of these is decided:

    the client should hold …           and …                                             then
    another content                    every cluster that it names is in place           send it
    another content                    one of them is not                                keep: the client keeps the old one
    another listener of the same name  its new scopes were not sent yet                  keep, until they are sent in this pass
    nothing                            nothing that the client may hold names it         remove it
    nothing                            something does                                    keep
    exactly what it refused            (in any case)                                     keep

`readiness.py` says when a cluster is in place, and what the client may hold.

Nothing here waits for LDS, so a request that is late or never comes can't hold up the other types. EDS never waits for CDS,
because an Envoy asks for endpoints before it ACKs the clusters. New clusters wait for nothing; removed ones do.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Protocol

from controlplane.snapshot import Resource
from controlplane.xds.overlay import same
from controlplane.xds.refusals import ANYTHING
from controlplane.xds.subscription import Subscription


class Barrier(Protocol):
    """The part of a stream that decides which changes have to wait."""

    def in_place(self, resource: Resource) -> bool:
        """Return whether every cluster that a resource names is in place."""

    def still_used(self, type_url: str) -> Container[str]:
        """Return the names of a type that the client may still use."""


def changes_to_send(sub: Subscription, barrier: Barrier) -> dict[str, Resource | None]:
    """Return the content to send, by name; None: remove it. Requested names are among them, even if they are held."""
    changes: dict[str, Resource | None] = {}
    if sub.idle and not sub.resend:
        return changes
    settled = True
    used: Container[str] | None = None
    # While a response is in flight, only what the client requests is sent.
    for name in tuple(sub.requested) if sub.inflight else sub.candidates():
        requested = name in sub.requested
        if not requested and not sub.covers(name):
            continue
        resource, held = sub.latest.get(name), sub.held.get(name)
        settled = settled and same(resource, held)
        if resource is None and used is None:
            used = barrier.still_used(sub.type_url)
        kept = (resource is None and name in used) if used is not None else False
        if kept or sub.stands(name) or (resource is not None and not barrier.in_place(resource)):
            # Keep. But a requested name is answered with the content that is kept, also if the client refused it.
            if not requested:
                continue
            resource = sub.current(name) or resource
            if resource is not None and (ANYTHING in resource.refs or not barrier.in_place(resource)):
                continue
        elif not (requested or name in sub.refused or (name in sub.resend and resource)) and same(sub.current(name), resource):
            continue
        changes[name] = resource
    if settled and not changes and sub.settled():
        sub.compact()
        sub.idle = True
    if not sub.refused:
        return changes
    return sub.refused.portion(changes, sub.requested, sub.held, sub.uses_unacked)
