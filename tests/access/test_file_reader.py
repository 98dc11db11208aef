"""Small files with lines in their errors; `test_document.py` and `test_tokens.py` have the forms."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.access.file_reader import FileReader
from controlplane.errors import Error


class Names(FileReader[tuple[str, ...]]):
    """Reads `names: [a, b]`."""

    def read(self, node: Any) -> tuple[str, ...]:
        return self.texts(self.mapping(node, "", ("names",))["names"], "names", lambda text: "is x" if text == "x" else "")


def test_values_and_problems() -> None:
    assert Names("f").parse("names: [a, b]") == ("a", "b")
    with pytest.raises(Error) as caught:
        Names("f").parse("names:\n- x\n- a\n- x\n")
    assert caught.value.message == "f:2: names[0]: 'x' is x\nf:4: names[2]: 'x' is x"
    assert caught.value.reason == "INVALID_FILE"


@pytest.mark.parametrize("text", ["", "names", "names: {}", "names: [[a]]", "names: &a [*a]", "names: [a", "{" * 3_000])
def test_no_text_makes_another_exception(text: str) -> None:
    with pytest.raises(Error, match=r"^f(:1)?: "):
        Names("f").parse(text)
