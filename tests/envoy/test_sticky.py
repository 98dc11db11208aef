"""Sticky users stay on their version while shares move: 20,000 users with a header, and fewer with a cookie."""

import pytest

from controlplane.demo.lean import LeanServer
from controlplane.demo.load import Group
from controlplane.generated.turnout.v1.model_pb2 import Sticky
from tests.envoy.conftest import PATH, Fleet, MakeLoad, Report

pytestmark = pytest.mark.envoy

RAMP = (100, 500, 1000, 2500, 4000, 5000, 7500, 9000, 10_000)


@pytest.mark.parametrize(
    ("sticky", "key", "users", "ramp"),
    [
        ("header", "x-user", 4_000, RAMP[::2]),
        ("cookie", "uid", 4_000, RAMP[::4]),
        pytest.param("cookie", "uid", 4_000, RAMP, marks=pytest.mark.slow),
        pytest.param("header", "x-user", 20_000, RAMP, marks=pytest.mark.slow),
    ],
)
async def test_no_user_moves_back_to_blue_while_green_grows(
    fleet: Fleet,
    lean: LeanServer,
    make_load: MakeLoad,
    report: Report,
    sticky: str,
    key: str,
    users: int,
    ramp: tuple[int, ...],
) -> None:
    plane = fleet.control_plane
    ports = {"blue": lean.ports["blue"], "green": lean.ports["green"]}
    await plane.apply(fleet.manifest(ports, Sticky(header=key) if sticky == "header" else Sticky(cookie=key)))
    await fleet.start()
    await plane.held(1, nodes=2)

    async def users_on_green(pass_: int) -> set[int]:
        """Return the users whom green answers now. Passes alternate between the Envoys, which must agree on each user."""
        port = list(fleet.ports.values())[pass_ % 2]
        header = key if sticky == "header" else f"cookie:{key}"
        load = make_load([Group("127.0.0.1", port, PATH, connections=32, user_header=header)], users=users, passes=1)
        await load.start()
        records = await load.finish()
        assert records.failed == 0, records.failures
        assert len(records.requests) == users
        return {r.user for r in records.requests if r.version == "green"}

    async def move(green: int, pass_: int) -> set[int]:
        """Set green's share. Return the users on green."""
        shares = {"blue": 10_000 - green, "green": green}
        await plane.held(await plane.split("digits", {v: s for v, s in shares.items() if s}), nodes=2)
        return await users_on_green(pass_)

    # The users' names and the hash are fixed, so these numbers are the same in every run.
    on_green, worst = await users_on_green(0), 0.0
    assert not on_green
    for step, green in enumerate(ramp):
        now = await move(green, step)
        assert on_green <= now, f"{len(on_green - now)} users went back to blue at {green}"
        deviation = abs(len(now) / users - green / 10_000)
        worst = max(worst, deviation)
        assert deviation < (0.015 if users >= 20_000 else 0.02)
        on_green = now
    assert len(on_green) == users

    # A ramp is undone half way: exactly the users that had moved go back.
    start = await move(1000, 0)
    half = await move(4000, 1)
    assert start < half
    assert await move(1000, 0) == start
    assert await move(1000, 1) == start  # the other Envoy agrees on each user
    report(f"{users} users by {sticky}, {len(ramp)} steps: none went back; worst share off by {worst:.2%}")


async def test_requests_without_the_sticky_key_are_split_at_random(
    fleet: Fleet, lean: LeanServer, make_load: MakeLoad
) -> None:
    plane = fleet.control_plane
    await plane.apply(fleet.manifest(lean.ports, Sticky(header="x-tenant")))
    await fleet.start()
    await plane.held(await plane.split("digits", {"blue": 5000, "green": 5000}), nodes=2)
    # The callers name the user in another header, so each user is on both versions.
    load = make_load(fleet.groups(connections=8), users=50, passes=40)
    await load.start()
    records = await load.finish()
    assert records.failed == 0, records.failures
    versions_of_first = {r.version for r in records.requests if r.user == 0}
    assert versions_of_first == {"blue", "green"}
    assert 0.4 < records.by_version()["green"] / len(records.requests) < 0.6
