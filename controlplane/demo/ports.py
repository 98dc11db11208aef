"""Free TCP ports for servers, different ones in every process: demos, tests and benchmarks may run at the same time."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
from collections.abc import Iterator, Sequence

from controlplane.errors import Code, Error

# The kernel gives ports above 32,767 to outgoing connections, so none of them can take a port that was chosen here.
BLOCKS = [range(first, first + 64) for first in range(20_000, 32_704, 64)]


class Ports:
    """Ports from blocks that no other process uses.

    A block is claimed by binding an abstract Unix socket that carries its first port in its name. Such names belong to a
    network namespace, as ports do, and the kernel frees them when the process ends, however it ends. Linux only.
    """

    def __init__(self, blocks: Sequence[range] = BLOCKS) -> None:
        self._claims: list[socket.socket] = []
        # Ports come a second time when no further block can be claimed.
        self._ports = itertools.cycle(self._claimed(random.sample(blocks, len(blocks))))

    def _claimed(self, blocks: Sequence[range]) -> Iterator[int]:
        """Yield the ports of each block that can be claimed."""
        for block in blocks:
            claim = socket.socket(socket.AF_UNIX)
            try:
                claim.bind(f"\0turnout-ports-{block[0]}")
            except OSError:
                claim.close()
                continue
            self._claims.append(claim)
            yield from block

    def next(self) -> int:
        """Return a port that nothing listens on, a different one each time. Errors: UNAVAILABLE if none is found."""
        for port in itertools.islice(self._ports, 200):
            with socket.socket() as trial, contextlib.suppress(OSError):
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trial.bind(("0.0.0.0", port))
                return port
        raise Error(Code.UNAVAILABLE, "NO_PORT", "found no free TCP port")

    def close(self) -> None:
        """Let other processes have the blocks."""
        for claim in self._claims:
            claim.close()


_ports = Ports()


def free_port() -> int:
    """Return a port that nothing listens on and no other process gets here, a different one each time.

    Errors: UNAVAILABLE if none is found.
    """
    return _ports.next()
