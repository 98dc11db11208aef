"""Each noun has conversions, found by the name of its module."""

from __future__ import annotations

from importlib import import_module

import pytest

from controlplane.api.convert import CONVERTERS
from controlplane.domain.collections import COLLECTIONS, Collection
from controlplane.generated.turnout.v1 import revision_service_pb2


@pytest.mark.parametrize("row", COLLECTIONS, ids=lambda row: row.name)
def test_the_conversions_of_a_noun_are_in_the_module_of_its_name(row: Collection) -> None:
    converter = CONVERTERS[row.noun]
    assert converter is import_module(f"controlplane.api.convert.{row.singular}").CONVERTER
    message = revision_service_pb2.Manifest.DESCRIPTOR.fields_by_name[row.name].message_type
    assert message is not None
    assert message.name == row.noun.__name__
    assert converter.kept_if_unset <= set(message.fields_by_name)


def test_every_converter_belongs_to_a_noun() -> None:
    assert list(CONVERTERS) == [row.noun for row in COLLECTIONS]
