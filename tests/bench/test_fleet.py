"""The simulated fleet behaves as Envoys do, and the benchmarks read its answers correctly. Needs Go."""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from bench import growth, scale
from bench.lines import Lines, build, simulator
from bench.scale import Run, synced
from bench.sides import ORDINARY, TURNOUT, Move, Side, turnout

MODELS, PROXIES = 3, 20


@pytest.fixture(scope="module")
def program(go: Path) -> Path:
    """The simulator, compiled."""
    return asyncio.run(build("fleet"))


@pytest.fixture
async def side(go: Path, tmp_path: Path) -> AsyncIterator[Side]:
    async with turnout()(MODELS, tmp_path) as side:
        yield side


@pytest.fixture
async def fleet(side: Side, tmp_path: Path) -> AsyncIterator[Lines]:
    async with simulator(f"127.0.0.1:{side.port}", tmp_path) as fleet:
        yield fleet


async def switched(move: Move, fleet: Lines, **asked: Any) -> dict[str, Any]:
    """Make a switch, and return how the fleet received it."""
    await fleet.ask("watch", name=move.name, contains=move.contains)
    called = time.monotonic_ns()
    await move.call()
    return await fleet.ask("result", from_ns=called, **asked)


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_every_proxy_gets_everything_and_each_switch(side: Side, fleet: Lines, variant: str) -> None:
    await fleet.ask("open", n=PROXIES, variant=variant)
    answer = await synced(fleet)
    assert answer["n"] == answer["synced"]["n"] == PROXIES
    # Clusters, endpoints, listeners, scopes, routes: a response each.
    assert answer["messages"]["min"] >= 5
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


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_long_responses_are_read_like_short_ones(go: Path, tmp_path: Path, variant: str) -> None:
    # The simulator compares a response of 64 KiB or more with the one before it. These are clusters and scopes, and in SotW
    # routes too.
    async with turnout()(300, tmp_path) as side, simulator(f"127.0.0.1:{side.port}", tmp_path) as fleet:
        for _ in range(2):
            await fleet.ask("open", n=PROXIES, variant=variant)
            answer = await synced(fleet)
            assert answer["messages"]["min"] >= 5
            assert answer["bytes"]["min"] > 500_000
            assert answer["bytes"]["max"] < answer["bytes"]["min"] * 1.01
            for _ in range(3):
                done = await switched(next(side.moves), fleet)
                assert done["received"]["n"] == done["acked"]["n"] == PROXIES
                assert done["messages"]["max"] == 1
            other, move = next(side.moves), next(side.moves)
            await fleet.ask("watch", name=other.name, contains=other.contains)
            await move.call()
            assert side.turnout is not None
            await side.turnout.settled(PROXIES)
            assert (await fleet.ask("result", timeout=0.01))["received"]["n"] == 0
            assert not done["errors"]
            await fleet.ask("close")


async def test_a_route_other_than_the_watched_one_does_not_count(side: Side, fleet: Lines) -> None:
    move = next(side.moves)
    await fleet.ask("watch", name=move.name, contains=move.contains)
    await fleet.ask("open", n=PROXIES)
    await synced(fleet)
    done = await fleet.ask("result", timeout=0.01)
    assert not done["ok"]
    assert done["received"]["n"] == 0


async def test_proxies_that_refuse_or_never_ack_do_not_delay_the_answer(side: Side, fleet: Lines) -> None:
    await fleet.ask("open", n=PROXIES)
    await fleet.ask("open", n=2, group="refusing", nack=True)
    await synced(fleet)
    await synced(fleet, group="refusing")
    await fleet.ask("open", n=2, group="mute", mute=True)
    await fleet.ask("open", n=2, group="slow", slow_ms=20)
    await synced(fleet, group="slow")
    assert (await switched(next(side.moves), fleet))["ok"]
    refused = await fleet.ask("result", group="refusing")
    assert refused["ok"]
    assert (refused["received"]["n"], refused["acked"]["n"]) == (2, 0)
    assert (await fleet.ask("result", group="mute", timeout=0.01))["acked"]["n"] == 0
    # A proxy that refused is sent the newer resources, and the switch of the others succeeds.
    assert (await switched(next(side.moves), fleet))["ok"]
    assert (await fleet.ask("stats"))["open"] == PROXIES + 6


async def test_proxies_reconnect_to_a_server_that_was_killed_with_what_they_hold(side: Side, fleet: Lines) -> None:
    await fleet.ask("open", n=PROXIES, retry_ms=20)
    new = await synced(fleet)
    await fleet.ask("watch")
    assert side.turnout is not None
    await side.turnout.restart()
    again = await synced(fleet)
    assert again["synced"]["n"] == PROXIES
    assert again["errors"]
    assert again["bytes"]["max"] < new["bytes"]["min"]
    assert again["messages"]["max"] == 0  # nothing has changed, so nothing is sent
    done = await switched(next(side.moves), fleet)
    assert done["received"]["n"] == PROXIES


