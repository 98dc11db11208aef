"""Events that the tests of the fleet share."""

from controlplane.fleet import Fleet
from controlplane.xds.events import Identified, Refused, StreamOpened

ROUTES = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
LISTENER = "type.googleapis.com/envoy.config.listener.v3.Listener"


def connect(
    fleet: Fleet,
    stream: int,
    node: str = "edge-1",
    now: float = 100.0,
    variant: str = "delta",
    user_agent: str = "envoy 1.40.0",
) -> None:
    """Open a stream, and identify its client."""
    fleet.apply(stream, StreamOpened(f"10.0.0.1:{stream}", variant), now)
    fleet.apply(stream, Identified(node, "edge", {}, user_agent), now)


def refusal(revision: int, type_url: str = LISTENER) -> Refused:
    return Refused(type_url, ("public",), "cannot bind", revision)
