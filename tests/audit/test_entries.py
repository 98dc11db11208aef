"""Entries: a hash of the line and of the entry before, so that any edit shows."""

from __future__ import annotations

import json

import pytest

from controlplane.audit.entries import NOTHING, Head, line_of, parse, to_line


def test_entries_form_a_chain() -> None:
    head = Head("abcd")
    line, first = line_of(head, "t1", "begin", {"earlier": []})
    assert (first["chain"], first["seq"], first["prev"], "earlier" in first) == ("abcd", 1, NOTHING, False)
    assert (parse(line), to_line(first)) == (first, line)
    head = head.after(first)
    _, second = line_of(head, "t2", "dropped", {"first": 2})
    assert (second["seq"], second["prev"]) == (2, first["hash"])
    assert head.after(second) == Head("abcd", 2, second["hash"], 2)


@pytest.mark.parametrize(
    "change", [("t1", "t2"), ('"seq":1', '"seq":2'), ("anna", "hugo"), ('"from":""', '"from":"x"'), ("}", ',"x":1}')]
)
def test_any_edit_shows(change: tuple[str, str]) -> None:
    line, _ = line_of(Head("abcd"), "t1", "call", {"identity": "user:anna"})
    edited = line.decode().replace(*change)
    if edited != line.decode():
        with pytest.raises(ValueError, match="its hash does not fit"):
            parse(edited.encode())


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"{}", b'{"seq":1,"event":"call"}', b'{"seq":"1"}'])
def test_a_line_that_is_no_entry(line: bytes) -> None:
    with pytest.raises(ValueError, match="is not"):
        parse(line)


def test_long_texts_are_cut_and_control_characters_escaped() -> None:
    line, entry = line_of(Head(), "t", "call", {"error": "x" * 10_000, "identity": "a\nb\u2028"})
    assert (len(entry["error"]), line.count(b"\n"), line.isascii()) == (500, 1, True)


def test_a_head_is_kept_as_json() -> None:
    head = Head("abcd", 7, "f" * 64, 3)
    assert Head.from_json(head.to_json()) == head
    for wrong in (b"", b"{}", json.dumps({"chain": 1}).encode()):
        with pytest.raises((ValueError, KeyError)):
            Head.from_json(wrong)
