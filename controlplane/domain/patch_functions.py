"""The functions that patches name, in objects and in whole states.

Each patch that names a function also has the hash of the plug-in that the function is of. The writer fills in the hash of the
installed plug-in where a patch has none. So a new plug-in changes nothing until somebody applies the object again, and that is
a revision like any other, with a dry run and a diff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from controlplane.domain.collections import Object
from controlplane.domain.gateway import Gateway
from controlplane.domain.model import Model
from controlplane.domain.patch import Patch, PatchTarget
from controlplane.domain.secret import Secret
from controlplane.domain.state import State
from controlplane.errors import failed_precondition

_Patches = tuple[Patch, ...]


def with_hashes(objects: Mapping[str, Object | None], installed: str) -> Mapping[str, Object | None]:
    """Return changed objects, by resource name, with a hash in each patch that names a function. None is a deleted object.

    `installed` is the hash of the installed plug-in; "" if there is none. Errors: FAILED_PRECONDITION / NO_PATCH_FUNCTIONS.
    """
    filled: dict[str, Object] = {}

    def fill(patches: _Patches) -> _Patches:
        return tuple(replace(p, hash=installed) if p.target is PatchTarget.FUNCTION and not p.hash else p for p in patches)

    for name, obj in objects.items():
        without = next(((path, patch) for path, patch in _functions(obj) if not patch.hash), None)
        if obj is None or without is None:
            continue
        if not installed:
            path, patch = without
            text = f"there is no function '{patch.function}': the server has no plug-in; start it with --patches"
            raise failed_precondition("NO_PATCH_FUNCTIONS", f"{name}.{path}", text)
        filled[name] = _with_patches(obj, fill)
    return {**objects, **filled} if filled else objects


def uses_functions(state: State) -> bool:
    """Return True if a patch of any object names a function."""
    return any(map(names_functions, state.objects()))


def names_functions(obj: Object) -> bool:
    """Return True if a patch of the object names a function."""
    return next(_functions(obj), None) is not None


def without_patches(state: State) -> State:
    """Return a state in which no object has patches. Objects without patches stay the same."""
    return State(
        *(
            {label: _with_patches(obj, lambda _: ()) if _has_patches(obj) else obj for label, obj in objects.items()}
            for objects in state.collections.values()
        )
    )


def _functions(obj: Object | None) -> Iterator[tuple[str, Patch]]:
    """Yield the patches of an object that name a function, each with its path in the object."""
    if obj is None or isinstance(obj, Secret):
        return
    places = [("", obj.patches)]
    if isinstance(obj, Model):
        places += [(f"versions[{i}].", version.patches) for i, version in enumerate(obj.versions)]
    for prefix, patches in places:
        for i, patch in enumerate(patches):
            if patch.target is PatchTarget.FUNCTION:
                yield f"{prefix}patches[{i}].function", patch


def _has_patches(obj: Object) -> bool:
    if isinstance(obj, Model):
        return bool(obj.patches) or any(version.patches for version in obj.versions)
    return isinstance(obj, Gateway) and bool(obj.patches)


def _with_patches(obj: Object, change: Callable[[_Patches], _Patches]) -> Object:
    if isinstance(obj, Gateway):
        return replace(obj, patches=change(obj.patches))
    if isinstance(obj, Model):
        versions = tuple(replace(v, patches=change(v.patches)) if v.patches else v for v in obj.versions)
        return replace(obj, patches=change(obj.patches), versions=versions)
    return obj
