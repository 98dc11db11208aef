"""The benchmarks run and their figures are plausible. Their size is not tested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.loops import Batches, Committed, Database, Memory, Rebuilt, Rows
from bench.measure import Figure, digits

REPOSITORY = Path(__file__).parents[2]


def measured(out: Path, *names: str) -> Path:
    """Run benchmarks in a process of their own, and return the folder of their results."""
    command = [sys.executable, "-m", "bench", *names, "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the results that the slow tests read. `bad_clients` need only run."""
    return measured(tmp_path_factory.mktemp("results"), "users", "models", "gateways", "bad_clients")


def sane(figure: dict[str, float]) -> bool:
    """True for the figure of several measurements, in order and above zero."""
    return figure["count"] >= 2 and figure["low"] <= figure["median"] <= figure["high"] and figure["high"] > 0


@pytest.mark.envoy
@pytest.mark.slow
def test_users(results: Path) -> None:
    document: dict[str, Any] = json.loads((results / "users.json").read_text())
    assert document["sizes"] == [10, 100, 1_000, 10_000]
    assert len(document["methods"]) == 6
    for name, method in document["methods"].items():
        # The slowest loop is measured for few users, and the page says so.
        assert list(method["users"]) == ["10", "100", "1000", "10000"][: 2 if "commit" in name else 4], name
        for cell in method["users"].values():
            assert sane(cell["cpu_seconds"]), name
            assert sane(cell["wall_seconds"]), name
    turnout = document["methods"]["Turnout"]
    for n, cell in turnout["users"].items():
        # Four switches, each seen by every user or by 2,000 of them.
        assert cell["users_seen_moved"] == 4 * min(int(n), 2_000)
        assert cell["ack_seconds"]["low"] > 0
        assert 0 < cell["bytes_sent"]["median"] < 1_000
    # Bytes don't depend on the number of users. HTTP/2's own frames around the resource come at any time.
    assert 0.95 < turnout["resource_ratio"] < 1.05
    assert 0.5 < turnout["sent_ratio"] < 2
    page = (results / "users.md").read_text()
    assert "## Turnout's switch" in page
    assert "*" in page.partition("commit each")[2].partition("\n")[0]


@pytest.mark.envoy
@pytest.mark.slow
def test_gateways(results: Path) -> None:
    cells = json.loads((results / "gateways.json").read_text())["cells"]
    assert [(c["gateway"], c["models"]) for c in cells] == [(k, m) for k in ("path", "header", "body") for m in (1, 20)]
    assert all(c["requests_per_second"]["median"] > 0 < c["envoy_cpu_seconds_per_request"]["median"] for c in cells)


def test_models(tmp_path: Path) -> None:
    document: dict[str, Any] = json.loads((measured(tmp_path, "models") / "models.json").read_text())
    assert document["sizes"] == [1, 20]
    delta, sotw, table = (
        document["sides"][name]["models"] for name in ("Turnout, delta ADS", "Turnout, SotW ADS", "one flat table")
    )
    for side in (delta, sotw, table):
        for cell in side.values():
            assert all(sane(cell[what]) for what in ("bytes_sent", "ack_seconds", "wall_seconds"))
            assert cell["ack_seconds"]["low"] > 0
            assert cell["envoy_rss_bytes"] > 10_000_000
    assert delta["20"]["bytes_sent"]["median"] < 1_000
    assert delta["20"]["resource_bytes"]["median"] < 1.05 * delta["1"]["resource_bytes"]["median"]
    assert table["20"]["resource_bytes"]["median"] > 5 * table["1"]["resource_bytes"]["median"]
    for side in (delta, table):
        for cell in side.values():
            assert set(cell["requests_per_second"]) == {"first", "last"}
            assert all(sane(figure) for figure in cell["envoy_cpu_seconds_per_request"].values())


@pytest.mark.envoy
@pytest.mark.slow
def test_picture(results: Path) -> None:
    picture = (results / "flat.svg").read_text()
    assert picture.count("Turnout") >= 2
    assert len(picture) < 200_000


def test_every_loop_moves_every_user(tmp_path: Path) -> None:
    database, small = Database(tmp_path / "users.db", 10_050), Database(tmp_path / "few.db", 50)
    for loop in (Memory(10_050), Rebuilt(10_050), Rows(database), Batches(database), Committed(small)):
        before = loop.live
        after = {"blue": "green", "green": "blue"}[before]
        assert loop.holds(before)
        loop.switch(after)
        assert loop.holds(after), loop.name
        assert not loop.holds(before), loop.name
        assert loop.live == after
    database.close()
    small.close()


def test_a_figure_is_a_median_and_its_spread() -> None:
    assert Figure.of([3, 1, 2]) == Figure(2, 1, 3, 3)
    assert Figure.of(range(1, 21)) == Figure(10.5, 3, 18, 20)
    assert Figure.of([0.0014, 0.0015, 0.0019]).text("s") == "1.50 ms (1.40–1.90)"
    assert Figure.of([231, 232, 232]).text("B") == "232 B (231–232)"
    assert [digits(v) for v in (0, 0.012, 1.234, 12.34, 1234.5)] == ["0", "0.012", "1.23", "12.3", "1,234"]
