"""The JSON Schema of files of desired state. `python -m controlplane.cli.schema` generates it from the protos."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parent / "turnout.schema.json"


def text() -> str:
    """Return the schema from the package."""
    return FILE.read_text(encoding="utf-8")
