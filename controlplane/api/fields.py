"""Paths of fields in errors: paths in an object become paths in the request that contained the object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from controlplane import errors
from controlplane.errors import Error, Violation


@contextmanager
def at_objects(fields: Mapping[str, str]) -> Iterator[None]:
    """Rename the fields of an error that is raised inside, if they begin with the name of an object. Keep the error's text.

    With {"models/iris": "model"}, an error at `models/iris.keys` becomes one at `model.keys`.
    """
    try:
        yield
    except Error as error:
        violations = tuple(Violation(_renamed(v.field, fields), v.description) for v in error.violations)
        raise Error(error.code, error.reason, error.message, violations=violations, metadata=error.metadata) from None


@contextmanager
def at_fields(fields: Mapping[str, str]) -> Iterator[None]:
    """Rename the fields of an error that is raised inside, also in its text: {"split": "split.shares"}."""
    try:
        yield
    except Error as error:
        raise errors.renamed(error, lambda field: fields.get(field, field)) from None


def _renamed(field: str, fields: Mapping[str, str]) -> str:
    name, dot, path = field.partition(".")
    return f"{fields[name]}{dot}{path}" if name in fields else field
