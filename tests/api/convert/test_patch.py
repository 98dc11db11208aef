"""Patches as messages."""

from __future__ import annotations

import pytest

from controlplane.api.convert.patch import patch_to_proto, patches_from_proto
from controlplane.domain import Patch, PatchTarget
from controlplane.errors import Collector, Error
from controlplane.generated.turnout.v1 import patch_pb2

PLACES = [("", ""), ("router", ""), ("", "cors")]


@pytest.mark.parametrize(
    "patch",
    [
        *(
            Patch("a", target, '{"a": {"b": [1, 2.5, "c", null, true]}}')
            for target in PatchTarget
            if target is not PatchTarget.FUNCTION
        ),
        *(Patch("a", PatchTarget.HTTP_FILTER, '{"a": 1}', before, after) for before, after in PLACES),
        *(
            Patch("a", PatchTarget.FUNCTION, settings, function="f", hash=digest)
            for settings in ("{}", '{"a": [1, null]}')
            for digest in ("", "0" * 32)
        ),
    ],
)
def test_a_patch_becomes_a_message_and_the_same_again(patch: Patch) -> None:
    c = Collector()
    assert patches_from_proto([patch_to_proto(patch)], c) == (patch,)
    c.check()


def test_each_wrong_patch_is_reported_at_its_field() -> None:
    empty_place = patch_pb2.Patch(name="b")
    empty_place.http_filter.filter.update({"name": "x"})
    empty_place.http_filter.before = ""
    c = Collector()
    assert patches_from_proto([patch_pb2.Patch(name="a"), empty_place], c) == ()
    with pytest.raises(Error) as raised:
        c.check()
    assert [v.field for v in raised.value.violations] == ["patches[0]", "patches[1].http_filter.before"]
