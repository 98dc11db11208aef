"""Fields in errors are those of the request."""

from __future__ import annotations

import pytest

from controlplane.api.fields import at_fields, at_objects
from controlplane.errors import Code, Error, Violation, failed_precondition


def test_a_field_of_an_object_becomes_one_of_the_request() -> None:
    fields = {"models/iris": "manifest.models[0]", "models/wine": "delete_names[1]"}
    violations = (Violation("models/iris.keys", "a"), Violation("models/wine", "b"), Violation("models/rose.keys", "c"))
    with pytest.raises(Error) as caught, at_objects(fields):
        raise Error(Code.ABORTED, "X", "text", violations=violations, metadata={"name": "n"})
    error = caught.value
    assert [v.field for v in error.violations] == ["manifest.models[0].keys", "delete_names[1]", "models/rose.keys"]
    assert (error.reason, error.message, error.metadata) == ("X", "text", {"name": "n"})


def test_a_whole_field_is_renamed_also_in_the_text() -> None:
    with pytest.raises(Error) as caught, at_fields({"split": "split.shares", "split.blue": "version"}):
        raise failed_precondition("X", "split.blue", "no")
    assert ([v.field for v in caught.value.violations], caught.value.message) == (["version"], "version: no")
    with pytest.raises(Error) as caught, at_fields({"split": "split.shares"}):
        raise failed_precondition("X", "split.green", "no")
    assert [v.field for v in caught.value.violations] == ["split.green"]


def test_other_exceptions_pass() -> None:
    with pytest.raises(ValueError, match="x"), at_objects({}), at_fields({}):
        raise ValueError("x")
