"""The model server: the Open Inference Protocol and its predictions."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from controlplane.demo import models
from controlplane.demo.modelserver import application, request

DATA = models.data()
TRAINED = {version: models.train(version) for version in models.VERSIONS}


@pytest.fixture(params=models.VERSIONS)
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, Any]]:
    version = request.param
    async with TestClient(TestServer(application(version, TRAINED[version]))) as client:
        yield version, client


async def test_answers_name_the_version_and_are_mostly_right(served: tuple[str, Any]) -> None:
    version, client = served
    answer = await client.post("/v2/models/digits/infer", json=request(DATA.test) | {"id": "7"})
    answered = await answer.json()
    assert answer.status == 200
    assert answer.headers["x-model-version"] == answered["model_version"] == version
    assert answered["id"] == "7"
    output = answered["outputs"][0]
    assert output["shape"] == [len(DATA.test)] == [450]
    right = sum(a == b for a, b in zip(output["data"], DATA.test_digits.tolist(), strict=True)) / 450
    assert {"blue": 0.8, "green": 0.98}[version] < right < {"blue": 0.9, "green": 1.0}[version]


async def test_health_and_metadata(served: tuple[str, Any]) -> None:
    version, client = served
    paths = ("", "/health/live", "/health/ready", "/models/digits", f"/models/digits/versions/{version}/ready")
    for path in paths:
        assert (await client.get("/v2" + path)).status == 200, path
    metadata = await (await client.get("/v2/models/digits")).json()
    assert metadata["versions"] == [version]
    for path in ("/models/iris", "/models/iris/ready", "/models/digits/versions/red"):
        answer = await client.get("/v2" + path)
        assert answer.status == 404, path
        assert "error" in await answer.json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "Expecting"),
        (b"[]", "inputs"),
        (b'{"inputs": [{"shape": [1, 3], "data": [1, 2, 3]}]}', r"inputs[0].shape"),
        (b'{"inputs": [{"shape": [1, 64], "data": [1, 2, 3]}]}', r"inputs[0].data"),
        (b'{"inputs": [{"shape": [1, 64], "data": "many"}]}', r"inputs[0].data"),
    ],
)
async def test_a_body_without_a_tensor_is_400(served: tuple[str, Any], body: bytes, field: str) -> None:
    answer = await served[1].post("/v2/models/digits/infer", data=body)
    assert answer.status == 400
    assert field in (await answer.json())["error"]


async def test_a_stream_is_complete(served: tuple[str, Any]) -> None:
    version, client = served
    answer = await client.post("/v2/models/digits/stream?seconds=0.2")
    assert len((await answer.text()).splitlines()) == 4
    assert answer.headers["x-model-version"] == version
