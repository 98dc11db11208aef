"""A running server with an empty store, and one with a gateway and two models."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.snapshot import Audience
from tests.api.api import Api, gateway, model, serving
from tests.fakes.connected_nodes import CountedNodes


@pytest.fixture
async def empty(tmp_path: Path) -> AsyncIterator[Api]:
    """The services on an empty store."""
    async with serving(
        tmp_path, CountedNodes(lambda state: {Audience(("edge",)): 3} if "edge" in state.gateways else {Audience(): 3})
    ) as api:
        yield api


@pytest.fixture
async def api(empty: Api) -> Api:
    """One revision: gateway `edge`, models `iris` and `wine`, all traffic on blue."""
    await empty.apply(gateway(), model(split={"blue": 10_000}), model("wine", split={"blue": 10_000}))
    return empty
