"""Rewrites of the path of a request, before it goes to the model server."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.domain.checks import check_path


@dataclass(frozen=True, slots=True)
class PathRewrite:
    """Replaces the prefix of the path before the request goes to the model server. A prefix ends where a segment ends."""

    prefix: str
    replacement: str = ""  # "": the prefix is removed

    def __post_init__(self) -> None:
        check_path(self.prefix, "prefix")
        if self.replacement:
            check_path(self.replacement, "replacement")
