"""Compare the licences of a bill of materials (CycloneDX) with those that are accepted. Exit with 1 if one is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Licences under which a package may be in what is deployed. Turnout is under Apache-2.0.
ACCEPTED = frozenset(
    (
        *(
            "0BSD",
            "MIT-0",
            "Apache-2.0 AND BSD-2-Clause",
            "Apache-2.0",
            "BSD-2-Clause",
            "BSD-3-Clause",
            "ISC",
            "MIT",
            "PSF-2.0",
            "Python-2.0",
            "Unlicense",
            "Zlib",
        ),
        # Names that packages use for some of them.
        *("Apache 2.0", "Apache License 2.0", "Apache License, Version 2.0", "BSD", "MIT License", "3-Clause BSD License"),
        *(
            "Apache-2.0 OR BSD-3-Clause",
            "Apache-2.0 OR BSD-2-Clause",
            "MIT AND PSF-2.0",
            "MIT AND Apache-2.0",
            "MIT OR Apache-2.0",
        ),
    )
)
# Of packages whose metadata has no licence that this program understands: read by hand, with the place.
BY_HAND: dict[str, str] = {
    "google-re2": "BSD-3-Clause, in LICENSE of its wheel",
    "protobuf": "BSD-3-Clause, in LICENSE of its wheel",
}


def main(file: str) -> int:
    """Print each package with its licences. Return 1 if there is one whose licence is not accepted."""
    components = json.loads(Path(file).read_text())["components"]
    refused = []
    for component in sorted(components, key=lambda c: str(c["name"]).lower()):
        names = sorted(set(licences(component)))
        accepted = component["name"] in BY_HAND or any(name in ACCEPTED for name in names)
        if not accepted:
            refused.append(component["name"])
        note = f"  (read by hand: {BY_HAND[component['name']]})" if component["name"] in BY_HAND else ""
        print(f"{component['name']} {component['version']}: {', '.join(names) or 'unknown'}{note}")  # noqa: T201
    if refused:
        print(f"not accepted, or unknown: {', '.join(refused)}. Read the licence, then see .ci/licences.py", file=sys.stderr)  # noqa: T201
        return 1
    print(f"{len(components)} packages, all under accepted licences: {file}")  # noqa: T201
    return 0


def licences(component: dict[str, Any]) -> Iterator[str]:
    """Yield the ids, names and expressions of a component's licences."""
    for entry in component.get("licenses", ()):
        if "expression" in entry:
            yield str(entry["expression"])
        licence = entry.get("license", {})
        if name := licence.get("id") or licence.get("name"):
            yield str(name).removeprefix("License :: OSI Approved :: ")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
