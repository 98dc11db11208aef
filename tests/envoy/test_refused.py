"""`envoy --mode validate` refuses the broken resources of `tests/compiler/breaks.py`, as the compiler's checks do."""

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
    """Return a bootstrap with this resource in place of the valid one of its name."""
    if resource.type_url in (CLUSTER, LISTENER):
        config: dict[str, Any] = node_bootstrap("refused")
        message = json_format.MessageToDict(decoded(resource), preserving_proto_field_name=True)
        config["static_resources"].setdefault("listeners" if resource.type_url == LISTENER else "clusters", []).append(message)
        return config
    whole = base()
    of_type = {**whole.resources[resource.type_url], resource.name: resource}
    return static_bootstrap(replace(whole, resources={**whole.resources, resource.type_url: of_type}))


def refusal(config: dict[str, Any], directory: Path) -> str:
    """Return the output of an Envoy that refuses a bootstrap; "" if it accepts the bootstrap."""
    file = directory / "bootstrap.json"
    file.write_text(json.dumps(config))
    command = [envoy_binary(), "--mode", "validate", "-l", "critical", "-c", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


@pytest.mark.parametrize(("type_url", "name"), sorted({(b.type_url, b.resource) for b in BREAKS}))
def test_envoy_accepts_the_valid_resources(type_url: str, name: str, tmp_path: Path) -> None:
    assert refusal(bootstrap(base().resources[type_url][name]), tmp_path) == ""


@pytest.mark.parametrize("wrong", BREAKS, ids=lambda b: b.name)
def test_envoy_refuses_the_broken_resources(wrong: Break, tmp_path: Path) -> None:
    output = refusal(bootstrap(broken(wrong)), tmp_path)
    assert bool(output) is (wrong.name not in ACCEPTED_BY_ENVOY), output
