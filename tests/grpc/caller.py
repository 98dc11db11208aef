"""A program that calls models with gRPC's own xDS client; told what to do by a line on standard input, answering each by one.

    {"do": "call", "target": "xds:///iris", "times": 100, "metadata": {"x-version": "green"}}
    {"do": "start", "target": "xds:///iris"}        calls without a pause, from now on
    {"do": "stop"}                                  and says what came of those calls

The answer is `{"said": {"blue": 99, "UNAVAILABLE: …": 1}, "seconds": 0.1}`: how often each server, or error, answered.
`node/caller.js` is the same program, in another language.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from typing import Any

import grpc

METHOD = "/turnout.test.Model/Which"
THREADS = 2

channels: dict[str, grpc.Channel] = {}
background: list[threading.Thread] = []
stopping = threading.Event()
counts: Counter[str] = Counter()
lock = threading.Lock()


def call(target: str, metadata: dict[str, str]) -> str:
    """Which server answered; or the error."""
    channel = channels.setdefault(target, grpc.insecure_channel(target))
    try:
        method = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        return bytes(method(b"", timeout=10, metadata=tuple(metadata.items()))).decode()
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


def call_on(target: str) -> None:
    while not stopping.is_set():
        said = call(target, {})
        with lock:
            counts[said] += 1


def do(order: dict[str, Any]) -> Counter[str]:
    match order["do"]:
        case "call":
            return Counter(call(order["target"], order.get("metadata", {})) for _ in range(order.get("times", 1)))
        case "start":
            call(order["target"], {})  # one channel, made once
            background.extend(threading.Thread(target=call_on, args=(order["target"],)) for _ in range(THREADS))
            for thread in background:
                thread.start()
            return Counter()
        case "stop":
            stopping.set()
            for thread in background:
                thread.join()
            return counts
    raise ValueError(order)


for line in sys.stdin:
    began = time.monotonic()
    answer = {"said": do(json.loads(line)), "seconds": round(time.monotonic() - began, 3)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
stopping.set()
