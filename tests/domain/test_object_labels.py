"""Labels of gateways and models."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain import Gateway
from controlplane.domain.object_labels import checked_labels
from controlplane.errors import Error


def test_labels_are_in_the_order_of_their_keys() -> None:
    assert list(checked_labels({"team": "ml", "cost/center": "A-1.b"})) == ["cost/center", "team"]
    assert checked_labels({}) == {}


@pytest.mark.parametrize(
    ("labels", "field"),
    [
        ({"Team": "x"}, "labels"),
        ({"": "x"}, "labels"),
        ({"a" * 64: "x"}, "labels"),
        ({"team": ""}, "labels.team"),
        ({"team": "a b"}, "labels.team"),
        ({"team": "x\n"}, "labels.team"),
        ({"team": "a" * 64}, "labels.team"),
        ({f"k{i}": "x" for i in range(17)}, "labels"),
    ],
)
def test_labels_that_are_refused(labels: dict[str, str], field: str) -> None:
    with pytest.raises(Error) as caught:
        checked_labels(labels)
    assert [v.field for v in caught.value.violations] == [field]
    with pytest.raises(Error) as of_gateway:
        replace(Gateway("edge", 80), labels=labels)
    assert [v.field for v in of_gateway.value.violations] == [field]
