"""What lies between two contents of an Envoy resource, as lines that people read."""

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

# Larger contents are not compared, bytes; and of a diff more lines than this are not shown.
MOST_BYTES = 256 * 1024
MOST_LINES = 400

# In C, where there is one.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def difference(held: Resource | None, target: Resource | None) -> tuple[list[str], str]:
    """What makes `target` of `held`, as a unified diff of the two in YAML; or why there is none. Takes milliseconds."""
    both = [r for r in (held, target) if r is not None]
    if (held is None and target is None) or (held is not None and target is not None and held.version == target.version):
        return [], ""
    if any(r.type_url in SENSITIVE for r in both):
        return [], "its content is secret"
    if not all(map(known, both)):
        return [], "it was taken from an earlier stream, of which only the version is known"
    if any(len(r.body) > MOST_BYTES for r in both):
        return [], f"it is larger than {MOST_BYTES // 1024} KiB"
    old, new = _lines(held), _lines(target)
    before, after = ("nothing" if r is None else r.version for r in (held, target))
    found = unified_diff(old, new, f"holds {before}", f"should hold {after}", lineterm="")
    lines = [line.rstrip() for line in islice(found, MOST_LINES + 1)]
    if len(lines) > MOST_LINES:
        lines[MOST_LINES:] = [f"… only the first {MOST_LINES} lines of the diff are shown"]
    return lines, ""


def _lines(resource: Resource | None) -> list[str]:
    if resource is None:
        return []
    # What is inside of an Any is an OrderedDict, which YAML would tag.
    form = json.loads(json.dumps(MessageToDict(decoded(resource), preserving_proto_field_name=True)))
    text: str = yaml.dump(form, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text.splitlines()
