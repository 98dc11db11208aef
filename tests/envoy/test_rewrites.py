"""Rewrites in a real Envoy: the whole table in one Envoy, with a model for each rewrite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from yarl import URL

from controlplane.domain import HeaderRouting, Model, PathRewrite, Version
from tests.compiler.rewrite_table import TABLE
from tests.envoy.test_compiled import edge, rig, state_of, versions

pytestmark = pytest.mark.envoy


@pytest.mark.parametrize("of", ["model", "version"])
async def test_the_table(of: str, tmp_path: Path) -> None:
    """A model's rewrite is a regular expression, a version's a script. Both follow the same rules."""
    ups, (v1,) = await versions("v1")
    models = [_model(of, f"m-{i}", v1, PathRewrite(*rewrite)) for i, rewrite in enumerate(TABLE)]
    async with rig(state_of(edge(routing=HeaderRouting("x-model")), *models), ups, tmp_path) as r:
        actual: dict[tuple[str, str], dict[str, str]] = {}
        for model, (rewrite, paths) in zip(models, TABLE.items(), strict=True):
            actual[rewrite] = {}
            for path in paths:
                url = URL(f"http://127.0.0.1:{r.ports['edge']}{path}", encoded=True)
                async with r.session.post(url, headers={"x-model": model.name}) as response:
                    actual[rewrite][path] = (await response.json())["path"]
        assert actual == TABLE


def _model(of: str, name: str, version: Version, rewrite: PathRewrite) -> Model:
    if of == "version":
        return Model(name, ("edge",), (replace(version, rewrite=rewrite),), {"v1": 10_000})
    return Model(name, ("edge",), (version,), {"v1": 10_000}, rewrite=rewrite)
