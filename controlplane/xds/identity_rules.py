"""Rules that say what a client with a verified identity may claim to be.

A rule has a pattern for identities, and patterns for claims:

    match: spiffe://example.org/ns/{ns}/sa/{sa}
    ids: ["{ns}/{sa}/*"]

`{ns}` in `match` is a whole part of the identity: the text between two `/`, in a name without `/` the text between two `.`.
In the other fields it stands for that text, and `*` for any text. Everything that no rule allows is refused: a client with no
rule, an id, a cluster, a place, and a text in the metadata under a key that is not named. The claims are what
`node.identified` keeps of a node: nothing else is read of it.

Every pattern has one `*` at most, so matching takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.errors import Code, Error, invalid
from controlplane.xds.events import Identified

_CAPTURE = re.compile(r"\{([a-z_][a-z0-9_]*)\}")
_LISTS = ("ids", "clusters", "regions", "zones", "sub_zones")
_FIELDS = ("match", *_LISTS, "metadata", "shared")


@dataclass(frozen=True, slots=True)
class Rule:
    """The claims that clients with one form of identity may make. Patterns are as in the file."""

    match: str
    ids: tuple[str, ...]
    clusters: tuple[str, ...]
    # By key; the key `*` is for every other key.
    metadata: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    sub_zones: tuple[str, ...] = ()
    # True if many nodes have the same identity. Otherwise they are counted as one node where a number of nodes matters.
    shared: bool = False

    def __post_init__(self) -> None:
        names = _CAPTURE.findall(self.match)
        separator = "/" if "/" in self.match else "."
        for part in self.match.split(separator):
            if _CAPTURE.sub("", part) != part and not _CAPTURE.fullmatch(part):
                raise invalid("match", f"'{part}': a name in braces must be a whole part, between two '{separator}'")
        if not self.match or "*" in self.match or len(set(names)) != len(names):
            raise invalid("match", "must be an identity, in which each name in braces comes once, without '*'")
        lists = [(name, getattr(self, name)) for name in _LISTS]
        for name, patterns in (*lists, *((f"metadata.{key}", values) for key, values in self.metadata.items())):
            for pattern in patterns:
                unknown = set(_CAPTURE.findall(pattern)) - set(names)
                if unknown or pattern.count("*") > 1:
                    problem = f"{{{min(unknown)}}} is not in match" if unknown else "has more than one '*'"
                    raise invalid(name, f"'{pattern}': {problem}")

    def captured(self, identity: str) -> dict[str, str] | None:
        """Return the text of each name in braces; None for an identity that the rule is not for."""
        parts = _CAPTURE.split(self.match)
        any_part = "[^/]+" if "/" in self.match else "[^.]+"
        regex = "".join(f"(?P<{p}>{any_part})" if n % 2 else re.escape(p) for n, p in enumerate(parts))
        found = re.fullmatch(regex, identity)
        return None if found is None else found.groupdict()

    def problem(self, captured: Mapping[str, str], claim: Identified) -> str:
        """Return which claim the rule does not allow; "" if it allows all of them."""
        place = claim.locality
        single = (
            ("node id", claim.id, self.ids),
            ("cluster", claim.cluster, self.clusters),
            ("region", place.region, self.regions),
            ("zone", place.zone, self.zones),
            ("sub-zone", place.sub_zone, self.sub_zones),
        )
        for name, value, patterns in single:
            if (value or name == "node id") and not _allowed(value, patterns, captured):
                return _problem(name, value, patterns, captured)
        for key, content in claim.metadata.items():
            patterns = self.metadata.get(key, self.metadata.get("*", ()))
            for text in _texts(content):
                if not _allowed(text, patterns, captured):
                    return _problem(f"metadata {key[:100]}:", text, patterns, captured)
        return ""


class IdentityRules:
    """All rules, by the order of the file."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IdentityRules) and self.rules == other.rules

    def __hash__(self) -> int:
        return hash(len(self.rules))

    def check(self, identity: str, claim: Identified) -> Rule:
        """Return the first rule that allows all claims. Errors: PERMISSION_DENIED / NOT_YOUR_CLAIM."""
        problem = ""
        for rule in self.rules:
            captured = rule.captured(identity)
            if captured is not None:
                problem = rule.problem(captured, claim)
                if not problem:
                    return rule
        problem = problem or "no rule is for this identity"
        raise Error(Code.PERMISSION_DENIED, "NOT_YOUR_CLAIM", f"{identity[:300]}: {problem}")


def parsed(document: object) -> IdentityRules:
    """Return the rules in a document like `{identities: [{match: …, ids: […], clusters: […]}]}`. Errors: INVALID_ARGUMENT."""
    if not isinstance(document, dict) or list(document) != ["identities"] or not isinstance(document["identities"], list):
        raise invalid("", "must have a list under the single key `identities`")
    rules = []
    for number, entry in enumerate(document["identities"]):
        at = f"identities[{number}]"
        if not isinstance(entry, dict) or not isinstance(entry.get("match"), str):
            raise invalid(at, "must be a rule with `match`, `ids` and `clusters`")
        if unknown := [key for key in entry if key not in _FIELDS]:
            raise invalid(f"{at}.{unknown[0]}", f"is not one of: {', '.join(_FIELDS)}")
        lists = {name: _patterns(entry.get(name, []), f"{at}.{name}") for name in _LISTS}
        metadata = entry.get("metadata", {})
        if not isinstance(metadata, dict):
            raise invalid(f"{at}.metadata", "must be a mapping of keys to patterns")
        if not isinstance(shared := entry.get("shared", False), bool):
            raise invalid(f"{at}.shared", "must be true or false")
        by_key = {str(key): _patterns(value, f"{at}.metadata.{key}") for key, value in metadata.items()}
        try:
            rules.append(Rule(entry["match"], metadata=by_key, shared=shared, **lists))
        except Error as error:
            raise invalid(f"{at}.{error.violations[0].field}", error.violations[0].description) from None
    return IdentityRules(rules)


def _patterns(value: object, at: str) -> tuple[str, ...]:
    patterns = [value] if isinstance(value, str) else value
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise invalid(at, "must be a text or a list of texts")
    return tuple(patterns)


def _texts(value: object) -> Iterable[str]:
    """Return the texts of a value of the metadata, as selectors read them."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, float):
        return (f"{value:g}",)
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else ()


def _allowed(value: str, patterns: Iterable[str], captured: Mapping[str, str]) -> bool:
    return any(_matches(value, pattern, captured) for pattern in patterns)


def _matches(value: str, pattern: str, captured: Mapping[str, str]) -> bool:
    before, star, after = pattern.partition("*")
    before, after = _filled(before, captured), _filled(after, captured)
    if not star:
        return value == before
    return len(value) >= len(before) + len(after) and value.startswith(before) and value.endswith(after)


def _filled(pattern: str, captured: Mapping[str, str]) -> str:
    replace: Callable[[re.Match[str]], str] = lambda match: captured[match[1]]  # noqa: E731
    return _CAPTURE.sub(replace, pattern)


def _problem(name: str, value: str, patterns: Sequence[str], captured: Mapping[str, str]) -> str:
    allowed = ", ".join(_filled(pattern, captured) for pattern in patterns[:5]) or "none"
    return f"may not claim {name} '{value[:100]}'; its rule allows {allowed[:300]}"
