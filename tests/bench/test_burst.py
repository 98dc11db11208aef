"""What `burst` measures is what it says. Skipped where there is no Go."""

from pathlib import Path

from bench import burst


async def test_a_burst_is_many_changes_and_one_push_to_who_does_not_ack(go: Path) -> None:
    found = await burst._bursts(5, 3, "", (1, 20))
    assert set(found) == {f"{count} {what}" for count in (1, 20) for what in burst._TITLES}
    assert found["1 pushes"] == found["1 mute"] == found["20 mute"] == 1
    assert 1 < found["20 pushes"] <= 20
    for count in (1, 20):
        assert 0 < found[f"{count} answered"] <= found[f"{count} held"] < 30
        assert found[f"{count} cpu"] > 0
