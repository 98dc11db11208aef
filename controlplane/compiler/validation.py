"""Checks of a compiled snapshot by Envoy's own rules, before a revision is accepted.

There are three kinds of rules: those in Envoy's protos (`constraints.py`), those in its code (`rules.py`), and those between
resources, here. `turnout apply --validate-with-envoy` asks a real Envoy, which has further rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from controlplane.compiler.constraints import Constraints, Problem
from controlplane.compiler.decode import decoded, owner
from controlplane.compiler.rules import RULES
from controlplane.envoy_types import SCOPED_ROUTES, SENSITIVE, short_name
from controlplane.errors import Code, Error, Violation
from controlplane.snapshot import Resource, Snapshot

_MAX_VIOLATIONS = 100


class Validator:
    """Checks resources against Envoy's rules, and remembers the rules that it read from the protos."""

    def __init__(self) -> None:
        self._constraints = Constraints()

    def check(self, resources: Iterable[Resource], snapshot: Snapshot | None = None) -> None:
        """Raise if Envoy would refuse one of the resources, whatever other resources it holds.

        With the snapshot that the resources belong to: raise also if two of them conflict, or one refers to a name that is not
        in it. A check takes about 0.1 ms for each resource.

        Errors: INVALID_ARGUMENT / ENVOY_WOULD_REFUSE with each resource and field, like `Cluster[iris/blue].connect_timeout`;
        INTERNAL / ENVOY_WOULD_REFUSE for a problem between resources. Objects that fit together never cause such a problem, so
        it is a defect of the compiler.
        """
        resources = list(resources)
        problems = [(r, path, text) for r in resources for path, text in self._problems(r)]
        code = Code.INVALID_ARGUMENT
        if not problems and snapshot is not None:
            code = Code.INTERNAL
            problems = [*_conflicts(resources), *_dangling(resources, snapshot)]
        if problems:
            raise _error(code, problems)

    def _problems(self, resource: Resource) -> Iterator[Problem]:
        try:
            message = decoded(resource)
        except DecodeError:
            yield "", "is not a message of its type"
            return
        broken = list(self._constraints.problems(message))
        # The rules in code may rely on those in the protos.
        yield from (_without_values(resource, p) for p in broken or RULES[resource.type_url](message))


def by_owner(error: Error, resources: Iterable[Resource]) -> Error:
    """Return the error of `check` with the fields that a person can change: the objects that the resources come from."""
    if error.code is not Code.INVALID_ARGUMENT:
        return error  # no object is at fault
    labels = {_label(r): r for r in resources}
    violations = []
    for violation in error.violations:
        resource = labels.get(violation.field[: violation.field.find("]") + 1])
        description = f"Envoy would refuse {violation.field}: {violation.description}"
        violations.append(Violation(owner(resource), description) if resource is not None else violation)
    return Error(error.code, error.reason, error.message, violations=tuple(violations), metadata=error.metadata)


def _error(code: Code, problems: list[tuple[Resource, str, str]]) -> Error:
    fields = (f"{_label(r)}{'.' if path else ''}{path}" for r, path, _ in problems)
    violations = tuple(Violation(field, text) for field, (_, _, text) in zip(fields, problems[:_MAX_VIOLATIONS], strict=False))
    objects = sorted({owner(r) for r, _, _ in problems})
    message = "Envoy would refuse " + "; ".join(f"{v.field}: {v.description}" for v in violations[:3])
    if len(problems) > 3:
        message += f"; and {len(problems) - 3} more"
    return Error(code, "ENVOY_WOULD_REFUSE", message, violations=violations, metadata={"objects": ",".join(objects[:20])})


def _without_values(resource: Resource, problem: Problem) -> Problem:
    """Return the problem; for a sensitive resource without its text, which could quote a value."""
    return (
        (problem[0], "breaks a rule of Envoy; the value is secret, so the rule is not named")
        if resource.type_url in SENSITIVE
        else problem
    )


def _label(resource: Resource) -> str:
    return f"{short_name(resource.type_url)}[{resource.name}]"


def _dangling(resources: list[Resource], snapshot: Snapshot) -> Iterator[tuple[Resource, str, str]]:
    for resource in resources:
        for type_url, name in sorted(resource.refs):
            # A listener names the first part of its scopes' names, and may have none.
            if type_url != SCOPED_ROUTES and name not in snapshot.resources[type_url]:
                yield resource, "", f"refers to {short_name(type_url)} '{name}', which does not exist"


def _conflicts(resources: list[Resource]) -> Iterator[tuple[Resource, str, str]]:
    """Yield scopes with the same key as another scope. Listeners can't share an address, because it is their name."""
    keys: dict[tuple[str, ...], str] = {}
    for r in resources:
        if r.type_url == SCOPED_ROUTES:
            key = tuple(f.string_key for f in decoded(r).key.fragments)
            if (first := keys.setdefault(key, r.name)) != r.name:
                yield r, "key", f"scope '{first}' has the same key"
