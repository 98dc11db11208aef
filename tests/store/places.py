"""Helpers for the tests of stores: the type of `place`, objects, and revisions to fill a store with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from controlplane.domain import Endpoint, Gateway, Model, Version
from controlplane.domain.revision import Action, Draft, Head
from controlplane.domain.state import Changes
from controlplane.store import Fence, Store

# Opens a store, and opens the same store again after it was closed.
Open = Callable[[], Awaitable[Store]]

EDGE = Gateway("edge", 8080)
IRIS = Model(
    "iris",
    ("edge",),
    (Version("blue", (Endpoint("10.0.0.1", 80),)), Version("green", (Endpoint("10.0.0.2", 80),))),
    {"blue": 10_000},
)
GREEN = replace(IRIS, split={"green": 10_000})


def draft(time: float = 1.0, request_id: str = "", digest: str = "") -> Draft:
    """Return a draft; drafts differ by their time."""
    return Draft("ann", "because", Action.APPLY, time, 0, request_id, digest)


def changes(*objects: Gateway | Model, deleted: tuple[str, ...] = ()) -> Changes:
    """Return changes that set and delete these objects."""
    return Changes({**{o.resource_name: o for o in objects}, **dict.fromkeys(deleted)})


async def commit(store: Store, base: int, change: Changes, by: Draft, fence: Fence | None = None) -> Head:
    """Commit a change that is based on revision `base`, which may not be the newest revision."""
    newest = store.head.value
    head = newest if base == newest.number else Head(base, newest.state, newest.meta, history=newest.history)
    return await store.commit(head.after(change, by), change, by, fence=fence)


async def filled(store: Store) -> list[Head]:
    """Commit five revisions, and return the heads of revisions 0 to 5.

    The revisions create two objects, switch the model, switch it back, delete it, and create it again.
    """
    heads = [store.head.value]
    steps = [changes(EDGE, IRIS), changes(GREEN), changes(IRIS), changes(deleted=("models/iris",)), changes(GREEN)]
    for i, step in enumerate(steps, 1):
        heads.append(await commit(store, i - 1, step, draft(time=100.0 + i)))
    return heads
