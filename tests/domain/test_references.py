"""References: the resource names of the objects that an object needs."""

from __future__ import annotations

from hypothesis import given

from controlplane.domain import Model
from controlplane.domain.collections import BY_NAME
from controlplane.domain.references import Reference
from tests.nouns import models, some


def test_a_reference_has_the_resource_name_of_its_target() -> None:
    assert Reference("gateways[0]", "gateways", "edge").resource_name == "gateways/edge"


@given(models())
@some
def test_references_are_to_rows_of_the_table(model: Model) -> None:
    assert all(reference.collection in BY_NAME for reference in model.references)
    assert [r.label for r in model.references if r.collection == "gateways"] == list(model.gateways)
