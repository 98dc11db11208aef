"""The report of versions that this history never made."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from controlplane.envoy_types import CLUSTER, LISTENER
from controlplane.fleet import Fleet
from controlplane.observers import foreign_versions as module
from controlplane.observers.foreign_versions import ForeignVersions
from controlplane.versions import VersionIndex
from controlplane.xds.events import Claimed, Held, HeldBack
from tests.fleet.clients import connect

FOREIGN = Claimed(CLUSTER, frozenset("a"), "00ff")


class Rig:
    """A fleet with nodes, and the observer."""

    def __init__(self, versions: VersionIndex | None = None) -> None:
        self.fleet, self.registry = Fleet(versions), CollectorRegistry()
        self.observer = ForeignVersions(self.fleet, self.registry)
        for stream in (1, 2):
            connect(self.fleet, stream, f"edge-{stream}")

    def claim(self, stream: int, event: Claimed) -> list[Any]:
        """Apply an event, and return the lines that are logged."""
        with capture_logs() as lines:
            self.fleet.apply(stream, event, 101.0)
            self.observer.handlers()[Claimed](stream, event, 101.0)
        return lines

    @property
    def nodes(self) -> float | None:
        return self.registry.get_sample_value("turnout_foreign_nodes")


async def test_a_node_is_logged_once_and_counted() -> None:
    rig = Rig()
    rig.fleet.apply(1, Held(26), 100.0)
    (line,) = rig.claim(1, FOREIGN)
    assert line["event"].startswith("node holds a version that this history never made")
    assert (line["log_level"], line["node"], line["type"], line["version"]) == ("warning", "edge-1", "Cluster", "00ff")
    assert rig.claim(1, Claimed(LISTENER, None, "00fe")) == []
    assert len(rig.claim(2, FOREIGN)) == 1
    assert rig.nodes == 2
    rig.observer.close()


async def test_without_a_revision_the_line_says_that_the_node_keeps_what_it_has() -> None:
    rig = Rig()
    (line,) = rig.claim(1, FOREIGN)
    assert line["event"] == "no revision yet: node holds configuration of another history, and keeps it"
    rig.observer.close()


async def test_known_versions_and_an_index_that_is_not_trusted_are_no_reason_for_a_line() -> None:
    rig = Rig()
    assert rig.claim(1, Claimed(CLUSTER, frozenset("a"))) == []
    index = VersionIndex()
    index.known_since = 100.0
    rig = Rig(index)
    assert rig.claim(1, FOREIGN) == []
    assert rig.nodes == 0


async def test_the_nodes_that_were_logged_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELEASED_NODES", 1)
    rig = Rig()
    assert [len(rig.claim(stream, FOREIGN)) for stream in (1, 1, 2, 1)] == [1, 0, 1, 1]
    rig.observer.close()


async def test_a_node_that_is_held_back_is_logged_once_until_it_is_released() -> None:
    rig = Rig()
    rig.fleet.publish(1)

    def report(event: HeldBack) -> list[Any]:
        with capture_logs() as lines:
            rig.fleet.apply(1, event, 101.0)
            rig.observer.handlers()[HeldBack](1, event, 101.0)
        return lines

    (line,) = report(HeldBack(1, ((CLUSTER, "iris/blue"),)))
    assert line["event"].startswith("node is held back")
    assert (line["log_level"], line["node"], line["revision"], line["lost"]) == ("warning", "edge-1", 1, "cluster iris/blue")
    assert report(HeldBack(1, unknown=True)) == []
    assert report(HeldBack(0)) == []
    assert len(report(HeldBack(2, unknown=True))) == 1
    rig.observer.close()