@pytest.mark.parametrize("variant", ["delta", "sotw"])
async def test_proxies_that_go_mute_get_one_more_switch_and_ack_it_later(side: Side, fleet: Lines, variant: str) -> None:
    await fleet.ask("open", n=PROXIES)
    await fleet.ask("open", n=3, group="others", variant=variant)
    await synced(fleet)
    await synced(fleet, group="others")
    await fleet.ask("behave", group="others", mute=True)
    first = next(side.moves)
    assert (await switched(first, fleet))["ok"]
    sent = await fleet.ask("result", group="others")
    assert sent["ok"]
    assert (sent["received"]["n"], sent["acked"]["n"]) == (3, 0)
    assert (await switched(next(side.moves), fleet))["ok"]
    assert (await fleet.ask("result", group="others", timeout=0.01))["received"]["n"] == 0

    # They ACK the responses in flight. Only then the server sends them the switch that they missed.
    await fleet.ask("behave", group="others", mute=False)
    missed = await fleet.ask("result", group="others", timeout=10)
    assert missed["ok"]
    assert (missed["received"]["n"], missed["acked"]["n"]) == (3, 3)
    assert side.turnout is not None
    await side.turnout.settled(PROXIES + 3)
    assert not missed["errors"]


async def test_proxies_that_read_slowly_get_a_switch_late(side: Side, fleet: Lines) -> None:
    await fleet.ask("open", n=PROXIES)
    await fleet.ask("open", n=3, group="others")
    await synced(fleet)
    await synced(fleet, group="others")
    await fleet.ask("behave", group="others", slow_ms=3_600_000)
    assert (await switched(next(side.moves), fleet))["ok"]
    late = await fleet.ask("result", group="others", timeout=0.01)
    assert late["received"]["n"] < 3  # each reads at a time of its own, so they never all read now
    await fleet.ask("behave", group="others", slow_ms=0)
    answer = await fleet.ask("result", group="others", timeout=10)
    assert answer["ok"]
    assert answer["received"]["n"] == 3
    assert (await switched(next(side.moves), fleet, group="others"))["acked"]["n"] == 3


async def test_fleets_at_one_server_share_node_ids_only_on_purpose(side: Side, fleet: Lines, tmp_path: Path) -> None:
    target, turnout = f"127.0.0.1:{side.port}", side.turnout
    assert turnout is not None
    async with AsyncExitStack() as stack:
        others: list[tuple[str, ...]] = [(), ("-first", "21"), ("-prefix", "other-"), ("-prefix", "other-", "-first", "11")]
        fleets = [fleet, *[await stack.enter_async_context(simulator(target, tmp_path, *flags)) for flags in others]]
        for one, nodes in zip(fleets, (20, 20, 40, 60, 70), strict=True):
            await one.ask("open", n=20)
            await synced(one)
            await turnout.settled(nodes)
            assert (await turnout._completed("revisions/latest")).holding == nodes


async def test_a_command_that_is_wrong_is_an_error(go: Path, tmp_path: Path) -> None:
    async with simulator("127.0.0.1:1", tmp_path) as fleet:

        async def refused(message: str, cmd: str, **more: Any) -> None:
            with pytest.raises(RuntimeError, match=re.escape(message)):
                await fleet.ask(cmd, **more)

        await refused('there is no group "x"', "close", group="x")
        await refused('there is no command "dance"; there are open, behave', "dance")
        await refused('open has no key "m"; it has cmd, n, group', "open", m=3)
        await refused('close has no key "mute"; it has cmd, group', "close", mute=True)
        await refused('there is no variant "Delta"; there are delta and sotw', "open", n=1, variant="Delta")
        await refused('"n" must be from 1 to 1000000', "open")
        await refused('"n" is a string; it must be a whole number', "open", n="1")
        await refused('"n" is a number 1.5; it must be a whole number', "open", n=1.5)
        await refused('"mute" is a number; it must be true or false', "open", n=1, mute=1)
        await refused('"metadata" has a number inside; it must be an object of strings', "open", n=1, metadata={"a": 1})
        await refused('"slow_ms" must be from 0 to 86400000', "open", n=1, slow_ms=-1)
        await refused('"fraction" must be from 0 to 1', "wait_synced", fraction=1.5)
        await fleet.ask("open", n=1)
        await refused('the group "" is open already', "open", n=1)
        await refused("behave needs one of nack, mute and slow_ms", "behave")
        assert (await fleet.ask("stats"))["n"] == 1
    with pytest.raises(RuntimeError, match="must be HOST:PORT"):
        async with simulator("nowhere", tmp_path):
            pass


