"""Mutual TLS on the xDS port: Turnout with it, Turnout without it, and the strongest go-control-plane with it.

N simulated proxies (`bench/fleet`) with a connection each and M models, delta ADS, in turn, A B C A B C, each time from the
start. All certificates are P-256, both ends speak TLS 1.3, and no session is resumed. The proxies share a certificate, and
Turnout checks the claims of each stream by a rule. The simulator does TLS in goroutines, so on two cores it takes more of the
machine than without TLS: compare the times with those of the other side in the same table only.
"""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import Figure, digits, environment, table
from bench.scale import Run, measure, progress, versions
from bench.sides import STRONGEST, TURNOUT, Starter, peer, turnout
from tests.pki import Authority

SECURE, SECURE_PEER = f"{TURNOUT}, mTLS", f"{STRONGEST}, mTLS"

RULES = 'identities: [{match: fleet.bench, ids: "*", clusters: "*", metadata: {"*": "*"}, shared: true}]\n'

# The figures of the page: the metric, its title, the factor to its unit, and the goal by the number of models. It is for the
# ratio of Turnout to the peer, both with TLS.
_FIGURES: tuple[tuple[str, str, float, dict[int, float]], ...] = (
    ("switch_cpu", "CPU per proxy and switch, µs", 1e6, {10: 0.85, 100: 0.85}),
    ("received_p99", "p99 from the call to receipt, ms", 1e3, {10: 1.0, 100: 1.0}),
    ("sync_cpu", "CPU of a cold sync of all with handshakes, s", 1.0, {10: 1.0, 100: 0.8}),
    ("sync_wall", "wall time of it, s", 1.0, {}),
    ("memory", "memory per idle proxy, KiB", 1 / 1024, {10: 0.25, 100: 0.15}),
)


def certificates(directory: Path) -> dict[str, Path]:
    """Write the files of both ends, and return their paths by name."""
    authority = Authority("bench")
    files = {"rules": directory / "identities.yaml", "ca": directory / "ca.pem"}
    files["rules"].write_text(RULES)
    files["ca"].write_text(authority.certificate)
    for name, host in (("server", "localhost"), ("client", "fleet.bench")):
        certificate, key = authority.pair(host).files(directory, name)
        files |= {f"{name}.pem": Path(certificate), f"{name}.key": Path(key)}
    return files


def sides(files: dict[str, Path]) -> dict[str, tuple[Starter, tuple[str, ...]]]:
    """Return the servers, each with further flags of the simulator."""
    options = {"tls-cert": "server.pem", "tls-key": "server.key", "client-ca": "ca", "identities": "rules"}
    ours = " ".join(f"--xds-{name} {files[file]}" for name, file in options.items())
    client = ("-tls", ",".join(str(files[name]) for name in ("client.pem", "client.key", "ca")))
    theirs = ",".join(str(files[name]) for name in ("server.pem", "server.key", "ca"))
    return {
        SECURE: (turnout(ours), client),
        TURNOUT: (turnout(), ()),
        SECURE_PEER: (peer("strongest", "--tls", theirs), client),
    }


async def run(
    *, quick: bool, proxies: Sequence[int] = (1000,), models: Sequence[int] = (10, 100), rounds: int = 3
) -> tuple[dict[str, Any], str]:
    """Measure the three servers in turn for each N and M."""
    if quick:
        proxies, models, rounds = (100,), (10,), 1
    cells: list[dict[str, Any]] = []
    rows: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as scratch:
        starters = sides(certificates(Path(scratch)))
        for n, m in ((n, m) for n in proxies for m in models):
            runs: dict[str, list[Run]] = {name: [] for name in starters}
            for i in range(rounds):
                for name, (start, flags) in starters.items():
                    runs[name].append(await measure(start, n, m, fleet=flags))
                    print(f"N={n} M={m} round {i + 1}: {name}: {progress(runs[name][-1])}", flush=True)
            figures = {
                name: {metric: Figure.of(r.value(metric) for r in done) for metric, *_ in _FIGURES}
                for name, done in runs.items()
            }
            cells.append(
                {"proxies": n, "models": m, "sides": {s: {k: f.json() for k, f in of.items()} for s, of in figures.items()}}
            )
            for metric, title, factor, goals in _FIGURES:
                values = [figures[name][metric].median for name in starters]
                ratio = values[0] / values[2]
                goal = goals.get(m)
                mark = "" if goal is None or quick else f" {'≤' if ratio <= goal else '**>**'} {goal}"
                rows.append([str(n), str(m), title, *(digits(v * factor) for v in values), f"{ratio:.2f}{mark}"])
    page = table(["N", "M", "", *starters, "ratio with mTLS, and goal"], rows)
    about = __doc__.partition("\n\n")[2].strip() if __doc__ else ""
    found = environment() | versions() | {"openssl": ssl.OPENSSL_VERSION}
    return {"environment": found, "cells": cells}, f"## Mutual TLS\n\n{about}\n\n{page}\n"
