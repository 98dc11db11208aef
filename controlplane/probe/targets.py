"""Select the versions to probe for a change, and the addresses that may be probed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from controlplane.domain import CaCertificates, Model, Object, Version
from controlplane.domain.state import State


@dataclass(frozen=True, slots=True)
class Target:
    """A version to probe."""

    model: str  # label
    version: Version
    # PEM of the certificate authorities that the endpoints' certificates are verified against. "": those of the system.
    authorities: str = ""
    # True: without a health check, too, the endpoints must show that they speak the version's protocol, with its TLS.
    handshake: bool = False


def rising(
    changes: Mapping[str, tuple[Object | None, Object | None]], state: State, *, restored: bool = False, made: bool = True
) -> list[Target]:
    """Return the versions whose share rises from 0, by model and in the models' order of versions.

    `changes` are (old, new) by resource name, and `state` has the secrets that the versions name. A new model has no users
    yet, so its versions don't count. With `restored`, they do: the change restores an earlier revision, in which the model may
    have had users. If the change was not `made`, only versions count whose endpoints are in desired state already.
    """
    targets = []
    for _, (old, new) in sorted(changes.items()):
        if not isinstance(new, Model) or not (isinstance(old, Model) or restored):
            continue
        shares: Mapping[str, int] = old.split if isinstance(old, Model) else {}
        versions = [v for v in new.versions if new.split.get(v.name) and not shares.get(v.name)]
        if not made:
            present = {v.name: v.endpoints for v in old.versions} if isinstance(old, Model) else {}
            versions = [v for v in versions if present.get(v.name) == v.endpoints]
        targets += [target(new, version, state) for version in versions]
    return targets


def target(model: Model, version: Version, state: State) -> Target:
    """Return a version as a target. The certificate authorities that it names are taken from `state`."""
    tls = version.tls
    if tls is None:
        return Target(model.name, version)
    secret = state.secrets.get(tls.ca_certificates)
    if secret is not None and isinstance(secret.content, CaCertificates):
        return Target(model.name, version, secret.content.ca_certificates_pem)
    return Target(model.name, version, tls.ca_certificates_pem)


def replaced(versions: Iterable[tuple[str, str]], before: State, after: State) -> list[Target]:
    """Return versions with traffic, as (model, version), that a change replaces or lets be reached otherwise, as targets."""
    targets = []
    for model, name in versions:
        old, new = before.models[model].version(name), after.models[model].version(name)
        handshake = (old.protocol, old.tls) != (new.protocol, new.tls)
        targets.append(replace(target(after.models[model], new, after), handshake=handshake))
    return targets


def is_known(target: Target, before: State) -> bool:
    """Return True if all addresses of a target belong to its version before the change, so that a dry run may probe them."""
    return _addresses(target.version) <= _addresses(before.models[target.model].version(target.version.name))


def _addresses(version: Version) -> set[tuple[str, int]]:
    return {(e.host, port) for e in version.endpoints for port in (e.port, e.grpc_port) if port}


def forbidden(address: str, *, local: bool) -> str:
    """Return the reason why an IP address may not be probed; "" if it may.

    `local` is True if the control plane listens on loopback alone. Then its callers are on this machine anyway.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    # A connection to the unspecified address goes to loopback.
    if ip.is_loopback or ip.is_unspecified:
        return "" if local else "a loopback address"
    if ip.is_link_local:
        return "" if local else "a link-local address"
    return "a multicast or reserved address" if ip.is_multicast or ip.is_reserved else ""
