"""A terminal session as an SVG picture: selectable text, readable on light and dark pages.

The lines appear one after the other, at the times at which they were printed. A viewer without animations, or a reader who
turned motion off, sees all lines at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.sax.saxutils import escape

from rich.style import Style
from rich.text import Text

# Pixels.
_CHARACTER_WIDTH = 8.0
_LINE_HEIGHT = 19
_MARGIN = 18
_BAR = 34
# Number of the terminal's colour -> class in the style sheet.
_COLOURS = {1: "red", 2: "green", 3: "yellow", 6: "cyan"}

_STYLE = """
.back{fill:#f6f8fa;stroke:#d0d7de}.bar{fill:#8c959f}
text{font:13.3px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328;white-space:pre}
.green{fill:#116329}.yellow{fill:#7d4e00}.red{fill:#a40e26}.cyan{fill:#1b7c83}.bold{font-weight:bold}.dim{fill:#656d76}
.line{animation:appear .01s backwards}@keyframes appear{from{opacity:0}}
@media (prefers-reduced-motion:reduce){.line{animation:none}}
@media (prefers-color-scheme:dark){.back{fill:#161b22;stroke:#30363d}.bar{fill:#6e7681}text{fill:#e6edf3}
.green{fill:#56d364}.yellow{fill:#e3b341}.red{fill:#ff7b72}.cyan{fill:#76e3ea}.dim{fill:#8b949e}}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the session."""

    text: Text
    # Seconds after the start of the picture.
    time: float


def svg(title: str, lines: Sequence[Line]) -> str:
    """Return the picture. Its width is that of the longest line."""
    columns = max((line.text.cell_len for line in lines), default=1)
    width = round(columns * _CHARACTER_WIDTH) + 2 * _MARGIN
    height = len(lines) * _LINE_HEIGHT + _BAR + _MARGIN
    rows = (_row(line, _BAR + _LINE_HEIGHT * (i + 1) - 5) for i, line in enumerate(lines))
    dots = "".join(f'<circle class="bar" cx="{_MARGIN + 4 + 16 * i}" cy="17" r="5"/>' for i in range(3))
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n"
        f'<rect class="back" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8"/>{dots}\n'
        + "\n".join(row for row in rows if row)
        + "\n</svg>\n"
    )


def _row(line: Line, y: int) -> str:
    if not line.text.plain.strip():
        return ""
    # The fixed length keeps columns aligned, whatever monospace font the viewer has.
    length = f'{line.text.cell_len * _CHARACTER_WIDTH:g}" lengthAdjust="spacingAndGlyphs'
    parts = "".join(_span(text, classes) for text, classes in _spans(line.text))
    delay = f' style="animation-delay:{line.time:.2f}s"' if line.time else ""
    return f'<text class="line" x="{_MARGIN}" y="{y}" textLength="{length}" xml:space="preserve"{delay}>{parts}</text>'


def _span(text: str, classes: str) -> str:
    return f'<tspan class="{classes}">{escape(text)}</tspan>' if classes else escape(text)


def _spans(text: Text) -> Iterable[tuple[str, str]]:
    """Yield the parts of a line, each with its CSS classes."""
    edges = sorted({0, len(text.plain), *(s.start for s in text.spans), *(s.end for s in text.spans)})
    for start, end in pairwise(edges):
        styles = [Style.parse(str(s.style)) for s in text.spans if s.start <= start and end <= s.end]
        yield text.plain[start:end], " ".join(dict.fromkeys(c for style in styles for c in _classes(style)))


def _classes(style: Style) -> list[str]:
    colour = _COLOURS.get(style.color.number or 0) if style.color is not None else None
    return [
        *([colour] if colour else []),
        *(["bold"] if style.bold else []),
        *(["dim"] if style.dim else []),
    ]
