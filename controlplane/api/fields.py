"""Paths of fields in errors: from those of an object to those of the request that contained it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from controlplane import errors
from controlplane.errors import Error, Violation


@contextmanager
def at_objects(fields: Mapping[str, str]) -> Iterator[None]:
    """Rename fields of errors inside that begin with the name of an object. The error's text is kept.

    With {"models/iris": "model"}, an error at `models/iris.keys` becomes one at `model.keys`.
    """
    try:
        yield
    except Error as error:
        violations = tuple(Violation(_renamed(v.field, fields), v.description) for v in error.violations)
        raise Error(error.code, error.reason, error.message, violations=violations, metadata=error.metadata) from None


@contextmanager
def at_fields(fields: Mapping[str, str]) -> Iterator[None]:
    """Rename fields of errors inside, also in the text: {"split": "split.shares"}."""
    try:
        yield
    except Error as error:
        raise errors.renamed(error, lambda field: fields.get(field, field)) from None


def _renamed(field: str, fields: Mapping[str, str]) -> str:
    name, dot, path = field.partition(".")
    return f"{fields[name]}{dot}{path}" if name in fields else field
