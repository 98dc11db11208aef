"""Free ports: they differ, also between processes that run at the same time."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from controlplane.demo.ports import BLOCKS, Ports, free_port
from controlplane.errors import Code, Error

# Takes 100 ports, and holds their blocks until its input ends.
OTHER = """
import sys
from controlplane.demo.ports import free_port
print(*(free_port() for _ in range(100)), flush=True)
sys.stdin.read()
"""


def block_of_one() -> range:
    """Return a block of one free port, which no process claims as the start of a block."""
    starts = {block[0] for block in BLOCKS}
    port = next(port for port in iter(free_port, None) if port not in starts)
    return range(port, port + 1)


def test_free_ports_are_free_and_differ() -> None:
    ports = {free_port() for _ in range(20)}
    assert len(ports) == 20
    for port in ports:
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", port))


def test_processes_get_different_ports() -> None:
    command = [sys.executable, "-c", OTHER]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ports = {free_port() for _ in range(100)}
    try:
        for other in others:
            assert other.stdout is not None
            ports |= {int(port) for port in other.stdout.readline().split()}
    finally:
        for other in others:
            other.communicate(timeout=20)
    assert len(ports) == 400


def test_a_port_is_skipped_while_something_listens_on_it() -> None:
    taken, free = block_of_one(), block_of_one()
    ports = Ports([taken, free])
    try:
        with socket.create_server(("127.0.0.1", taken[0])):
            assert {ports.next() for _ in range(3)} == {free[0]}
        assert {ports.next() for _ in range(3)} == {taken[0], free[0]}
    finally:
        ports.close()


def test_a_block_has_one_owner_until_it_is_closed() -> None:
    block = block_of_one()
    first, second = Ports([block]), Ports([block])
    assert first.next() in block
    with pytest.raises(Error) as caught:
        second.next()
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "NO_PORT")
    first.close()
    third = Ports([block])
    assert third.next() in block
    third.close()
