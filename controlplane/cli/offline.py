"""Checks files without a server: the same translation and the same nouns, against a world where nothing else exists."""

from __future__ import annotations

from controlplane.errors import Collector
from controlplane.model import Object
from controlplane.operator.v1.revision_service_pb2 import Manifest
from controlplane.server import convert
from controlplane.state import Changes, State


def check(manifest: Manifest) -> None:
    """Nothing when every object is valid and they fit together. Errors: all that is wrong, as the server would say it."""
    raise NotImplementedError
