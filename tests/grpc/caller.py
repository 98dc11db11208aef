"""A program that calls models with gRPC's own xDS client. It reads a command from each line of standard input:

    {"command": "call", "target": "xds:///iris", "times": 100, "metadata": {"x-version": "green"}}
    {"command": "start", "target": "xds:///iris"}   call without a pause from now on
    {"command": "stop"}                             stop, and answer with the counts of those calls

It answers each command with a line: `{"counts": {"blue": 99, "UNAVAILABLE: …": 1}, "seconds": 0.1}`. The counts are by the
server that answered, or by error. `node/caller.js` is the same program for Node.
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
    """Make one call. Return the name of the server that answered, or the error."""
    channel = channels.setdefault(target, grpc.insecure_channel(target))
    try:
        method = channel.unary_unary(METHOD, request_serializer=None, response_deserializer=None)
        return bytes(method(b"", timeout=10, metadata=tuple(metadata.items()))).decode()
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"


def call_until_stopped(target: str) -> None:
    while not stopping.is_set():
        answer = call(target, {})
        with lock:
            counts[answer] += 1


def run(command: dict[str, Any]) -> Counter[str]:
    """Run one command. Return the counts of its answers."""
    match command["command"]:
        case "call":
            return Counter(call(command["target"], command.get("metadata", {})) for _ in range(command.get("times", 1)))
        case "start":
            call(command["target"], {})  # makes the channel once, before the threads use it
            background.extend(threading.Thread(target=call_until_stopped, args=(command["target"],)) for _ in range(THREADS))
            for thread in background:
                thread.start()
            return Counter()
        case "stop":
            stopping.set()
            for thread in background:
                thread.join()
            return counts
    raise ValueError(command)


for line in sys.stdin:
    start = time.monotonic()
    result = {"counts": run(json.loads(line)), "seconds": round(time.monotonic() - start, 3)}
    sys.stdout.write(json.dumps(result) + "\n")
    sys.stdout.flush()
stopping.set()
