"""The servers that the simulated fleet connects to: Turnout, and go-control-plane in two set-ups, with the same models."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.lines import Lines, build
from bench.rig import OTHER, Turnout

TURNOUT, ORDINARY, STRONGEST = "Turnout", "go-control-plane, ordinary", "go-control-plane, strongest"

# The ports of the models' endpoints. Nobody connects to them.
PORTS = {"blue": 9001, "green": 9101}


@dataclass(frozen=True, slots=True)
class Move:
    """A switch: the name of its RouteConfiguration, a text in it ("": any), and how to make it."""

    name: str
    contains: str
    call: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Side:
    """A server under test, with its models loaded."""

    pid: int
    port: int
    moves: Iterator[Move]  # endless: one model after the other
    turnout: Turnout | None = None
    # Collects garbage and returns free memory to the system; None if the server has no command for that.
    free: Callable[[], Awaitable[object]] | None = None


# Starts a side with this many models. Its log goes into the directory.
Starter = Callable[[int, Path], AbstractAsyncContextManager[Side]]


def names(models: int) -> list[str]:
    """Return the names of Turnout's models."""
    return [f"model-{i}" for i in range(models)]


def turnout(flags: str = "") -> Starter:
    """Return the starter of `turnout serve` with these further flags."""

    @asynccontextmanager
    async def start(models: int, _: Path) -> AsyncIterator[Side]:
        async with Turnout.serve(*shlex.split(flags)) as server:
            await server.apply(names(models), PORTS, endpoints=2)
            yield Side(server.process.pid, server.xds_port, _turnout_moves(server, models), server)

    return start


def _turnout_moves(server: Turnout, models: int) -> Iterator[Move]:
    live = dict.fromkeys(names(models), "blue")
    for name in itertools.cycle(live):
        live[name] = version = OTHER[live[name]]

        async def call(name: str = name, version: str = version) -> object:
            return await server.move(name, version)

        yield Move(name, f"{name}/{version}", call)


def peer(setup: str, *flags: str) -> Starter:
    """Return the starter of `bench/peers` in a set-up, with one route table for all models unless the flags say otherwise."""

    @asynccontextmanager
    async def start(models: int, directory: Path) -> AsyncIterator[Side]:
        command = [str(await build("peers")), "--setup", setup, "--models", str(models), *flags]
        async with Lines.start(f"peer, {setup}", command, directory / "peers.log") as lines:

            async def free() -> object:
                return await lines.ask("free")

            yield Side(lines.pid, lines.hello["port"], _peer_moves(lines, models), free=free)

    return start


def _peer_moves(lines: Lines, models: int) -> Iterator[Move]:
    for model in itertools.cycle(range(models)):

        async def call(model: int = model) -> object:
            return await lines.ask("switch", model=model)

        yield Move("", "", call)
