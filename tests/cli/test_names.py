"""Names of objects as people type them."""

from __future__ import annotations

import pytest
import typer

from controlplane.cli.names import kind_of, object_kinds, parse


def test_names_by_kind() -> None:
    assert parse(["models"], object_kinds()) == {"models": []}
    assert parse(["model", "iris", "models/wine"], object_kinds()) == {"models": ["iris", "wine"]}
    assert parse(["model/iris", "gateways/edge", "models/wine"], object_kinds()) == {
        "models": ["iris", "wine"],
        "gateways": ["edge"],
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["modell"], "did you mean 'models'?"),
        (["x"], "write one of: gateways, models, secrets"),
        (["models/"], "'models/' has no name"),
        (["models/iris", "wine"], "'wine' has no kind: write models/wine"),
    ],
)
def test_wrong_names(arguments: list[str], expected: str) -> None:
    with pytest.raises(typer.BadParameter) as caught:
        parse(arguments, object_kinds())
    assert expected in caught.value.message


def test_a_kind_is_singular_or_plural() -> None:
    assert kind_of("secret", object_kinds()) == kind_of("secrets", object_kinds()) == "secrets"
