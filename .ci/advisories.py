"""Print the result of pip-audit. Exit with 1 if a package has a known vulnerability, and not if it could not be checked."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(file: str, report: str, log: str) -> int:
    """Print what the report says about the packages that `file` pins."""
    try:
        packages = json.loads(Path(report).read_text())["dependencies"]
    except (ValueError, KeyError):
        problem = (Path(log).read_text().strip().splitlines() or ["no reason given"])[-1]
        print(f"{file}: NOT CHECKED, the advisory service did not answer: {problem[:300]}")  # noqa: T201
        return 0
    skipped = [package for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    for package in vulnerable:
        for found in package["vulns"]:
            fixed = ", ".join(found.get("fix_versions", ())) or "none yet"
            print(f"{file}: {package['name']} {package['version']}: {found['id']}, fixed in {fixed}")  # noqa: T201
    checked = len(packages) - len(skipped)
    print(f"{file}: {checked} of {len(packages)} packages checked, {len(vulnerable)} with known vulnerabilities")  # noqa: T201
    if skipped:
        print(f"{file}: NOT CHECKED: {len(skipped)} packages, for example {skipped[0]['skip_reason']}")  # noqa: T201
    if vulnerable:
        print("raise them: make lock UPGRADE='--upgrade-package NAME'", file=sys.stderr)  # noqa: T201
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
