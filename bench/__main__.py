"""`python -m bench [NAME …] [--quick] [--out DIR]`: measures, prints, and keeps the results."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

from bench import measure, picture
from controlplane.errors import Error

# Each is a module with a coroutine function `run`, which takes `quick` and its options.
_ALL = ("users", "models", "bad_clients", "envoys", "cores", "transports", "scale", "storms", "burst", "growth")
_LONG = ("soak",)  # only when asked for
# Which take an option. Another one that is named beside them goes without it.
_TAKEN = {
    "count": ("envoys",),
    "proxies": ("transports", "scale", "storms", "burst", "growth", "soak"),
    "models": ("transports", "scale", "storms", "burst", "growth", "soak"),
    "rounds": ("transports", "scale", "storms", "burst"),
    "serve": ("envoys", "scale", "storms", "burst", "growth", "soak"),
    "peers": ("scale",),
    "minutes": ("soak",),
}
_SIZES = ("proxies", "models", "rounds", "minutes")  # --quick has its own


def main() -> int:
    """Runs what was asked for; 1 when it could not be measured, 2 when it was asked for wrongly, 130 when it was stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures Turnout.")
    known = ", ".join(_ALL)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to measure: {known}, all of it if left out; or {', '.join(_LONG)}"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small sizes, few repetitions; figures mean little")
    parser.add_argument("--out", type=Path, help="where results go; bench/results, or with --quick a scratch directory")
    group = parser.add_argument_group("options of some")

    def option(name: str, says: str, **more: Any) -> None:
        without = "; not with --quick" if name in _SIZES else ""
        group.add_argument(f"--{name}", help=f"{says}; {', '.join(_TAKEN[name])}{without}", **more)

    option("count", "how many Envoys: 100, or with --quick 8", type=_count)
    option("proxies", "how many simulated proxies", type=_numbers, metavar="N,N…")
    option("models", "how many models", type=_numbers, metavar="M,M…")
    option("rounds", "how often each is measured", type=_count)
    option("serve", "further flags of `turnout serve`", metavar="FLAGS")
    option("peers", "further flags of `bench/peers`, like `--resources same`", metavar="FLAGS")
    option("minutes", "how long it goes on: 60", type=_minutes)
    asked = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    names, quick, out = asked.pop("names"), asked.pop("quick"), asked.pop("out", None)
    if unknown := [n for n in names if n not in (*_ALL, *_LONG)]:
        parser.error(f"there is no {unknown[0]}; there are {known}, {', '.join(_LONG)}")
    for key in asked:
        if not set(names or _ALL) & set(_TAKEN[key]):
            parser.error(f"--{key} is for {', '.join(_TAKEN[key])}, not for {', '.join(names) or 'all'}")
        if quick and key in _SIZES:
            parser.error(f"--quick has sizes of its own: it can't be with --{key}")
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        out = out or (Path(scratch) if quick else Path(__file__).parent / "results")
        try:
            out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out).close()
        except OSError as error:
            print(f"bench: nothing can be written to {out}: {error.strerror}", file=sys.stderr)
            return 2
        try:
            for name in names or _ALL:
                run: Any = import_module(f"bench.{name}").run
                options = {k: v for k, v in asked.items() if name in _TAKEN[k]}
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
