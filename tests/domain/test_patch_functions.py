"""Functions in patches: the hash of their plug-in, and states without patches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain import Endpoint, Gateway, Model, Object, Patch, PatchTarget, Version
from controlplane.domain.patch_functions import uses_functions, with_hashes, without_patches
from controlplane.domain.state import State
from controlplane.errors import Code, Error

OLD, NEW = "0" * 32, "1" * 32
CALL = Patch("a", PatchTarget.FUNCTION, "{}", function="f")
PINNED = replace(CALL, hash=OLD)
OTHER = Patch("b", PatchTarget.CLUSTER, '{"alt_stat_name": "x"}')
BLUE = Version("blue", (Endpoint("10.0.0.1", 80),), patches=(OTHER, CALL))
IRIS = Model("iris", ("edge",), (BLUE,), {"blue": 10_000}, patches=(CALL,))
EDGE = Gateway("edge", 80, patches=(CALL,))
PLAIN = Gateway("edge", 80)


def changes(*objects: Gateway | Model) -> dict[str, Object | None]:
    return {o.resource_name: o for o in objects} | {"models/gone": None}


def test_every_function_without_a_hash_gets_that_of_the_installed_plugin() -> None:
    filled = replace(CALL, hash=NEW)
    version = replace(BLUE, patches=(OTHER, filled))
    wanted = changes(replace(EDGE, patches=(filled,)), replace(IRIS, versions=(version,), patches=(filled,)))
    assert with_hashes(changes(EDGE, IRIS), NEW) == wanted
    assert with_hashes(wanted, OLD) is wanted


def test_a_hash_that_is_set_stays_and_needs_no_plugin() -> None:
    pinned = changes(replace(EDGE, patches=(PINNED,)))
    assert with_hashes(pinned, "") is pinned


def test_without_a_plugin_a_new_function_is_refused_by_its_path() -> None:
    for objects, path in (
        (changes(EDGE), "gateways/edge.patches[0].function"),
        (changes(replace(IRIS, patches=())), "models/iris.versions[0].patches[1].function"),
    ):
        with pytest.raises(Error, match="the server has no plug-in; start it with --patches") as raised:
            with_hashes(objects, "")
        assert (raised.value.code, raised.value.reason) == (Code.FAILED_PRECONDITION, "NO_PATCH_FUNCTIONS")
        assert [v.field for v in raised.value.violations] == [path]


def test_functions_of_all_objects_are_found() -> None:
    model = replace(IRIS, versions=(replace(BLUE, patches=()),), patches=())
    assert not uses_functions(State({"edge": PLAIN}, {"iris": model}))
    assert not uses_functions(State({"edge": PLAIN}, {"iris": replace(model, versions=(replace(BLUE, patches=(OTHER,)),))}))
    assert uses_functions(State({"edge": EDGE}, {"iris": model}))
    assert uses_functions(State({"edge": PLAIN}, {"iris": replace(model, versions=(BLUE,))}))


def test_a_state_without_patches_has_the_same_other_objects() -> None:
    plain = Gateway("plain", 81)
    state = without_patches(State({"edge": EDGE, "plain": plain}, {"iris": IRIS}))
    assert state.gateways["edge"] == PLAIN
    assert state.gateways["plain"] is plain
    assert state.models["iris"] == replace(IRIS, versions=(replace(BLUE, patches=()),), patches=())


@pytest.mark.parametrize("name", ["", "A", "1a", "a.b", "a-b", "_a", "a" * 64])
def test_what_is_no_name_of_a_function_is_refused(name: str) -> None:
    with pytest.raises(Error, match=r"function.name: "):
        replace(CALL, function=name)


def test_a_hash_has_32_digits_and_only_functions_have_one() -> None:
    with pytest.raises(Error, match=r"function.hash: 'abc' must have 32 hex digits"):
        replace(CALL, hash="abc")
    with pytest.raises(Error, match="is no function"):
        replace(OTHER, hash=OLD)
