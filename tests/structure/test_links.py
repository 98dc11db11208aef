"""Relative links and anchors of every page point to something, and the README leads to every page of `docs/`.

Pages are the tracked Markdown files. Results of benchmarks are written by programs, and are not checked.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.structure.tree import ROOT

FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,}).*?^ {0,3}\1[`~]*\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)|(?:href|src)=\"([^\"]+)\"", re.MULTILINE)
TEXT_OF_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.+?)(?:\s+#+)?\s*$", re.MULTILINE)
HTML_ANCHOR = re.compile(r"<a\s[^>]*(?:id|name)=\"([^\"]+)\"")
SCHEME = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A relative link: the page, the target as written, the file it names and the anchor in it."""

    page: Path
    target: str
    file: Path
    anchor: str

    def fault(self) -> str | None:
        """Return the reason why the link is dead, or None."""
        if not self.file.exists():
            return "no such file"
        if self.anchor and self.file.suffix == ".md" and self.anchor not in anchors(self.file.read_text(encoding="utf-8")):
            return "no such heading"
        return None


def pages() -> list[Path]:
    """Return the tracked Markdown files, without the results of benchmarks."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    return [ROOT / name for name in names if name and not name.startswith("bench/results/") and (ROOT / name).exists()]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives a page: of its headings, with -1, -2 … for repeated ones, and of `<a id>`."""
    text = FENCE.sub("", text)
    names = set(HTML_ANCHOR.findall(text))
    repeats: dict[str, int] = {}
    for heading in HEADING.findall(text):
        visible = TEXT_OF_LINK.sub(r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", visible.lower()).replace(" ", "-")
        count = repeats.get(slug, 0)
        repeats[slug] = count + 1
        names.add(f"{slug}-{count}" if count else slug)
    return names


def links(page: Path, text: str) -> list[Link]:
    """Return the relative links of a page; links in code, and links with a scheme, are left out."""
    targets = [next(filter(None, groups)) for groups in LINK.findall(CODE.sub("", FENCE.sub("", text)))]
    result = []
    for target in targets:
        if not SCHEME.match(target):
            path, _, anchor = unquote(target).partition("#")
            result.append(Link(page, target, (page.parent / path).resolve() if path else page, anchor))
    return result


def links_of(page: Path) -> list[Link]:
    """Return the relative links of a page on disk."""
    return links(page, page.read_text(encoding="utf-8"))


def test_every_relative_link_points_to_something() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {link.target}: {fault}"
        for page in pages()
        for link in links_of(page)
        if (fault := link.fault())
    ]
    assert dead == []


def test_every_page_of_docs_is_reachable_from_the_readme() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in reached:
            reached.add(page)
            waiting += [link.file for link in links_of(page) if link.file.suffix == ".md" and link.file.exists()]
    assert [p.name for p in pages() if p.parent == ROOT / "docs" and p not in reached] == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("# What a node holds", "what-a-node-holds"),
        ("## Without a proxy: gRPC clients", "without-a-proxy-grpc-clients"),
        ("### `turnout serve --data`", "turnout-serve---data"),
        ("## Service / method_name.v1", "service--method_namev1"),
        ("## [A link](page.md) ##", "a-link"),
    ],
)
def test_the_anchor_of_a_heading(heading: str, anchor: str) -> None:
    assert anchors(heading) == {anchor}


def test_repeated_headings_are_numbered_and_code_has_none() -> None:
    assert anchors('# One\n## One\n```\n# Two\n```\n<a id="three"></a>\n') == {"one", "one-1", "three"}


def test_links_in_code_and_links_elsewhere_are_left_out() -> None:
    text = "[a](b.md#c) `[d](e.md)` [f](https://g.example/h.md)\n```\n[i](j.md)\n```\n![k](l.svg)\n[m](#n)\n"
    page = ROOT / "README.md"
    assert [(link.target, link.file, link.anchor) for link in links(page, text)] == [
        ("b.md#c", ROOT / "b.md", "c"),
        ("l.svg", ROOT / "l.svg", ""),
        ("#n", page, "n"),
    ]


def test_a_dead_link_is_found() -> None:
    page = ROOT / "README.md"
    assert [link.fault() for link in links(page, "[a](no.md) [b](#no) [c](docs)")] == ["no such file", "no such heading", None]
