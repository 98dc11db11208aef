"""The SVG picture of a terminal session: its text, colours and times."""

from __future__ import annotations

from xml.etree import ElementTree

from rich.text import Text

from controlplane.demo.terminal_svg import Line, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def rows(picture: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(picture).iter(f"{NAMESPACE}text"))


def test_each_line_is_text_and_an_empty_one_only_space() -> None:
    listed = rows(svg("a < b", [Line(Text("first"), 0), Line(Text(), 0), Line(Text("a < b & c"), 0)]))
    assert ["".join(row.itertext()) for row in listed] == ["first", "a < b & c"]
    first, third = (int(row.attrib["y"]) for row in listed)
    assert third - first == 2 * 19
    assert [row.attrib["textLength"] for row in listed] == ["40", "72"]


def test_styles_become_classes() -> None:
    text = Text.from_ansi("\x1b[1;32mheld\x1b[0m by \x1b[33m3\x1b[0m \x1b[35mother\x1b[0m")
    (row,) = rows(svg("", [Line(text, 0)]))
    assert [(span.attrib["class"], span.text) for span in row] == [("green bold", "held"), ("yellow", "3")]
    (row,) = rows(svg("", [Line(Text.assemble(("$ ", "dim"), "x"), 0)]))
    assert [(span.attrib["class"], span.text) for span in row] == [("dim", "$ ")]


def test_a_later_line_appears_later() -> None:
    first, second = rows(svg("", [Line(Text("a"), 0), Line(Text("b"), 1.5)]))
    assert "style" not in first.attrib
    assert second.attrib["style"] == "animation-delay:1.50s"


def test_both_colour_schemes_and_no_motion_are_possible() -> None:
    picture = svg("", [Line(Text("a"), 0)])
    assert "prefers-color-scheme:dark" in picture
    assert "prefers-reduced-motion:reduce" in picture
    assert "http://" not in picture.replace("http://www.w3.org/", "")  # loads nothing


def test_the_picture_is_as_wide_as_its_longest_line() -> None:
    root = ElementTree.fromstring(svg("", [Line(Text("x" * 100), 0)]))
    assert root.attrib["width"] == str(800 + 2 * 18)
    assert ElementTree.fromstring(svg("", [])).attrib["width"] == str(8 + 2 * 18)
