"""Snapshots from the main process to a worker: an audience's whole snapshot once, and then only what changed.

    worker                                                    main
    `SnapshotReceiver.apply`                ◀─ Update ──       `SnapshotSender.update`: from the revision that was sent
                                                               last to the newest
    a stream has a new audience             ── Subscribe ─▶    the next update has the audience's whole snapshot
    no stream asks for an audience          ── Unsubscribe ─▶  later updates leave the audience out

The connection must keep the order in each direction, and nothing more. An update leads from the revision that was sent last to
the newest one, however many were published in between. So a worker that reads slowly gets one update, and nothing queues.

In a worker, as in the main process, a resource that did not change stays the same Python object. Streams compare objects to
skip the parts of a snapshot that did not change (`xds/overlay.py`).

This file has the messages, `snapshot_sender.py` and `snapshot_receiver.py` the two ends. None of them does I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.domain import Gateway
from controlplane.snapshot import Audience, Resource


@dataclass(frozen=True, slots=True)
class TypeChange:
    """A change of one Envoy type in a snapshot, relative to the snapshot that was sent before."""

    # The version of the type in the new snapshot.
    version: str
    changed: tuple[Resource, ...]
    # Names of resources.
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AudienceUpdate:
    """The part of an update that is for one audience."""

    audience: Audience
    note: str
    # By type URL; types that are left out did not change. None: the audience's snapshot does not compile.
    changes: Mapping[str, TypeChange] | None
    # True: `changes` are the whole snapshot. False: they are relative to the snapshot that was sent before.
    whole: bool


@dataclass(frozen=True, slots=True)
class Update:
    """The changes from the revision that a worker has to the newest one. Other audiences have the same resources as before."""

    revision: int
    # None: the same as before.
    gateways: Mapping[str, Gateway] | None
    # `AudienceUpdate`s, each pickled on its own, so that workers with the same state get the same bytes.
    audience_updates: tuple[bytes, ...] = field(repr=False)
