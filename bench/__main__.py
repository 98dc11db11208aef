"""`python -m bench [NAME …] [--quick] [--out DIR]`: measures, prints, and keeps the results."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import measure, picture
from controlplane.errors import Error

# Each is a module with a coroutine function `run`, which takes `quick` and those of the options that mean something to it.
_ALL = ("users", "models", "bad_clients", "envoys", "cores", "shells", "scale", "storms", "burst", "growth")
_LONG = ("soak",)  # only when asked for


def main() -> int:
    """Runs what was asked for; 1 when it could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures Turnout.")
    known = ", ".join(_ALL)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to measure: {known}, all of it if left out; or {', '.join(_LONG)}"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small sizes, few repetitions; figures mean little")
    parser.add_argument("--out", type=Path, help="where results go; bench/results, or with --quick a scratch directory")
    group = parser.add_argument_group("options of some")
    group.add_argument("--count", type=_count, help="how many Envoys `envoys` starts; 100, or with --quick 8")
    group.add_argument(
        "--proxies", type=_numbers, metavar="N,N…", help="how many simulated proxies; scale, storms, burst, growth, soak"
    )
    group.add_argument("--models", type=_numbers, metavar="M,M…", help="how many models; scale, storms, burst, growth, soak")
    group.add_argument("--rounds", type=_count, help="how often each is measured; scale, storms, burst")
    group.add_argument(
        "--serve", metavar="FLAGS", help="further flags of `turnout serve`; envoys, scale, storms, burst, growth, soak"
    )
    group.add_argument("--peers", metavar="FLAGS", help="further flags of `bench/peers`, like `--resources same`; scale")
    group.add_argument("--minutes", type=_minutes, help="how long `soak` goes on; 60")
    asked = vars(parser.parse_args())
    names, quick, out = asked.pop("names"), asked.pop("quick"), asked.pop("out")
    if unknown := [n for n in names if n not in (*_ALL, *_LONG)]:
        parser.error(f"there is no {unknown[0]}; there are {known}, {', '.join(_LONG)}")
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        out = out or (Path(scratch) if quick else Path(__file__).parent / "results")
        try:
            for name in names or _ALL:
                run: Any = import_module(f"bench.{name}").run
                options = {k: v for k, v in asked.items() if v is not None and k in inspect.signature(run).parameters}
                results, page = asyncio.run(run(quick=quick, **options))
                measure.write(out, name, results, page)
                if grown := results.get("grown"):
                    raise AssertionError(f"{name}: {'; '.join(grown)}")
            picture.draw(out)
        except (Error, OSError, RuntimeError, AssertionError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return 0


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_count(part) for part in text.replace("_", "").split(","))


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0.1 <= minutes < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes, 0.1 or more")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
