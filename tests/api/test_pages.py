"""Pages: their sizes, their tokens, and that all pages together are the list."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import pages
from controlplane.api.pages import max_items, page, page_size, read_token, write_token
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import ListModelsRequest

NAMES = st.sets(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), min_size=1, max_size=4), max_size=20
)


def read_all(names: Any, size: int = 0) -> list[list[str]]:
    """Return the names on each page of a list."""
    result = []
    token = ""
    while True:
        request = ListModelsRequest(page_size=size, page_token=token)
        items, token = page(names, lambda name: Model(name=name), request, "models")
        result.append([m.name for m in items])
        if not token:
            return result


@given(NAMES, st.integers(1, 25))
def test_the_pages_together_are_the_sorted_list(names: set[str], size: int) -> None:
    result = read_all(names, size)
    assert [name for items in result for name in items] == sorted(names)
    assert all(len(items) == size for items in result[:-1])
    assert result == [[]] or all(result)


@given(NAMES, NAMES, st.integers(1, 5))
def test_a_token_stays_valid_while_the_list_changes(names: set[str], later: set[str], size: int) -> None:
    items, token = page(names, lambda name: Model(name=name), ListModelsRequest(page_size=size), "models")
    if token:
        last = items[-1].name
        request = ListModelsRequest(page_size=1_000, page_token=token)
        following, _ = page(later, lambda name: Model(name=name), request, "models")
        assert [m.name for m in following] == sorted(n for n in later if n > last)


def test_a_page_ends_before_it_is_too_large_and_has_at_least_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "PAGE_BYTES", 30)
    assert [len(items) for items in read_all([f"{i:08}" for i in range(7)])] == [3, 3, 1]
    assert [len(items) for items in read_all(["x" * 50, "y" * 50])] == [1, 1]


@pytest.mark.parametrize(("requested", "size"), [(0, 100), (1, 1), (1_000, 1_000), (1_001, 1_000)])
def test_the_size_of_a_page_is_limited(requested: int, size: int) -> None:
    assert page_size(requested) == size


@pytest.mark.parametrize(("requested", "size"), [(0, 100), (1, 1), (10_000, 10_000), (10_001, 10_000)])
def test_the_size_of_a_list_without_pages_is_limited(requested: int, size: int) -> None:
    assert max_items(requested, "max_nodes") == size


def test_a_negative_size_is_refused_at_its_field() -> None:
    with pytest.raises(Error) as caught:
        page_size(-1)
    assert (caught.value.code, caught.value.violations[0].field) == (Code.INVALID_ARGUMENT, "page_size")
    with pytest.raises(Error) as caught:
        max_items(-1, "max_nodes")
    assert (caught.value.code, caught.value.violations[0].field) == (Code.INVALID_ARGUMENT, "max_nodes")


def test_a_token_names_its_list() -> None:
    token = write_token("models", "iris")
    assert read_token("models", token) == "iris"
    assert read_token("models", "") == ""
    for other in (token[:-1], "?", "ü", base64.urlsafe_b64encode(b"models").decode(), write_token("nodes", "iris")):
        with pytest.raises(Error) as caught:
            read_token("models", other)
        assert caught.value.reason == "INVALID_PAGE_TOKEN"
