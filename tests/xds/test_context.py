"""Streams of one process share nonces and caches; those of two processes share nothing."""

from __future__ import annotations

from controlplane.envoy_types import CLUSTER
from controlplane.snapshot import DiffCache
from controlplane.xds.context import Context
from controlplane.xds.delta import DeltaStream
from tests.xds.rig import ask, many, responses


def nonces(*contexts: Context) -> list[str]:
    """Return the nonces of the first response on a stream of each."""
    snapshot, streams = many(1, 1), [DeltaStream(context=context) for context in contexts]
    for stream in streams:
        stream.offer(snapshot)
        stream.receive(ask(CLUSTER))
    return [response.nonce for stream in streams for response in responses(stream)]


def test_nonces_grow_and_never_come_again() -> None:
    context = Context()
    numbers = [context.next_nonce() for _ in range(100)]
    assert numbers == sorted(set(numbers))


def test_streams_of_one_context_have_different_nonces() -> None:
    context = Context()
    assert len(set(nonces(context, context, context))) == 3


def test_two_contexts_share_nothing() -> None:
    assert len(set(nonces(Context(), Context()))) == 1
    one, other = Context(), Context()
    assert one.diffs is not other.diffs
    assert one.encoder is not other.encoder


def test_a_context_uses_the_diff_cache_that_it_is_given() -> None:
    diffs = DiffCache()
    assert Context(diffs).diffs is diffs
