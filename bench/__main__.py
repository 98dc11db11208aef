"""`python -m bench [NAME …] [--quick] [--out DIR]`: measures, prints, and keeps the results."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from bench import bad_clients, envoys, measure, models, picture, users
from controlplane.errors import Error

_ALL = {"users": users.run, "models": models.run, "bad_clients": bad_clients.run, "envoys": envoys.run}


def main() -> int:
    """Runs what was asked for; 1 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures Turnout on real Envoys.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(_ALL)}; everything if left out")
    parser.add_argument("--quick", action="store_true", help="a smoke run: small sizes, few repetitions; figures mean little")
    parser.add_argument("--count", type=int, help="how many Envoys `envoys` starts; 100, or with --quick 8")
    parser.add_argument("--out", type=Path, help="where results go; bench/results, or with --quick a scratch directory")
    asked = parser.parse_args()
    if unknown := [n for n in asked.names if n not in _ALL]:
        parser.error(f"there is no {unknown[0]}; there are {', '.join(_ALL)}")
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        out = asked.out or (Path(scratch) if asked.quick else Path(__file__).parent / "results")
        try:
            for name in asked.names or _ALL:
                options = {"count": asked.count} if name == "envoys" else {}
                results, page = asyncio.run(_ALL[name](quick=asked.quick, **options))
                measure.write(out, name, results, page)
            picture.draw(out)
        except (Error, OSError, AssertionError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