TARGET = ("-target", "127.0.0.1:1")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "-target is missing: the xDS server as HOST:PORT"),
        (("-target", ":18000"), 'invalid value ":18000" for flag -target: it must be HOST:PORT, like 127.0.0.1:18000'),
        (("-target", "127.0.0.1"), "it must be HOST:PORT"),
        (("-target", "127.0.0.1:0"), "the port must be a number from 1 to 65535"),
        (("-target", "127.0.0.1:http"), "the port must be a number from 1 to 65535"),
        (("-target", "[::1]:18000"), "the host has no IPv4 address"),
        ((*TARGET, "-loops", "0"), 'invalid value "0" for flag -loops: it must be a whole number from 1 to 64'),
        ((*TARGET, "-loops", "65"), "it must be a whole number from 1 to 64"),
        ((*TARGET, "-loops"), "flag needs an argument: -loops"),
        ((*TARGET, "-first", "-1"), "it must be a whole number from 0 to 2147483647"),
        ((*TARGET, "-prefix", "a\nb"), "without control characters"),
        ((*TARGET, "-cpuprofile", "/no/such/directory/p"), "can't write the profile"),
        ((*TARGET, "-loop", "1"), "there is no flag -loop; there are -target, -loops"),
        ((*TARGET, "open"), '"open" is not a flag'),
    ],
)
def test_a_flag_that_is_wrong_is_one_line_and_status_2(program: Path, flags: tuple[str, ...], message: str) -> None:
    done = subprocess.run([program, *flags], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("fleet: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_names_every_flag_command_and_key(program: Path) -> None:
    done = subprocess.run([program, "-h"], capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for word in ("-target", "-loops", "-prefix", "-first", "-cpuprofile"):
        assert f"  {word} " in done.stdout
    usage, _, keys = done.stdout.partition("\nKeys")
    taken = {word for line in re.findall(r"^  [a-z_]+ +([a-z_ ]*)$", usage, re.M) for word in line.split()}
    documented = set(re.findall(r"^  ([a-z_]+) ", keys, re.M))
    assert {"n", "group", "mute", "quiet_ms"} <= taken
    assert taken == documented


def test_the_tests_in_go_pass(go: Path) -> None:
    done = subprocess.run(["go", "test", "."], cwd=go, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lines_that_are_not_commands_are_errors(program: Path) -> None:
    wrong = ["", "x", "[1]", "null", '{"cmd":3}', '{"cmd":"stats"} {}', "{}"]
    lines = "\n".join([*wrong, '{"cmd":"stats"}', "x" * (1 << 20)]) + "\n"
    done = subprocess.run([program, *TARGET], input=lines, capture_output=True, text=True, timeout=20, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["ok"] for answer in answers] == [True, *(False for _ in wrong), True]
    assert all(answer["error"] for answer in answers[1:-1])
    assert done.returncode == 1
    assert done.stderr == "fleet: a line is longer than 1048576 bytes\n"


def run(switch_cpu: float) -> Run:
    """A run in which only one figure matters."""
    result = Run(1.0, 1.0, 1000.0, 0, 0.0, 0.0, 0.0)
    result.switch_cpu = [switch_cpu, switch_cpu, 100.0]
    return result


def test_ratios_are_of_the_same_round() -> None:
    cell = {TURNOUT: [run(1.0), run(4.0)], ORDINARY: [run(2.0), run(2.0)]}
    ratio = scale.ratios(cell, "switch_cpu", ORDINARY)
    assert (ratio.low, ratio.high) == (0.5, 2.0)


def test_a_line_is_fitted_by_relative_errors() -> None:
    points = {n: 5e-3 + 40e-6 * n for n in (10, 100, 1000, 10_000)}
    fit = growth.Fit.of(points)
    assert fit.fixed == pytest.approx(5e-3)
    assert fit.slope == pytest.approx(40e-6)
    assert fit.text(growth.MEASURES["switch_cpu"]) == "5.00 ms + 40.0 µs · N"
    assert growth.Fit.of({1: 3.0, 10: 3.0, 100: 3.01}).text(growth.MEASURES["bytes"]) == "flat"
    assert growth.Fit.of({1: -5.0, 10: 20.0, 100: 200.0}).exponent == pytest.approx(1)


def test_the_size_of_a_replica_is_the_smallest_of_its_limits() -> None:
    cpu = {"switch_main": 7e-6, "switch_workers": 70e-6, "sync_main": 70e-6, "sync_workers": 700e-6}
    size = growth.size(8, cpu, 20 * 1024)
    assert (size.switch_workers, size.switch_main) == (70_000, 100_000)
    assert (size.restart_workers, size.restart_main) == (210_000, 300_000)
    assert size.memory > 500_000
    assert size.carries == 70_000
    assert growth.size(32, cpu, 20 * 1024).carries == 100_000
