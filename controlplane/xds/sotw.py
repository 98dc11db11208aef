"""One sotw stream, without I/O. A skeleton: the shape of the interface only."""

from __future__ import annotations

from typing import Any

from controlplane.snapshot import Snapshot
from controlplane.xds.events import Event


class SotwStream:
    """One stream; `type_url` is "" on ADS, and the type that a per-type service serves otherwise."""

    def __init__(self, type_url: str = "") -> None:
        self.type_url = type_url

    def receive(self, request: Any) -> list[Event]:
        """Takes a DiscoveryRequest. Errors: INVALID_ARGUMENT, for what must end the stream."""
        raise NotImplementedError

    def offer(self, snapshot: Snapshot) -> list[Event]:
        """Takes the newest snapshot; an older one that is still on its way is forgotten."""
        raise NotImplementedError

    def to_send(self) -> list[bytes]:
        """Takes out what is to be sent, in order: serialised DiscoveryResponses. Call it after each receive and offer."""
        raise NotImplementedError
