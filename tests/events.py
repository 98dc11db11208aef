"""Heads, and events of streams, for tests of the modules that handle them."""

from __future__ import annotations

import time

from controlplane.domain import Gateway, NodeSelector
from controlplane.domain.revision import Head
from controlplane.domain.state import State
from controlplane.reconciler.report import EventDispatcher
from controlplane.snapshot import Audience
from controlplane.xds.events import AudienceAssigned, Identified, StreamOpened

LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"

EDGE = Gateway("edge", 80, nodes=NodeSelector(clusters=("edge",)))
INNER = Gateway("inner", 81, nodes=NodeSelector(metadata={"zone": "in"}))
AT_EDGE = Audience(("edge",))


def head(number: int, *gateways: Gateway) -> Head:
    """Return a head with these gateways, committed now."""
    return Head(number, State({g.name: g for g in gateways}), {}, time.time())


def connect(
    events: EventDispatcher,
    stream: int,
    node: str = "edge-1",
    zone: str = "",
    audience: Audience | None = None,
    variant: str = "delta",
) -> None:
    """Report that a node of the cluster `edge` opened a stream. Report its audience too, unless it is None."""
    events.report(stream, StreamOpened(f"10.0.0.1:{stream}", variant))
    events.report(stream, Identified(node, "edge", {"zone": zone} if zone else {}, "envoy 1.40.0"))
    if audience is not None:
        events.report(stream, AudienceAssigned(audience))
