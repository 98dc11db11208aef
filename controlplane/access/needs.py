"""The permissions that a change of desired state needs, by the objects before and after it.

| change | needs |
|---|---|
| only the split of a model | switch on the model |
| anything else of a gateway or a model | edit on it, and use on each secret that it names then |
| anything of a secret | secrets on it |
| any of them with `allow_cut` | cut on it, too |

An object is compared with the rules as it is before and as it is after the change. So nobody can give an object another label
or another gateway to bring it into or out of somebody's reach. A secret that an object names counts at each change of the
object, because its owner could send the secret elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

from controlplane.access.roles import Permission
from controlplane.access.rules import Target
from controlplane.domain import Gateway, Model, Object, Secret
from controlplane.domain.state import State


@dataclass(frozen=True, slots=True)
class Need:
    """A permission on an object that a change needs."""

    permission: Permission
    target: Target
    # The object that names the secret `target`; "" for other permissions.
    because: str = ""


def target_of(obj: Object) -> Target:
    """Return what rules compare about an object."""
    gateways = obj.gateways if isinstance(obj, Model) else (obj.name,) if isinstance(obj, Gateway) else ()
    return Target(obj.resource_name, gateways, {} if isinstance(obj, Secret) else obj.labels)


def needs_of(
    state: State, objects: Mapping[str, Object | None], *, cut: bool = False, unchanged: bool = False
) -> Iterator[Need]:
    """Yield what a change needs: the new object by resource name; None deletes.

    `cut` says that the request has `allow_cut`. With `unchanged`, objects that stay equal need a permission, too: the request
    names each of them alone, and is not a file with all of them.
    """
    for name, after in objects.items():
        before = state.get(name)
        if before == after and not unchanged:
            continue
        permission = _permission(before, after)
        targets = [target_of(obj) for obj in (before, after) if obj is not None]
        for target in targets if targets[0] != targets[-1] else targets[:1]:
            yield Need(permission, target)
            if cut:
                yield Need(Permission.CUT, target)
        if permission is Permission.EDIT and after is not None:
            yield from _secrets(state, objects, after)


def _permission(before: Object | None, after: Object | None) -> Permission:
    if isinstance(before or after, Secret):
        return Permission.SECRETS
    if isinstance(before, Model) and isinstance(after, Model) and _only_split(before, after):
        return Permission.SWITCH
    return Permission.EDIT


def _only_split(before: Model, after: Model) -> bool:
    return all(getattr(before, f.name) == getattr(after, f.name) for f in fields(Model) if f.name != "split")


def _secrets(state: State, objects: Mapping[str, Object | None], obj: Object) -> Iterator[Need]:
    """Yield the use of each secret that an object names. A secret that does not exist is an error elsewhere."""
    for name in sorted({r.resource_name for r in obj.references if r.collection == Secret.collection}):
        secret = objects.get(name) or state.get(name)
        yield Need(Permission.USE_SECRET, target_of(secret) if secret else Target(name), obj.resource_name)
