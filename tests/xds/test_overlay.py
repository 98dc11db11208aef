"""What is worked out of shared mappings is worked out once, and remembered in bounds."""

from __future__ import annotations

import pytest

from controlplane.envoy_types import CLUSTER, ROUTES
from controlplane.snapshot import Resource
from controlplane.xds import overlay
from controlplane.xds.overlay import Resources, _Memo, between, references


def routes(count: int, first: int = 0) -> dict[str, Resource]:
    """Of so many models; the first one has another version in each `first`."""
    versions = {n: first if n == 0 else 0 for n in range(count)}
    refs = frozenset({(CLUSTER, "blue")})
    return {f"{n}": Resource(ROUTES, f"{n}", f"{v}", b"", refs) for n, v in versions.items()}


@pytest.fixture(autouse=True)
def _nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay, "_transitions", _Memo())
    monkeypatch.setattr(overlay, "_references", _Memo())


def test_what_lies_between_two_is_found_once() -> None:
    old, new = routes(3), routes(3, first=1)
    assert between(old, new).names == ("0",)
    assert between(old, new) is between(old, new)
    assert references(new) == {CLUSTER: frozenset({"blue"})}
    assert references(new) is references(new)


@pytest.mark.parametrize(("count", "most"), [(3, 256), (1_000, 250), (100_000, 4)])
def test_what_is_remembered_is_bounded_in_how_many_and_in_names(count: int, most: int) -> None:
    same = routes(count)
    old: Resources = same
    for _ in range(300 if count < 10_000 else 10):
        # Another object each time, as a new revision's is.
        new = dict(same)
        assert between(old, new).names == ()
        assert references(new)
        old = new
    transitions, kept = overlay._transitions, overlay._references
    assert between(old, old) is between(old, old)
    assert len(transitions._values) <= most
    assert len(kept._values) <= most * 2
    for memo in (transitions, kept):
        assert memo._names == sum(value.size for value in memo._values.values())
        assert memo._names <= 500_000 or len(memo._values) <= 4
    assert len(transitions._values) >= most - 1
