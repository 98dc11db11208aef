"""gRPC ports: all versions of a model that have endpoints have them, or none has."""

from __future__ import annotations

import pytest

from controlplane.domain import Endpoint, Model, Protocol, Version
from controlplane.domain.grpc_ports import check_grpc_ports
from controlplane.errors import Error

WITH = Version("with", (Endpoint("10.0.0.1", 8000, grpc_port=8001),))
WITHOUT = Version("without", (Endpoint("10.0.0.2", 8000),))
GRPC = Version("grpc", (Endpoint("10.0.0.3", 8001),), Protocol.GRPC)
EMPTY = Version("empty")


@pytest.mark.parametrize("versions", [(WITH, EMPTY), (WITHOUT, GRPC, EMPTY), (EMPTY,)])
def test_all_or_none(versions: tuple[Version, ...]) -> None:
    check_grpc_ports(versions)


@pytest.mark.parametrize(("other", "field"), [(WITHOUT, "versions[0].endpoints"), (GRPC, "versions[0].endpoints")])
def test_a_version_that_could_not_answer_grpc_calls_is_refused(other: Version, field: str) -> None:
    with pytest.raises(Error) as caught:
        Model("iris", ("edge",), (other, WITH), {"with": 10_000})
    (violation,) = caught.value.violations
    assert violation.field == field
    assert f"'with' has gRPC ports, and '{other.name}' has none" in violation.description
