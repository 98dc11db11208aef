"""A real Envoy refuses the breaks of `tests/compiler/breaks.py`, as our checks do: `envoy --mode validate` says so."""

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

# Envoy accepts these, and then never answers a request.
ACCEPTED_BY_ENVOY = {"no router"}


def bootstrap(resource: Resource) -> dict[str, Any]:
    """A bootstrap with this resource in place of the valid one."""
    if resource.type_url in (CLUSTER, LISTENER):
        form: dict[str, Any] = node_bootstrap("refused")
        message = json_format.MessageToDict(decoded(resource), preserving_proto_field_name=True)
        form["static_resources"].setdefault("listeners" if resource.type_url == LISTENER else "clusters", []).append(message)
        return form
    whole = base()
    of_type = {**whole.resources[resource.type_url], resource.name: resource}
    return static_bootstrap(replace(whole, resources={**whole.resources, resource.type_url: of_type}))


def refused(form: dict[str, Any], directory: Path) -> str:
    """The output of an Envoy that refuses a bootstrap; "" if it accepts it."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(form))
    command = [envoy_binary(), "--mode", "validate", "-l", "critical", "-c", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.parametrize(("type_url", "name"), sorted({(b.type_url, b.resource) for b in BREAKS}))
def test_envoy_accepts_the_valid_resources(type_url: str, name: str, tmp_path: Path) -> None:
    assert refused(bootstrap(base().resources[type_url][name]), tmp_path) == ""


@pytest.mark.parametrize("wrong", BREAKS, ids=lambda b: b.name)
def test_envoy_refuses_the_broken_ones(wrong: Break, tmp_path: Path) -> None:
    output = refused(bootstrap(broken(wrong)), tmp_path)
    assert bool(output) is (wrong.name not in ACCEPTED_BY_ENVOY), output
