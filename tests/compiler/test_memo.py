"""A memo keeps the newest result for each key."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.compiler.memo import Memo


@given(st.lists(st.tuples(st.sampled_from("abc"), st.tuples(st.integers(0, 2))), max_size=30))
def test_a_result_is_made_only_if_the_source_differs_from_the_last_one(asked: list[tuple[str, tuple[int, ...]]]) -> None:
    memo: Memo[str, tuple[int, ...], object] = Memo()
    newest: dict[str, tuple[tuple[int, ...], object]] = {}
    for key, source in asked:
        result = memo.get(key, source, object)
        if key in newest and newest[key][0] == source:
            assert result is newest[key][1]
        else:
            assert all(result is not earlier for _, earlier in newest.values())
        newest[key] = source, result
    assert len(memo) == len(newest)


def test_unwanted_keys_are_dropped() -> None:
    memo: Memo[str, int, object] = Memo()
    kept, dropped = memo.get("a", 1, object), memo.get("b", 1, object)
    memo.keep(lambda key: key == "a")
    assert len(memo) == 1
    assert memo.get("a", 1, object) is kept
    assert memo.get("b", 1, object) is not dropped
