"""No module, function or class in controlplane/ is larger than the limits in `tests/structure/sizes.py`."""

from __future__ import annotations

import pytest

from tests.structure import sizes
from tests.structure.tree import modules


@pytest.mark.parametrize("measure", [sizes.module_sizes, sizes.function_sizes, sizes.class_sizes])
def test_sizes_are_within_their_limits(measure: object) -> None:
    assert callable(measure)
    assert [f"{s.name}: {s.size} > {s.limit}" for s in measure(modules()) if s.over] == []


def test_exceptions_are_few_and_needed() -> None:
    measured = [*sizes.module_sizes(modules()), *sizes.function_sizes(modules()), *sizes.class_sizes(modules())]
    over = {s.name for s in measured if s.size > s.limit}
    assert set(sizes.EXCEPTIONS) <= over, "an exception that is not needed any more"
    assert len(sizes.EXCEPTIONS) <= sizes.MAX_EXCEPTIONS
    assert not [name for name in sizes.EXCEPTIONS if name.rpartition(":")[2] in sizes.NO_EXCEPTION]
    assert all(reason.strip() for reason in sizes.EXCEPTIONS.values())


def test_a_module_that_is_too_long_is_found() -> None:
    assert sizes.Size("controlplane/x.py", 501, sizes.MODULE_LINES).over
    assert not sizes.Size("controlplane/x.py", 500, sizes.MODULE_LINES).over
