"""Names, times, defaults, and collected errors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api.convert.names import collected, duration, label, number, seconds, timestamp
from controlplane.domain import Model, Retries
from controlplane.errors import Code, Collector, Error, Violation, invalid
from controlplane.generated.turnout.v1 import model_pb2
from tests.nouns import some


@pytest.mark.parametrize("name", ["iris", "models/iris"])
def test_a_name_with_or_without_its_collection(name: str) -> None:
    assert label(name, Model, "f") == "iris"


@pytest.mark.parametrize("name", ["", "gateways/iris", "/iris", "models/x/iris", "model/iris"])
def test_a_name_of_another_collection_is_refused(name: str) -> None:
    with pytest.raises(Error) as caught:
        label(name, Model, "f")
    assert [v.field for v in caught.value.violations] == ["f"]


@some
@given(st.integers(0, 86_400_000))
def test_times_keep_their_milliseconds(millis: int) -> None:
    assert seconds(duration(millis / 1000)) == millis / 1000
    assert timestamp(millis / 1000).ToNanoseconds() == millis * 1_000_000


@pytest.mark.parametrize(("attempts", "expected"), [(None, 2), (0, 0), (3, 3)])
def test_a_number_that_is_unset_is_the_default_and_0_is_not_unset(attempts: int | None, expected: int) -> None:
    assert number(model_pb2.Retries(attempts=attempts), "attempts", Retries()) == expected


def raised(*fields: str) -> Error:
    violations = tuple(Violation(field, "wrong") for field in fields)
    return Error(Code.INVALID_ARGUMENT, "R", "text", violations=violations)


def collect(error: Error | None, skip: str | None = None) -> list[str]:
    """Return the fields of the errors that remain when `make` raises an error."""

    def make() -> int:
        if error is not None:
            raise error
        return 7

    c = Collector()
    assert collected(c, "model", make, skip) == (None if error else 7)
    return [v.field for e in c.errors for v in e.violations]


def test_an_error_is_collected_below_its_prefix() -> None:
    assert collect(None) == []
    assert collect(invalid("keys", "wrong")) == ["model.keys"]


def test_violations_of_a_skipped_field_are_dropped() -> None:
    assert collect(raised("keys", "split", "split.blue", "splits"), "model.split") == ["model.keys", "model.splits"]
    assert collect(raised("split"), "model.split") == []
