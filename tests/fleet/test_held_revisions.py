"""The revisions that a stream or a node holds."""

from controlplane.fleet import HeldRevisions
from controlplane.xds.events import Held, Settled


def test_a_new_stream_holds_nothing() -> None:
    held = HeldRevisions()
    assert [n for n in range(1, 5) if n in held] == []


def test_a_revision_above_a_refused_one_is_held_and_the_refused_one_is_not() -> None:
    held = HeldRevisions().after(Held(2)).after(Settled(5, 3))
    assert [n for n in range(1, 8) if n in held] == [1, 2, 4, 5]
    assert held.after(Settled(2, 1)) is held
    assert held.after(Held(6)) == HeldRevisions(6, 6)


def test_several_streams_hold_what_each_of_them_holds() -> None:
    streams = [HeldRevisions(2, 6, 3), HeldRevisions(5, 5), HeldRevisions(1, 7, 2)]
    common = HeldRevisions.common(streams)
    held = [n for n in range(1, 9) if n in common]
    assert held == [1, 4, 5]
    assert all(n in stream for n in held for stream in streams)
