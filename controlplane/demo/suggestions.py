"""Commands that `turnout demo --keep` prints for a second terminal."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.demo import models
from controlplane.demo.scenario import PATH, PREVIEW_HEADER, USER_HEADER


def commands(api: str, gateway_port: int, body: Mapping[str, Any], program: Path | None = None) -> list[str]:
    """Return shell commands that work in any terminal.

    The first sets PATH and TURNOUT_API, because another terminal knows neither the virtual environment nor the API's port.
    `program` is the path of `turnout`; by default the one beside this Python.
    """
    folder = (program or Path(sys.executable).with_name("turnout")).parent
    url = f"http://127.0.0.1:{gateway_port}{PATH}"
    data = shlex.quote(json.dumps(body, separators=(",", ":")))
    return [
        f'export PATH={shlex.quote(str(folder))}:"$PATH" TURNOUT_API={api}',
        "turnout status",
        f"turnout split {models.NAME} blue=90% green=10%",
        f"turnout switch {models.NAME} --to green --reason 'reads better'",
        "turnout history",
        f"turnout undo {models.NAME}",
        "turnout nodes",
        f"curl -s {url}",
        f"curl -s -H '{USER_HEADER}: u7' -H '{PREVIEW_HEADER}: green' {url}/infer -d {data}",
    ]
