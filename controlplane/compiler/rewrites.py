"""Path rewrites, as one regular expression for each.

The rules are those of the Gateway API's ReplacePrefixMatch. A slash at the end of the prefix or of the replacement is not
significant, and the path always has exactly one slash between the two parts:

    prefix  replacement  /foo    /foo/   /foo/bar    /foo:verb    /foobar
    /foo    /xyz         /xyz    /xyz/   /xyz/bar    /xyz:verb    not changed
    /foo    /xyz/        /xyz    /xyz/   /xyz/bar    /xyz:verb    not changed
    /foo    / or none    /       /       /bar        /:verb       not changed
    /foo/   /xyz         /xyz    /xyz/   /xyz/bar    not changed  not changed

The Gateway API has no verbs. Here a prefix also matches before a verb, unless it ends with a slash. A prefix that ends with a
colon is replaced as it is, and matches only before a verb.

Envoy's `prefix_rewrite` knows none of these rules, and would need a second route for paths without the prefix. A regular
expression that does not match changes nothing. RE2 has no look-ahead, so the character after the prefix is captured and put
back. Envoy applies the expression to the path without its query.
"""

from __future__ import annotations

import re
from typing import Any

from envoy.type.matcher.v3 import regex_pb2

from controlplane.domain import PathRewrite

# Parts of a prefix that requests spell in several ways. `%2F` may be `%2f` (RFC 3986, section 2.1). Some clients encode these
# characters in the name of a model.
_PART = re.compile(r"%[0-9A-Fa-f]{2}|[:@+]|.", re.DOTALL)


def regex_rewrite(rewrite: PathRewrite) -> Any:
    """Return the rewrite as Envoy's RegexMatchAndSubstitute."""
    prefix = _regex(rewrite.prefix.removesuffix("/"))
    replacement = (rewrite.replacement or "/").replace("\\", "\\\\")
    short = replacement.removesuffix("/")
    if rewrite.prefix.endswith(":"):
        regex, substitution = f"{_regex(rewrite.prefix[:-1])}:", replacement
    elif short:
        ends = "/|$" if rewrite.prefix.endswith("/") else "/|:|$"
        regex, substitution = f"{prefix}({ends})", f"{short}\\1"
    else:
        # Nothing is left of the prefix, and a path must begin with a slash. Group 1 is a verb's colon, or empty.
        ends = "/|()$" if rewrite.prefix.endswith("/") else "/|(:)|$"
        regex, substitution = f"{prefix}(?:{ends})", "/\\1"
    return regex_pb2.RegexMatchAndSubstitute(pattern=regex_pb2.RegexMatcher(regex=f"^{regex}"), substitution=substitution)


def _regex(prefix: str) -> str:
    return "".join(_part_regex(part) for part in _PART.findall(prefix))


def _part_regex(part: str) -> str:
    if len(part) == 1:
        return f"(?:{re.escape(part)}|{_part_regex(f'%{ord(part):02X}')})" if part in ":@+" else re.escape(part)
    return "%" + "".join(digit if digit.isdigit() else f"[{digit.upper()}{digit.lower()}]" for digit in part[1:])
