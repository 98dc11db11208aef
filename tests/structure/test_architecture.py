"""ARCHITECTURE.md states invariants in bold, and each names the contract or the test that keeps it.

- **A sentence.** More about it. Kept by `tests/…/test_x.py::test_name`.
- **A sentence.** Kept by contract `layers`.
"""

from __future__ import annotations

import re

from tests.structure.test_contracts import CONTRACTS
from tests.structure.tree import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def invariants(text: str) -> list[tuple[str, str]]:
    """Return (bold sentence, text up to the next bold sentence or the end of the paragraph)."""
    pairs = []
    for paragraph in re.split(r"\n\s*\n|\n(?=- )", text):
        parts = re.split(r"\*\*(.+?)\*\*", paragraph.replace("\n", " "))
        pairs += list(zip(parts[1::2], parts[2::2], strict=True))
    return pairs


def problems(text: str) -> list[str]:
    """Return a text for each invariant that names no contract and no test, or one that does not exist."""
    texts = []
    for sentence, following in invariants(text):
        kept_by = re.findall(r"`([^`]+)`", following.partition("Kept by")[2])
        if not kept_by:
            texts.append(f"{sentence}: nothing keeps it")
        texts += [f"{sentence}: {name} does not exist" for name in kept_by if not exists(name)]
    return texts


def exists(name: str) -> bool:
    """Return True if there is a contract, a test file or a test with this name."""
    if name in CONTRACTS:
        return True
    file, _, test = name.partition("::")
    path = ROOT / file
    return file.startswith("tests/") and path.exists() and (not test or f"def {test}(" in path.read_text(encoding="utf-8"))


def test_each_invariant_is_kept_by_something() -> None:
    assert len(invariants(TEXT)) >= 20
    assert problems(TEXT) == []


def test_paths_in_the_text_exist() -> None:
    named = re.findall(r"`((?:controlplane|tests|protos|docs|bench)/[\w/.-]+)`", TEXT)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_an_invariant_without_a_keeper_is_found() -> None:
    assert problems("- **Nothing queues.** Really.") == ["Nothing queues.: nothing keeps it"]
    assert problems("- **Nothing queues.** Kept by `tests/none.py`.") == ["Nothing queues.: tests/none.py does not exist"]
    assert problems("- **Down go values.** Kept by contract `layers`.") == []
