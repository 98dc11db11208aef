"""Batches of events and of subscriptions."""

from __future__ import annotations

import asyncio
import pickle
import time

from controlplane.workers.batching import EventBatcher, SubscriptionBatcher
from controlplane.workers.messages import Events, SubscribeAudiences
from controlplane.xds.events import Held, StreamClosed, StreamOpened
from tests.workers.rig import EDGE, EDGE_GRPC, until


async def test_events_are_sent_in_one_message_in_order_with_their_times() -> None:
    sent: list[Events] = []
    batcher, before = EventBatcher(sent.append, 100), time.time()
    events = StreamOpened("127.0.0.1:1", "delta"), Held(1), StreamClosed()
    for event in events:
        batcher.add(1, event)
    assert not sent
    await until(lambda: sent)
    (message,) = sent
    assert [(stream, event) for stream, event, _ in message.events] == [(101, event) for event in events]
    times = [when for _, _, when in message.events]
    assert before <= times[0] <= times[1] <= times[2] <= time.time()
    # A flush sends at once, and an empty one nothing.
    batcher.add(2, StreamClosed())
    batcher.flush()
    batcher.flush()
    assert len(sent) == 2
    await asyncio.sleep(0.01)  # nothing should happen, so there is no condition to wait for
    assert len(sent) == 2


async def test_streams_that_hold_the_same_revision_share_one_event() -> None:
    sent: list[Events] = []
    batcher = EventBatcher(sent.append, 0)
    for stream in range(1_000):
        batcher.add(stream, Held(7))
    batcher.add(0, Held(8))
    batcher.flush()
    (message,) = sent
    assert [event for _, event, _ in message.events] == [*[Held(7)] * 1_000, Held(8)]
    assert len({id(event) for _, event, _ in message.events}) == 2
    assert len(pickle.dumps(message)) < 20_000


async def test_subscriptions_of_one_turn_are_sent_in_one_message() -> None:
    sent: list[SubscribeAudiences] = []
    batcher = SubscriptionBatcher(sent.append)
    for audience in (EDGE, EDGE_GRPC):
        batcher.add(audience)
    assert not sent
    await asyncio.sleep(0)
    assert sent == [SubscribeAudiences((EDGE, EDGE_GRPC))]
    batcher.add(EDGE)
    batcher.flush()
    await asyncio.sleep(0)
    assert sent[1:] == [SubscribeAudiences((EDGE,))]
