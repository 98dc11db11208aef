"""The storms measure the right proxies. Needs Go."""

from pathlib import Path

import pytest

from bench import storms
from bench.lines import simulator
from bench.scale import synced
from bench.sides import turnout

MODELS, HALF = 3, 5


async def test_half_of_a_fleet_misbehaves_and_the_other_half_gets_every_switch(go: Path, tmp_path: Path) -> None:
    async with turnout()(MODELS, tmp_path) as side, simulator(f"127.0.0.1:{side.port}", tmp_path) as fleet:
        await fleet.ask("open", n=HALF, group=storms.GOOD)
        await synced(fleet, group=storms.GOOD)
        figures = await storms.gone_bad(side, fleet, HALF, switches=1)
        assert (await fleet.ask("stats"))["open"] == HALF
    assert set(figures) == {"both", "gone_mute_first", "gone_mute", "gone_slow_first", "gone_slow"}
    assert set(figures) < set(storms._TITLES)
    assert all(0 < seconds < 30 for seconds in figures.values())


async def test_mute_proxies_that_ack_or_were_never_in_sync_are_an_error(go: Path, tmp_path: Path) -> None:
    async with turnout()(MODELS, tmp_path) as side, simulator(f"127.0.0.1:{side.port}", tmp_path) as fleet:
        await fleet.ask("open", n=HALF, group=storms.OTHERS)
        await synced(fleet, group=storms.OTHERS)
        move = next(side.moves)
        await fleet.ask("watch", name=move.name, contains=move.contains)
        await move.call()
        with pytest.raises(AssertionError, match="5 of 5 mute proxies were sent a switch, 5 have ACKed it"):
            await storms._all_mute(fleet, HALF)
