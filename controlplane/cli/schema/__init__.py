"""The JSON Schema of the files that `turnout apply` reads; `python -m controlplane.cli.schema` makes it from the protos."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parent / "turnout.schema.json"


def text() -> str:
    """The schema as it is packaged."""
    return FILE.read_text(encoding="utf-8")
