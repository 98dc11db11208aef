"""Interfaces between the streams of one node.

A `StreamView` is a stream as the others read it. `OtherStreams` answers the questions of one stream about all others.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable
from typing import Protocol

from controlplane.snapshot import Resource, Resources
from controlplane.xds.subscription import Subscription


class StreamView(Protocol):
    """A stream, as the other streams of its node read it."""

    # None while no other stream can belong to the same client.
    coordination: OtherStreams | None

    @property
    def type_url(self) -> str:
        """The type of a per-type service; "" on ADS."""

    @property
    def types(self) -> Collection[str]:
        """Type URLs that the client has asked for."""

    @property
    def returning(self) -> bool:
        """Return whether the client holds resources from an earlier stream, and may still have to say which ones."""

    @property
    def subscriptions(self) -> tuple[Subscription, ...]:
        """Every subscription, in the order of types."""

    def subscription(self, type_url: str) -> Subscription | None:
        """Return the subscription to a type; None if the client has not asked for the type."""

    def should_hold(self, type_url: str) -> Resources:
        """Return all resources of a type in the newest snapshot."""


class OtherStreams(Protocol):
    """The node's other streams. In each method, `stream` is the stream that asks."""

    def before_first_request(self, stream: StreamView, type_url: str) -> None:
        """Decide whether the stream is independent. Called before its first request is processed."""

    def asked_elsewhere(self, stream: StreamView, type_url: str) -> bool:
        """Return whether another stream has asked for a type."""

    @property
    def takes_everything(self) -> bool:
        """Return whether the client subscribes to all clusters or all listeners."""

    def clusters_sent(self, stream: StreamView, clusters: Iterable[Resource]) -> None:
        """Note that clusters which the client holds in another version were sent to it."""

    def in_place(self, stream: StreamView, resource: Resource) -> bool:
        """Return whether every cluster that a resource names is in place."""

    def still_used(self, stream: StreamView, type_url: str) -> Container[str]:
        """Return the names of a type that the client may still use."""
