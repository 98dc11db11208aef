"""Live endpoints: checked fields, look-up by version, and the models that changed."""

from __future__ import annotations

import pytest

from controlplane.domain.endpoints import NO_LIVE_ENDPOINTS, Endpoints, LiveEndpoint
from controlplane.errors import Error

ONE, OTHER = LiveEndpoint("10.0.0.1", 80), LiveEndpoint("10.0.0.2", 80)


@pytest.mark.parametrize(
    ("host", "port", "weight", "field"),
    [("a.svc", 80, 1, "host"), ("", 80, 1, "host"), ("::1", 0, 1, "port"), ("10.0.0.1", 80, 0, "weight")],
)
def test_the_fields_of_a_live_endpoint_are_checked(host: str, port: int, weight: int, field: str) -> None:
    with pytest.raises(Error) as caught:
        LiveEndpoint(host, port, weight)
    assert [v.field for v in caught.value.violations] == [field]


def test_a_version_without_an_entry_has_the_endpoints_of_its_desired_state() -> None:
    endpoints = Endpoints({("iris", "blue"): (ONE,), ("iris", "green"): ()})
    assert endpoints.of("iris", "blue") == (ONE,)
    assert endpoints.of("iris", "green") == ()
    assert endpoints.of("wine", "blue") is None
    assert NO_LIVE_ENDPOINTS.of("iris", "blue") is None


def test_models_with_changed_live_endpoints_are_returned() -> None:
    before = Endpoints({("iris", "blue"): (ONE,), ("wine", "blue"): (ONE,), ("rose", "blue"): (ONE,)})
    after = Endpoints({("iris", "blue"): (ONE,), ("wine", "blue"): (ONE, OTHER), ("digits", "blue"): ()})
    assert before.changed_models(after) == after.changed_models(before) == {"wine", "rose", "digits"}
    assert before.changed_models(before) == before.changed_models(Endpoints(before.live)) == set()
    assert NO_LIVE_ENDPOINTS.changed_models(NO_LIVE_ENDPOINTS) == set()
