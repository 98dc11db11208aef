"""Fallbacks: versions of the same model that can answer in place of the chosen one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controlplane.domain import Credential, Endpoint, Mirror, Model, Protocol, Version
from controlplane.domain.fallback import check_fallbacks, fallback_users
from controlplane.errors import Error

HERE = (Endpoint("127.0.0.1", 8001),)
KEYED = Version("keyed", HERE, credential=Credential("api-key"))
BLUE, GREEN, IDLE = Version("blue", HERE), Version("green", HERE), Version("idle")


@pytest.mark.parametrize(
    ("fallback", "field", "text"),
    [
        (("blu",), "versions[1].fallback[0]", "there is no version 'blu'; did you mean"),
        (("green",), "versions[1].fallback[0]", "'green' can't be its own fallback"),
        (("blue", "idle"), "versions[1].fallback[1]", "'idle' has no endpoints, so it can't take over"),
        (("blue", "blue"), "versions[1].fallback[1]", "'blue' is named twice"),
        (("blue", "a", "b", "c", "d"), "versions[1].fallback", "5 is out of range: 0 to 4"),
        (("keyed",), "versions[1].fallback[0]", "'keyed' has `credential`, which Envoy can't apply to it alone"),
        (("rpc",), "versions[1].fallback[0]", "one of 'green' and 'rpc' speaks gRPC, and the other does not"),
    ],
)
def test_a_fallback_can_answer_in_place_of_the_version(fallback: tuple[str, ...], field: str, text: str) -> None:
    versions = (BLUE, replace(GREEN, fallback=fallback), IDLE, Version("rpc", HERE, Protocol.GRPC), KEYED)
    with pytest.raises(Error) as caught:
        check_fallbacks(versions, "")
    assert text in {v.field: v.description for v in caught.value.violations}[field]


def test_a_version_that_changes_its_requests_has_no_fallback() -> None:
    with pytest.raises(Error) as caught:
        check_fallbacks((BLUE, replace(GREEN, host="green.example", fallback=("blue",))), "")
    assert "'green' has `host`" in caught.value.message


def test_a_mirror_is_no_fallback_since_it_would_get_requests_twice() -> None:
    versions = (BLUE, replace(GREEN, fallback=("blue",)))
    with pytest.raises(Error) as caught:
        Model("iris", ("edge",), versions, {"green": 10_000}, mirror=Mirror("blue"))
    assert caught.value.violations[0].field == "mirror.version"
    Model("iris", ("edge",), versions, {"blue": 10_000}, mirror=Mirror("green"))


def test_two_versions_can_be_fallbacks_of_each_other() -> None:
    versions = (replace(BLUE, fallback=("green",)), replace(GREEN, fallback=("blue",)))
    check_fallbacks(versions, "")
    assert fallback_users(versions, "blue") == ["green"]
