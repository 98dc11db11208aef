"""Messages are equal after pickling."""

from __future__ import annotations

import pickle

import pytest

from controlplane.workers.messages import (
    BlockedClients,
    Events,
    Listening,
    Ping,
    Pong,
    Request,
    Response,
    Start,
    Stop,
    SubscribeAudiences,
    UnsubscribeAudience,
)
from controlplane.xds.events import Held, StreamOpened
from controlplane.xds_server.limits import StreamLimits
from tests.workers.rig import AUDIENCES

MESSAGES = [
    Start(1, "127.0.0.1:18000", 2**40, StreamLimits(linger=3.0), "http2", "json", "info"),
    BlockedClients(frozenset({"edge-1"})),
    Ping(),
    Request(1, "describe", "edge-1"),
    Stop(1.5),
    Listening(),
    Pong(),
    SubscribeAudiences(tuple(AUDIENCES)),
    UnsubscribeAudience(AUDIENCES[0]),
    Events([(1, StreamOpened("127.0.0.1:1", "delta"), 1.0), (1, Held(2), 1.5)]),
    Response(1, [1, 2]),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_a_message_is_equal_after_pickling(message: object) -> None:
    assert pickle.loads(pickle.dumps(message, pickle.HIGHEST_PROTOCOL)) == message
