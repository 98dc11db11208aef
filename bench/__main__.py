"""`python -m bench [NAME …] [--quick] [--out DIR]`: measure, print the figures, and write them to files."""

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

# Each is a module with a coroutine function `run`, whose parameters are `quick` and its options.
_ALL = (
    "users",
    "models",
    "gateways",
    "bad_clients",
    "envoys",
    "cores",
    "transports",
    "tls",
    "scale",
    "storms",
    "burst",
    "growth",
)
_BY_NAME = ("soak", "compare", "upgrade")  # only if they are named
# By option: the benchmarks that have it. Other benchmarks of the same command ignore it.
_OPTIONS = {
    "count": ("envoys",),
    "proxies": ("transports", "tls", "scale", "storms", "burst", "growth", "soak", "compare"),
    "models": ("transports", "tls", "scale", "storms", "burst", "growth", "soak", "compare"),
    "rounds": ("transports", "tls", "scale", "storms", "burst", "compare"),
    "serve": ("envoys", "scale", "storms", "burst", "growth", "soak", "compare"),
    "peers": ("scale",),
    "minutes": ("soak",),
    "checkout": ("compare", "upgrade"),
}
_FLAGS = {"checkout": "with"}  # options whose flag has another name
_SIZES = ("proxies", "models", "rounds", "minutes")  # --quick sets these itself


def main() -> int:
    """Run the benchmarks of the command line.

    Return 0; 1 if one could not be measured, 2 if the command line is wrong, 130 if the run was stopped.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _main()
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _main() -> int:
    names, quick, out, options = _arguments()
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        out = out or (Path(scratch) if quick else Path(__file__).parent / "results")
        try:
            out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=out).close()
        except OSError as error:
            print(f"bench: cannot write results to {out}: {error.strerror}; choose a folder with --out", file=sys.stderr)
            return 2
        try:
            for name in names:
                _run(name, quick, out, {k: v for k, v in options.items() if name in _OPTIONS[k]})
            picture.draw(out)
        except (Error, OSError, RuntimeError, AssertionError) as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    return 0


def _run(name: str, quick: bool, out: Path, options: dict[str, Any]) -> None:
    run: Any = import_module(f"bench.{name}").run
    results, page = asyncio.run(run(quick=quick, **options))
    measure.write(out, name, results, page)
    if grown := results.get("grown"):
        raise AssertionError(f"{name}: {'; '.join(grown)}")


def _arguments() -> tuple[tuple[str, ...], bool, Path | None, dict[str, Any]]:
    """Return the names, --quick, --out and the options. Exits with a message if they can't be combined."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Turnout.")
    every = ", ".join(_ALL)
    by_name = ", ".join(_BY_NAME)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"what to measure: {every}; all of these if left out; or {by_name}"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run: small sizes, few rounds; its figures mean little")
    parser.add_argument("--out", type=Path, help="folder for the results: bench/results, or with --quick a temporary folder")
    group = parser.add_argument_group("options of some benchmarks")

    def option(name: str, text: str, **more: Any) -> None:
        without = "; not with --quick" if name in _SIZES else ""
        group.add_argument(f"--{_flag(name)}", dest=name, help=f"{text}; {', '.join(_OPTIONS[name])}{without}", **more)

    option("count", "number of Envoys: 100, or with --quick 8", type=_count)
    option("proxies", "numbers of simulated proxies", type=_numbers, metavar="N,N…")
    option("models", "numbers of models", type=_numbers, metavar="M,M…")
    option("rounds", "how often each is measured", type=_count)
    option("serve", "further flags of `turnout serve`", metavar="FLAGS")
    option("peers", "further flags of `bench/peers`, like `--resources same`", metavar="FLAGS")
    option("minutes", "duration: 60", type=_minutes)
    option("checkout", "folder of the other checkout, with a virtual environment in .venv", metavar="PATH")
    given = {k: v for k, v in vars(parser.parse_args()).items() if v is not None}
    names, quick, out = tuple(given.pop("names")), given.pop("quick"), given.pop("out", None)
    if unknown := [n for n in names if n not in (*_ALL, *_BY_NAME)]:
        parser.error(f"unknown benchmark {unknown[0]!r}; choose from {every}, {by_name}")
    for name in given:
        if not set(names or _ALL) & set(_OPTIONS[name]):
            parser.error(f"--{_flag(name)} is for {', '.join(_OPTIONS[name])}, not for {', '.join(names) or 'all'}")
        if quick and name in _SIZES:
            parser.error(f"--quick sets the sizes itself: it can't be combined with --{name}")
    for name in set(names).intersection(_OPTIONS["checkout"]) if "checkout" not in given else ():
        parser.error(f"{name} needs the other checkout: --with PATH")
    return names or _ALL, quick, out, given


def _flag(option: str) -> str:
    return _FLAGS.get(option, option)


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
