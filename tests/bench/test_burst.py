"""The figures of bursts. Needs Go."""

from pathlib import Path

from bench import burst


async def test_a_burst_is_one_push_to_a_proxy_that_does_not_ack(go: Path) -> None:
    figures = await burst._bursts(5, 3, "", (1, 20))
    assert set(figures) == {f"{count} {metric}" for count in (1, 20) for metric in burst._TITLES}
    assert figures["1 pushes"] == figures["1 mute"] == figures["20 mute"] == 1
    assert 1 < figures["20 pushes"] <= 20
    for count in (1, 20):
        assert 0 < figures[f"{count} answered"] <= figures[f"{count} held"] < 30
        assert figures[f"{count} cpu"] > 0
