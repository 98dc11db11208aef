"""A real Envoy refuses what `check` refuses: each break of `tests/compiler/breaks.py`, put to `envoy --mode validate`."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from controlplane.compiler.bootstrap import node_bootstrap
from controlplane.compiler.decode import decoded
from controlplane.compiler.static_bootstrap import static_bootstrap
from controlplane.demo.envoy import envoy_binary
from controlplane.envoy_types import CLUSTER, LISTENER
from controlplane.snapshot import Resource
from tests.compiler.breaks import BREAKS, Break, base, broken

pytestmark = pytest.mark.envoy

# Envoy takes it, and then no request is ever answered.
TAKEN_BY_ENVOY = {"no router"}


def bootstrap(resource: Resource) -> dict[str, Any]:
    """A bootstrap with the resource in place of the whole one."""
    if resource.type_url in (CLUSTER, LISTENER):
        made: dict[str, Any] = node_bootstrap("refused")
        form = json_format.MessageToDict(decoded(resource), preserving_proto_field_name=True)
        made["static_resources"].setdefault("listeners" if resource.type_url == LISTENER else "clusters", []).append(form)
        return made
    whole = base()
    of_type = {**whole.resources[resource.type_url], resource.name: resource}
    return static_bootstrap(replace(whole, resources={**whole.resources, resource.type_url: of_type}))


def refused(form: dict[str, Any], directory: Path) -> str:
    """Why Envoy refuses a bootstrap; "" when it doesn't."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(form))
    command = [envoy_binary(), "--mode", "validate", "-l", "critical", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(("type_url", "name"), sorted({(b.type_url, b.resource) for b in BREAKS}))
def test_takes_what_is_whole(type_url: str, name: str, tmp_path: Path) -> None:
    assert refused(bootstrap(base().resources[type_url][name]), tmp_path) == ""


@pytest.mark.parametrize("made", BREAKS, ids=lambda b: b.name)
def test_refuses_what_is_broken(made: Break, tmp_path: Path) -> None:
    said = refused(bootstrap(broken(made)), tmp_path)
    assert bool(said) is (made.name not in TAKEN_BY_ENVOY), said
