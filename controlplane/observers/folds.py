"""The observers that update the fleet and the traffic, which the API reads."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.domain import Gateway
from controlplane.domain.revision import Head
from controlplane.fleet import Fleet
from controlplane.observers import Handler, Observer
from controlplane.traffic import Traffic
from controlplane.xds.events import (
    AccessRefused,
    AudienceAssigned,
    Authenticated,
    Blocked,
    Claimed,
    Held,
    HeldBack,
    Identified,
    LastMessage,
    LoadReported,
    Oversized,
    Recovered,
    Refused,
    ReporterIdentified,
    Settled,
    StreamClosed,
    StreamOpened,
)

FLEET_EVENTS = (
    StreamOpened,
    Authenticated,
    Identified,
    Claimed,
    HeldBack,
    AudienceAssigned,
    Held,
    Settled,
    Blocked,
    Refused,
    Recovered,
    Oversized,
    StreamClosed,
)
# They only say that a message came, and wake no watcher of the fleet.
MESSAGE_EVENTS = (LastMessage, ReporterIdentified, LoadReported)
# They change neither the fleet nor the traffic.
ACCESS_EVENTS = (AccessRefused,)
TRAFFIC_EVENTS = (ReporterIdentified, LoadReported, StreamClosed)


class FleetFold(Observer):
    """Applies events to the fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._gateways: Mapping[str, Gateway] = {}

    def handlers(self) -> Mapping[type, Handler]:
        """Return the events of xDS streams."""
        return dict.fromkeys((*FLEET_EVENTS, *MESSAGE_EVENTS), self._fleet.apply)

    def publish(self, head: Head) -> None:
        """Expect every node to hold `head` from now on."""
        self._fleet.publish(head.number)
        if head.state.gateways is not self._gateways:
            self._gateways = head.state.gateways
            self._fleet.members.set_gateways(self._gateways)


class TrafficFold(Observer):
    """Applies load reports to the observed traffic."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic

    def handlers(self) -> Mapping[type, Handler]:
        """Return the events of load report streams."""
        return dict.fromkeys(TRAFFIC_EVENTS, self._traffic.apply)

    def publish(self, head: Head) -> None:
        """Count reports of the models of `head` from now on."""
        self._traffic.publish(head.state.models)
