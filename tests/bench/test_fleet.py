"""The simulated fleet does what Envoys do, and the benchmarks that use it read it right. Skipped where there is no Go."""

import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bench import growth, scale
from bench.lines import Lines, simulator
from bench.scale import Run, synced
from bench.sides import ORDINARY, TURNOUT, Move, Side, turnout

FLEET = Path(__file__).parents[2] / "bench" / "fleet"
MODELS, PROXIES = 3, 20


@pytest.fixture(scope="module")
def go() -> None:
    """Go and the modules that the simulator needs."""
    if shutil.which("go") is None:
        pytest.skip("the simulator is written in Go, and there is none")
    done = subprocess.run(["go", "mod", "download"], cwd=FLEET, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"the Go modules of the simulator can't be had: {done.stderr[-300:]}"


@pytest.fixture
async def side(go: None, tmp_path: Path) -> AsyncIterator[Side]:
    async with turnout()(MODELS, tmp_path) as side:
        yield side


@pytest.fixture
async def fleet(side: Side, tmp_path: Path) -> AsyncIterator[Lines]:
    async with simulator(f"127.0.0.1:{side.port}", tmp_path) as fleet:
        yield fleet


async def switched(move: Move, fleet: Lines, **asked: Any) -> dict[str, Any]:
    """Makes a switch, and tells what came of it."""
    await fleet.ask("watch", name=move.name, contains=move.contains)
    called = time.monotonic_ns()
    await move.call()
    return await fleet.ask("result", from_ns=called, **asked)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_every_proxy_gets_everything_and_each_switch(side: Side, fleet: Lines, variant: str) -> None:
    await fleet.ask("open", n=PROXIES, variant=variant)
    came = await synced(fleet)
    assert came["n"] == came["synced"]["n"] == PROXIES
    # Clusters, endpoints, listeners, scopes, routes: a response each.
    assert came["messages"]["min"] >= 5
    for _ in range(MODELS + 1):
        done = await switched(next(side.moves), fleet)
        assert done["ok"]
        assert done["received"]["n"] == done["acked"]["n"] == PROXIES
        assert 0 < done["received"]["min"] <= done["received"]["p50"] <= done["received"]["p99"] <= done["acked"]["max"]
        assert done["messages"]["max"] == 1
        assert done["bytes"]["max"] < 1000
    assert side.turnout is not None
    await side.turnout.settled(PROXIES)  # Turnout has seen every ACK
    assert not done["errors"]


async def test_a_route_that_is_not_what_is_watched_for_is_no_receipt(side: Side, fleet: Lines) -> None:
    move = next(side.moves)
    await fleet.ask("watch", name=move.name, contains=move.contains)
    await fleet.ask("open", n=PROXIES)
    await synced(fleet)
    done = await fleet.ask("result", timeout=0.01)
    assert not done["ok"]
    assert done["received"]["n"] == 0


async def test_those_that_refuse_or_never_ack_are_no_receipt_and_hold_nobody_up(side: Side, fleet: Lines) -> None:
    await fleet.ask("open", n=PROXIES)
    await fleet.ask("open", n=2, group="refusing", nack=True)
    await synced(fleet)
    await synced(fleet, group="refusing")
    await fleet.ask("open", n=2, group="mute", mute=True)
    await fleet.ask("open", n=2, group="slow", slow_ms=20)
    await synced(fleet, group="slow")
    assert (await switched(next(side.moves), fleet))["ok"]
    assert (await fleet.ask("result", group="refusing"))["received"]["n"] == 2
    assert (await fleet.ask("result", group="mute", timeout=0.01))["acked"]["n"] == 0
    # A proxy that refused is told what is newer, and all the same nothing breaks.
    assert (await switched(next(side.moves), fleet))["ok"]
    assert (await fleet.ask("stats"))["open"] == PROXIES + 6


async def test_proxies_come_back_to_a_server_that_was_killed_and_say_what_they_hold(side: Side, fleet: Lines) -> None:
    await fleet.ask("open", n=PROXIES, retry_ms=20)
    new = await synced(fleet)
    await fleet.ask("watch")
    assert side.turnout is not None
    await side.turnout.restart()
    again = await synced(fleet)
    assert again["synced"]["n"] == PROXIES
    assert again["errors"]
    assert again["bytes"]["max"] < new["bytes"]["min"]
    assert again["messages"]["max"] == 0  # nothing has changed: nothing is sent
    done = await switched(next(side.moves), fleet)
    assert done["received"]["n"] == PROXIES


async def test_what_it_can_not_do_it_says(go: None, tmp_path: Path) -> None:
    async with simulator("127.0.0.1:1", tmp_path) as fleet:
        with pytest.raises(RuntimeError, match='there is no group "x"'):
            await fleet.ask("close", group="x")
        with pytest.raises(RuntimeError, match='there is no command "dance"'):
            await fleet.ask("dance")
    with pytest.raises(RuntimeError, match="is no HOST:PORT"):
        async with simulator("nowhere", tmp_path):
            pass


def run(switch_cpu: float) -> Run:
    """A run in which only one figure matters."""
    made = Run(1.0, 1.0, 1000.0, 0, 0.0, 0.0, 0.0)
    made.switch_cpu = [switch_cpu, switch_cpu, 100.0]
    return made


def test_ratios_are_of_the_same_round() -> None:
    cell = {TURNOUT: [run(1.0), run(4.0)], ORDINARY: [run(2.0), run(2.0)]}
    ratio = scale.ratios(cell, "switch_cpu", ORDINARY)
    assert (ratio.low, ratio.high) == (0.5, 2.0)


def test_a_line_is_fitted_to_few_and_many_alike() -> None:
    points = {n: 5e-3 + 40e-6 * n for n in (10, 100, 1000, 10_000)}
    fit = growth.Fit.of(points)
    assert fit.fixed == pytest.approx(5e-3)
    assert fit.slope == pytest.approx(40e-6)
    assert fit.text(growth.MEASURES["switch_cpu"]) == "5.00 ms + 40.0 µs · N"
    assert growth.Fit.of({1: 3.0, 10: 3.0, 100: 3.01}).text(growth.MEASURES["bytes"]) == "flat"
    assert growth.Fit.of({1: -5.0, 10: 20.0, 100: 200.0}).exponent == pytest.approx(1)


def test_a_replica_carries_what_its_narrowest_limit_lets_it() -> None:
    cpu = {"switch_main": 7e-6, "switch_workers": 70e-6, "sync_main": 70e-6, "sync_workers": 700e-6}
    found = growth.size(8, cpu, 20 * 1024)
    assert (found.switch_workers, found.switch_main) == (70_000, 100_000)
    assert (found.restart_workers, found.restart_main) == (210_000, 300_000)
    assert found.memory > 500_000
    assert found.carries == 70_000
    assert growth.size(32, cpu, 20 * 1024).carries == 100_000
