"""The difference between two contents of an Envoy resource, as lines for people."""

from __future__ import annotations

import json
from difflib import unified_diff
from itertools import islice

import yaml
from google.protobuf.json_format import MessageToDict

from controlplane.compiler.decode import decoded
from controlplane.envoy_types import SENSITIVE
from controlplane.snapshot import Resource
from controlplane.xds.status import known

# Larger contents are not compared.
MAX_BYTES = 256 * 1024
# Longer diffs are cut off.
MAX_LINES = 400

# The faster one in C, if it is installed.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def difference(held: Resource | None, target: Resource | None) -> tuple[list[str], str]:
    """Return the lines of a unified diff of two resources in YAML, and the reason if they are not compared.

    It takes milliseconds.
    """
    both = [r for r in (held, target) if r is not None]
    if (held is None and target is None) or (held is not None and target is not None and held.version == target.version):
        return [], ""
    if any(r.type_url in SENSITIVE for r in both):
        return [], "the content is secret"
    if not all(map(known, both)):
        return [], "the node got it on an earlier stream, and only the version is known"
    if any(len(r.body) > MAX_BYTES for r in both):
        return [], f"the content is larger than {MAX_BYTES // 1024} KiB"
    old, new = _lines(held), _lines(target)
    before, after = ("nothing" if r is None else r.version for r in (held, target))
    diff = unified_diff(old, new, f"holds {before}", f"should hold {after}", lineterm="")
    lines = [line.rstrip() for line in islice(diff, MAX_LINES + 1)]
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"… only the first {MAX_LINES} lines of the diff are shown"]
    return lines, ""


def _lines(resource: Resource | None) -> list[str]:
    if resource is None:
        return []
    # An Any becomes an OrderedDict, for which YAML would write a tag; through JSON it becomes a plain dict.
    form = json.loads(json.dumps(MessageToDict(decoded(resource), preserving_proto_field_name=True)))
    text: str = yaml.dump(form, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text.splitlines()
