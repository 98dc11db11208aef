"""Descriptions of a change to a secret. They use only facts that reveal nothing about a private key or an opaque value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from controlplane.domain.secret import CaCertificates, OpaqueValue, Secret

if TYPE_CHECKING:
    from controlplane.domain.pem import Certificate

_NONE = "none"


def secret_lines(old: Secret | None, new: Secret) -> list[str]:
    """Return one line for each fact that differs: subject, names, hashes, and the times of validity.

    For a new secret, or a secret that changed its kind, return one line for each fact.
    """
    lines = []
    if old is not None and old.kind != new.kind:
        lines.append(f"{old.kind} -> {new.kind}")
        old = None
    if isinstance(new.content, OpaqueValue):
        # Not even a hash: people could guess short values until the hash fits.
        if old is None:
            return [*lines, "value: set"]
        return [] if old.content == new.content else ["value: changed"]
    before = _facts(old) if old is not None else {}
    for name, now in _facts(new).items():
        was = before.get(name, _NONE)
        if was != now:
            lines.append(f"{name}: {was} -> {now}" if before else f"{name}: {now}")
    return lines


def _facts(secret: Secret) -> dict[str, str]:
    if isinstance(secret.content, CaCertificates):
        certificates = secret.content.certificates
        subjects = "; ".join(c.subject or _NONE for c in certificates)
        return {"certificates": _fingerprints(certificates), "subjects": subjects}
    if isinstance(secret.content, OpaqueValue):
        return {}
    leaf = secret.content.leaf
    return {
        "certificate": _fingerprints(secret.content.chain),
        "subject": leaf.subject or _NONE,
        "names": ", ".join(leaf.sans) or _NONE,
        "not before": _time(leaf.not_before),
        "not after": _time(leaf.not_after),
    }


def _fingerprints(certificates: Sequence[Certificate]) -> str:
    return "sha256 " + ", ".join(f"{c.sha256[:16]}…" for c in certificates)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
