"""YAML as a tree of values with their lines."""

from __future__ import annotations

import pytest

from controlplane.cli.document import MAX_ALIASED, Mapping, Scalar, Sequence, documents
from controlplane.cli.exits import FilesError


def problem_of(text: str) -> str:
    with pytest.raises(FilesError) as caught:
        documents(text, "f.yaml")
    return str(caught.value)


def test_values_keep_their_lines() -> None:
    (document,) = documents("a: 1\nb:\n  - x\n  - 'y'\n", "f.yaml")
    assert isinstance(document, Mapping)
    key, items = document.entries["b"]
    assert key.line == 2
    assert isinstance(items, Sequence)
    assert items.items == [Scalar(3, "x", plain=True), Scalar(4, "y", plain=False)]


def test_documents_and_blanks() -> None:
    first = documents("a: 1\n---\n---\nb: 2\n", "f.yaml")
    assert [type(d) for d in first] == [Mapping, Scalar, Mapping]
    assert documents("", "f.yaml") == []
    assert documents("# nothing\n", "f.yaml") == []


def test_json_is_yaml() -> None:
    (document,) = documents('{"a": [1, "two", null, true]}', "f.json")
    assert isinstance(document, Mapping)


def test_aliases_and_merges() -> None:
    (document,) = documents("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\nc: *x\nd: {<<: [*x]}\n", "f.yaml")
    assert isinstance(document, Mapping)
    b = document.entries["b"][1]
    assert isinstance(b, Mapping)
    assert {k: v.text for k, (_, v) in b.entries.items() if isinstance(v, Scalar)} == {"q": "3", "p": "1"}
    assert document.entries["c"][1] is document.entries["a"][1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1,\n", "f.yaml:3: is not YAML"),
        ("a: 1\n  b: 2\n", "f.yaml:2: is not YAML"),
        ("\tx: 1\n", "f.yaml:1: is not YAML"),
        ("a: \x07\n", "f.yaml:1: is not YAML"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: 'a' is given twice; the first is on line 1"),
        ("x:\n  ? [1]\n  : 2\n", "f.yaml:2: has a list or a mapping as a key"),
        ("a: !!python/object:os.system x\n", "f.yaml:1: has the tag"),
        ("a: !custom x\n", "f.yaml:1: has the tag '!custom'"),
        ("a: *nowhere\n", "f.yaml:1: '*nowhere' has no anchor before it"),
        ("a: &a [*a]\n", "f.yaml:1: '*a' has no anchor before it"),
        ("a: {<<: 1}\n", "f.yaml:1: '<<' can merge only mappings"),
    ],
)
def test_an_error_names_the_line(text: str, expected: str) -> None:
    assert expected in problem_of(text)


@pytest.mark.parametrize("text", ["[" * 1_000_000, "{a: " * 100_000, "- " * 100_000, "[" * 100 + "]" * 100])
def test_deep_nesting_is_refused(text: str) -> None:
    assert "nested deeper than 64 levels" in problem_of(text)


def test_alias_bombs_are_refused_quickly() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert f"aliases expand to more than {MAX_ALIASED:,} values" in problem_of("\n".join(levels))
